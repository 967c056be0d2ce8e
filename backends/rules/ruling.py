"""What rules say of one input: their answer, and how sure they are of it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ruling:
    """An answer (a label, a number, a text), with a confidence in [0, 1] where there is one.

    `probabilities` are those of the classes, in the rules' order, where rules weigh classes.
    """

    answer: Any
    confidence: float | None = None
    probabilities: tuple[float, ...] = ()
