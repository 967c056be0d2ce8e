"""Learns how far the labels of an arm follow what is expected of the other arms on the request.

Of many arms some are mostly tried where no arm is sure, that is on requests that are hard for all.
The mean of their labels is then that of hard requests. The *ease* of a request for an arm is what
the regressors expect there of the other arms, less what they usually expect of them. A label is
compared with others only after that part of it which follows the ease was taken off. The part is
one number for all arms, learned from their labels. It is 0 where each arm is right on what the
others are wrong on: there the ease says nothing, or the opposite.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
MANY = 5  # arms from which on the others show how hard a request is
LABELS_MAX = 200.0  # of an arm that count for what it shows of the ease
NONE = 10.0  # labels' worth of an arm that shows no ease
KEPT = 0.9995  # share of the evidence that remains after one label
DOUBT = 0.2  # squared ease's worth of evidence before labels are taken to follow it


class Ease:
    """How far labels follow the ease of their requests."""

    # The mutable state is two sums, and the share that follows from them.

    __slots__ = ("_same", "_square", "share")

    def __init__(self) -> None:
        self._set(0.0, 0.0)

    def _set(self, same: float, square: float) -> None:
        self._same, self._square = same, square
        self.share = min(1.0, max(0.0, same / (square + DOUBT)))

    def learn(self, ease: float, rest: float) -> None:
        """Learn from a request's ease, and its label less the arm's mean."""
        self._set(KEPT * self._same + rest * ease, KEPT * self._square + ease * ease)

    def save(self) -> list[float]:
        """Return the state."""
        return [self._same, self._square]

    def load(self, state: Sequence[float]) -> None:
        """Load a saved state."""
        self._set(*map(float, state))


def eases(
    values: Matrix, usual: Sequence[float], slopes: Sequence[float], labels: Sequence[float]
) -> Matrix:
    """Return the ease for each arm, ... x arms: how much better than usual the other arms are.

    values: the regressors' predictions, ... x arms; usual: their means; slopes: how far to follow
    each; labels: those known of each arm.
    """
    counts = np.minimum(labels, LABELS_MAX)
    parts = (values - usual) * (counts * slopes)
    others = parts.sum(axis=-1, keepdims=True) - parts
    found: Matrix = others / (counts.sum() - counts + NONE)
    return found
