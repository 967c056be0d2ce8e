"""Measures the confidence of probabilities, as features in [0, 1] to learn from.

Three features, in this order: the top probability, its margin over the second, and the entropy
divided by its maximum ln(k), so that models with different numbers of classes compare.
"""

import math
from collections.abc import Sequence

Features = tuple[float, ...]

SUM_ERROR_MAX = 0.02
"""How far from 1 probabilities may add up: 8-bit models round ten of them by up to 0.002 each."""


def features(probabilities: Sequence[float]) -> Features:
    """Return (top, margin, normalised entropy); empty if the numbers are no probabilities.

    A single number is the probability of one of two classes.
    """
    if len(probabilities) == 1:
        probabilities = (probabilities[0], 1.0 - probabilities[0])
    ordered = sorted(probabilities)
    if not ordered or ordered[0] < 0 or not abs(sum(ordered) - 1.0) <= SUM_ERROR_MAX:
        return ()
    log = math.log
    entropy = -sum(p * log(p) for p in ordered if p > 0)
    top = min(ordered[-1], 1.0)
    return top, top - min(ordered[-2], top), min(max(entropy / log(len(ordered)), 0.0), 1.0)


def features_of_rows(probabilities: Sequence[float], classes: int) -> Features:
    """Return the mean of the rows' features; `probabilities` is row-major, `classes` to a row.

    Empty if any row holds no probabilities.
    """
    if classes == len(probabilities):
        return features(probabilities)
    rows = [
        features(probabilities[at : at + classes]) for at in range(0, len(probabilities), classes)
    ]
    if not rows or not all(rows):
        return ()
    return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))


def alone(confidence: object) -> Features:
    """Return the one feature of a bare confidence; empty if it is not in [0, 1]."""
    if isinstance(confidence, int | float) and 0 <= confidence <= 1:
        return (float(confidence),)
    return ()
