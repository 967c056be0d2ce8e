"""The port of a regressor: one number per arm, from a context, learned from the arms seen."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tollway.policies.types import Context

Matrix = NDArray[np.float64]
Rows = slice | list[int]


class Table(Protocol):
    """Contexts that a head predicts again and again, by row; all with the same reply in hand."""

    def put(self, row: int, context: Context) -> None:
        """Have a context in a row, in place of the one before."""

    def predict(self, rows: Rows, arms: Sequence[str]) -> Matrix:
        """Return what the head would predict for each of some rows now, as rows x arms."""


class Regressor(Protocol):
    """Regresses a value on a context, for each of a changing set of arms.

    Arms are known by their names and need not be announced; one never learned from is predicted 0,
    or what it shares with the others. In a cascade the context says what reply is in hand, and an
    arm's prediction may depend on it.
    """

    cheap_many: int
    """How many contexts of a table it predicts in about a millisecond."""

    def predict(self, context: Context, arms: Sequence[str]) -> list[float]:
        """Return a finite value per arm, in their order; ValueError for a context that is not."""

    def predict_many(self, contexts: Sequence[Context], arms: Sequence[str]) -> Matrix:
        """Return what `predict` would for each context, as contexts x arms."""

    def table(self, rows: int) -> Table:
        """Return a table of so many rows."""

    def learn(self, context: Context, arm: str, value: float, weight: float = 1.0) -> float:
        """Learn that `arm` had `value` there; return what was predicted before.

        `weight`: for how much of an observation it counts, from above 0 to 1.
        ValueError, and no change, where the value or the context is not finite.
        """

    def save(self) -> bytes:
        """Return what was learned, with a checksum."""

    def load(self, state: bytes) -> None:
        """Take a saved state; ValueError, and no change, where it is damaged or of another kind."""


class Listed:
    """A table of a head that can do no better than to look at each context again."""

    # The mutable state is the contexts.

    def __init__(self, head: Regressor) -> None:
        self._head = head
        self._contexts: dict[int, Context] = {}

    def put(self, row: int, context: Context) -> None:
        """Have a context in a row; see the port."""
        self._contexts[row] = context

    def predict(self, rows: Rows, arms: Sequence[str]) -> Matrix:
        """Return a value per row and arm; see the port."""
        chosen = range(len(self._contexts))[rows] if isinstance(rows, slice) else rows
        return self._head.predict_many([self._contexts[row] for row in chosen], arms)
