"""Labels and answers that mean the same are the same."""

import pytest

from gateway.score import exact, near


@pytest.mark.parametrize(
    ("answer", "label", "score"),
    [
        (7, 7, 1),
        (7, "7", 1),
        (7.0, 7, 1),
        ("cat", "cat", 1),
        ([7], 7, 1),
        (7, 8, 0),
        (None, 7, None),
    ],
)
def test_exact(answer: object, label: object, score: float | None) -> None:
    assert exact(answer, label) == score


@pytest.mark.parametrize(
    ("answer", "label", "score"),
    [(1.0, 1.4, 1), (1.0, 1.6, 0), ("x", 1, None), (None, 1, None), (float("nan"), 1, None)],
)
def test_near(answer: object, label: object, score: float | None) -> None:
    assert near(0.5)(answer, label) == score
