"""Scores an answer against the true label."""

import math
from collections.abc import Callable
from typing import Any

Score = Callable[[Any, Any], float | None]


def unscored(answer: Any, label: Any) -> None:
    """Score nothing: the route was not told how."""


def exact(answer: Any, label: Any) -> float | None:
    """Return 1.0 where the answer is the label, else 0.0.

    Labels travel through JSON, tensors and forms, so 7, 7.0 and "7" are one label.
    """
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if answer is None:
        return None
    return float(answer == label or _text(answer) == _text(label))


def near(tolerance: float) -> Score:
    """Return a score that is 1.0 where answer and label differ by at most `tolerance`."""

    def score(answer: Any, label: Any) -> float | None:
        try:
            difference = abs(float(answer) - float(label))
        except (TypeError, ValueError):
            return None
        return float(difference <= tolerance) if math.isfinite(difference) else None

    return score


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
