"""Equal labels and answers match in any form; what cannot be compared is not wrong."""

from typing import Any

import pytest

from tollway.backends.scoring import Incomparable, Score, equal, exact, near, unscored

SOFTMAX = [0.1, 0.7, 0.2]
LOGITS = [-3.2, 5.1, 0.4]


@pytest.mark.parametrize(
    ("answer", "label", "score"),
    [
        (7, 7, 1),
        (7, "7", 1),
        (7.0, 7, 1),
        ("7", 7.0, 1),
        ("7.0", 7, 1),
        ("cat", "cat", 1),
        ([7], 7, 1),
        (7, [7], 1),
        ([[7]], [7], 1),
        (7, 8, 0),
        (None, 7, None),
        ("cat", "dog", 0),
        ("007", "7", 0),
        (True, True, 1),
        (True, 1, 1),
        ("false", False, 1),
        (False, "true", 0),
        (1, False, 0),
        (2**63 + 1, 2**63 + 1, 1),
        (2**63 + 1, 2**63, 0),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}, 1),
        ({"a": 1}, {"a": 2}, 0),
    ],
)
def test_exact(answer: object, label: object, score: float | None) -> None:
    assert exact(answer, label) == score


@pytest.mark.parametrize(
    ("answer", "label", "score"),
    [
        ([1, 2, 3], [1, 2, 4], 2 / 3),
        ([1, 2], ["1", 2.0], 1),
        (["a", "b"], ["a", "c"], 0.5),
        ([[1], [2]], [1, 2], 1),
        ([1, 0, 0], [1, 0, 0], 1),
        (SOFTMAX, 1, 1),
        (SOFTMAX, "1", 1),
        (SOFTMAX, 2.0, 0),
        (SOFTMAX, [0, 1, 0], 1),
        (SOFTMAX, [1.0, 0.0, 0.0], 0),
        (SOFTMAX, [0.2, 0.5, 0.3], 1),
        ([SOFTMAX], 1, 1),
        ([SOFTMAX, SOFTMAX], [1, 0], 0.5),
        ([*SOFTMAX, *SOFTMAX], [1, 0], 0.5),
        ([0.0, 1.0], 1, 1),
    ],
)
def test_batches_are_scored_by_row_and_probabilities_by_the_likeliest_class(
    answer: object, label: object, score: float
) -> None:
    assert exact.judge(answer, label) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "label", "why"),
    [
        ("cat", 7, "different types"),
        (7, "cat", "different types"),
        (7, True, "different types"),
        ({"a": 1}, 7, "different types"),
        (7, {"a": 1}, "different types"),
        (None, 7, "no answer was recorded"),
        ([None], 7, "no answer was recorded"),
        ([1, 2, 3], [1, 2], "3 rows, and the label 2"),
        ([], [1, 2], "0 rows"),
        ([], 1, "list of 0"),
        ([1, 2], [], "2 rows"),
        ([1, 2, 3], 1, "list of as many labels"),
        ([1, 0, 0], 1, "argmax"),
        (7, [7, 8], "send one label"),
        (SOFTMAX, 3, "from 0 to 2"),
        (SOFTMAX, -1, "from 0 to 2"),
        (SOFTMAX, 0.5, "index of the true class"),
        (SOFTMAX, "cat", "index of the true class"),
        (SOFTMAX, True, "index of the true class"),
        (LOGITS, 1, "argmax = true"),
        ([1, "x"], [1, 2], "different types"),
        (float("nan"), 1, "different types"),
        (1, [[[[]]]], "list of 0"),
    ],
)
def test_what_cannot_be_compared_says_why(answer: object, label: object, why: str) -> None:
    with pytest.raises(Incomparable, match=why):
        exact.judge(answer, label)


def test_a_route_may_say_that_a_list_holds_a_score_for_each_class_or_that_it_does_not() -> None:
    assert Score(equal, argmax=True).judge(LOGITS, 1) == 1.0
    assert Score(equal, argmax=True).judge([*LOGITS, *LOGITS], [1, 2]) == 0.5
    with pytest.raises(Incomparable):
        Score(equal, argmax=False).judge(SOFTMAX, 1)


@pytest.mark.parametrize(
    ("answer", "label", "score"),
    [
        (1.0, 1.4, 1),
        (1.0, 1.6, 0),
        ("x", 1, None),
        (None, 1, None),
        (float("nan"), 1, None),
        ("1.2", 1, 1),
        ([1.0, 2.0], [1.1, 9.0], 0.5),
        ([1.0, 2.0], 1.0, None),
        ([1.0, 2.0], [1.0], None),
        (True, 1, None),
        (1.0, float("inf"), None),
    ],
)
def test_near(answer: object, label: object, score: float | None) -> None:
    assert near(0.5)(answer, label) == score


def test_a_route_without_a_score_says_how_to_get_one() -> None:
    with pytest.raises(Incomparable, match="send a quality, or add a score"):
        Score(unscored).judge(1, 1)


def odd(depth: int = 40) -> list[Any]:
    deep: Any = [1, 2]
    for _ in range(depth):
        deep = [deep, deep] if depth < 5 else [deep, 1]
    texts = ["", "1e999", "9" * 4000, "\u0663"]
    return [deep, {}, [], [[]], [None, None], {"a": None}, 1e308, -0.0, [{}], *texts]


@pytest.mark.parametrize("answer", odd())
@pytest.mark.parametrize("label", odd(3))
@pytest.mark.parametrize("scored", [exact, near(0.5), Score(equal, argmax=True)])
def test_odd_answers_and_labels_score_in_bounds_or_say_why(
    scored: Score, answer: object, label: object
) -> None:
    try:
        score = scored.judge(answer, label)
    except Incomparable as exc:
        assert str(exc)
    else:
        assert 0.0 <= score <= 1.0
