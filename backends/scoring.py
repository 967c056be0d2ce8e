"""Scores an answer against the true label, or explains why the two cannot be compared.

An answer that cannot be compared is not wrong: a label of another type or another number of rows
indicates a mistake in the feedback. An arm that is blamed for it would be abandoned without reason.

A batch is scored row by row: its quality is the mean over its rows. A vector of probabilities is
scored by its likeliest class, if the label is the index of one. A list counts as such a vector if
it holds fractions that add up to 1, or if the route says `argmax = true` (scores before a softmax
do not add up).

Labels travel through JSON, tensors and forms, so 7, 7.0 and "7" are one label, and so are true, 1
and "true". Two texts are one label only if they are the same text: "007" is not "7".
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SUM_ERROR = 0.01  # of probabilities in half precision, over some hundred classes
SHOWN_CHARS = 40  # of an answer in a message: enough to see what it is

_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*")
_TRUTH = {"true": True, "false": False}


class Incomparable(ValueError):  # noqa: N818 - reads as what happened
    """An answer and a label that cannot be compared; the message says why, and what to send."""


Rule = Callable[[Any, Any], float]
"""Scores one row: in [0, 1], or Incomparable."""


@dataclass(frozen=True, slots=True)
class Score:
    """A route's scorer.

    `argmax`: whether a list is a vector of classes' scores; None: if it holds probabilities.
    """

    rule: Rule
    argmax: bool | None = None

    def __call__(self, answer: Any, label: Any) -> float | None:
        """Return the score; None if the two cannot be compared."""
        try:
            return self.judge(answer, label)
        except Incomparable:
            return None

    def judge(self, answer: Any, label: Any) -> float:
        """Return the score in [0, 1]; the message of Incomparable says why there is none."""
        answer, label = _single(answer), _single(label)
        if answer is None:
            raise Incomparable("no answer was recorded for this reply; send a quality instead")
        if not isinstance(answer, list):
            if isinstance(label, list):
                raise Incomparable(
                    f"the label is a list of {len(label)}, and the answer is {_shown(answer)}; "
                    "send one label"
                )
            return self.rule(answer, label)
        if not isinstance(label, list):
            if self._is_vector(answer):
                return self._likeliest(answer, label)
            raise Incomparable(
                f"the answer is a list of {len(answer)}, and the label is {_shown(label)}; send a "
                "list of as many labels, or set argmax = true in the route's score if the list "
                "holds a score for each class"
            )
        return self._rows(answer, label)

    def _rows(self, answer: list[Any], label: list[Any]) -> float:
        """Return the mean over the rows of a batch."""
        of_classes = _is_one_hot(label) or self._is_vector(label)  # audits send an answer as label
        if of_classes and len(label) == len(answer) and self._is_vector(answer):
            return self._likeliest(answer, label.index(max(label)))
        if 0 < len(label) < len(answer) and len(answer) % len(label) == 0:
            wide = len(answer) // len(label)  # a tensor's data is flat, whatever its shape
            vectors = [answer[at : at + wide] for at in range(0, len(answer), wide)]
            if all(map(self._is_vector, vectors)):
                answer = vectors
        if len(answer) != len(label):
            raise Incomparable(
                f"the answer has {len(answer)} rows, and the label {len(label)}; send a label for "
                "each row"
            )
        if not answer:
            raise Incomparable("the answer has no rows; send a quality instead")
        return sum(map(self.judge, answer, label)) / len(answer)

    def _is_vector(self, answer: Any) -> bool:
        """Whether an answer is a score for each of several classes."""
        if self.argmax is False or not isinstance(answer, list) or len(answer) < 2:
            return False
        kinds = set(map(type, answer))
        if self.argmax:
            return kinds <= {int, float} and all(map(math.isfinite, answer))
        # Whole numbers are the classes of a batch, even if they add up to 1.
        return kinds == {float} and min(answer) >= 0.0 and abs(sum(answer) - 1.0) <= SUM_ERROR

    def _likeliest(self, vector: list[float], label: Any) -> float:
        """Score a vector by the index of its greatest number."""
        number = _number(label)
        if number is None or isinstance(label, bool) or number != math.floor(number):
            raise Incomparable(
                f"the answer is a vector of {len(vector)} classes, and the label is "
                f"{_shown(label)}; send the index of the true class, from 0"
            )
        if not 0 <= number < len(vector):
            raise Incomparable(
                f"the label is class {_shown(label)}, and the answer is a vector of {len(vector)}; "
                f"classes go from 0 to {len(vector) - 1}"
            )
        return float(vector.index(max(vector)) == number)


def unscored(answer: Any, label: Any) -> float:
    """Raise Incomparable: no scorer is configured."""
    raise Incomparable(
        "this route cannot score a label; send a quality, or add a score to the route in the "
        'configuration, such as score = { exact = "outputs[0].data[0]" }'
    )


def equal(answer: Any, label: Any) -> float:
    """Return 1.0 if the answer is the label, else 0.0."""
    if isinstance(answer, dict) or isinstance(label, dict):
        if type(answer) is not type(label):
            raise _other_type(answer, label)
        return float(bool(answer == label))
    if isinstance(answer, str) and isinstance(label, str):
        return float(answer == label)
    if isinstance(answer, bool) or isinstance(label, bool):
        return _same_truth(answer, label)
    left, right = _number(answer), _number(label)
    if left is None or right is None:
        raise _other_type(answer, label)
    return float(left == right)


def within(tolerance: float) -> Rule:
    """Return a rule that is 1.0 if answer and label differ by at most `tolerance`."""

    def rule(answer: Any, label: Any) -> float:
        left, right = _number(answer), _number(label)
        if left is None or right is None or isinstance(answer, bool) or isinstance(label, bool):
            raise Incomparable(
                f"the answer is {_shown(answer)} and the label {_shown(label)}; both must be "
                "finite numbers"
            )
        try:
            return float(abs(left - right) <= tolerance)
        except OverflowError:  # an integer too large for a float is near to no other
            return 0.0

    return rule


exact = Score(equal)


def near(tolerance: float) -> Score:
    """Return a score that is 1.0 if answer and label differ by at most `tolerance`."""
    return Score(within(tolerance), argmax=False)


def _same_truth(answer: Any, label: Any) -> float:
    """Compare if one of the two is a boolean: as 0 and 1, or as the words true and false."""
    left, right = _truth(answer), _truth(label)
    if left is None or right is None:
        raise _other_type(answer, label)
    return float(left == right)


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    number = _number(value)
    return bool(number) if number in (0, 1) else None


def _number(value: Any) -> int | float | None:
    """Return a finite number, or the number in a text; None for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return None


def _is_one_hot(label: list[Any]) -> bool:
    """Whether a label is a vector with a 1 at the true class and 0 elsewhere."""
    numbers = all(type(value) in (int, float) for value in label)
    return numbers and label.count(0) == len(label) - 1 and label.count(1) == 1


def _single(value: Any) -> Any:
    """Return the element of a list of one: models answer one row as a batch of one."""
    for _ in range(8):  # levels: the maximum in labels
        if not isinstance(value, list) or len(value) != 1:
            return value
        value = value[0]
    return value


def _other_type(answer: Any, label: Any) -> Incomparable:
    return Incomparable(
        f"the answer is {_shown(answer)} and the label {_shown(label)}: they are of different "
        "types; send a label of the answer's type, or point the route's score at another value"
    )


def _shown(value: Any) -> str:
    """Return a value for display in messages: short, and the type of a long one."""
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if value is None:
        return "null"
    kind = {bool: "", str: "the text ", int: "the number ", float: "the number "}[type(value)]
    text = repr(value)
    return kind + (text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}...")
