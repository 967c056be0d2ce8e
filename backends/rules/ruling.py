"""The result of rules for one input: an answer and its confidence."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ruling:
    """An answer (a label, a number, a text), with an optional confidence in [0, 1].

    `probabilities` are those of the classes, in the rules' order, if rules weigh classes.
    """

    answer: Any
    confidence: float | None = None
    probabilities: tuple[float, ...] = ()
