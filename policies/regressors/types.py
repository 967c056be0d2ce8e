"""The port of a regressor: predicts one number per arm from a context."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tollway.policies.types import Context

Matrix = NDArray[np.float64]
Rows = slice | list[int]


class Table(Protocol):
    """Contexts that a regressor predicts repeatedly, by row; all with the same current reply."""

    def put(self, row: int, context: Context) -> None:
        """Store a context in a row, in place of the one before."""

    def predict(self, rows: Rows, arms: Sequence[str]) -> Matrix:
        """Return the current predictions for some rows, as rows x arms."""


class Regressor(Protocol):
    """Regresses a value on a context, for each of a changing set of arms.

    Arms are identified by name and need not be registered. The prediction for an arm never learned
    from is 0, or what it shares with the others. In a cascade the context names the arm that gave
    the current reply, and an arm's prediction may depend on it.
    """

    cheap_many: int
    """How many contexts of a table it predicts in about a millisecond."""

    def predict(self, context: Context, arms: Sequence[str]) -> list[float]:
        """Return a finite value per arm, in order; ValueError if the context is not finite."""

    def predict_many(self, contexts: Sequence[Context], arms: Sequence[str]) -> Matrix:
        """Return what `predict` would for each context, as contexts x arms."""

    def table(self, rows: int) -> Table:
        """Return a table with the given number of rows."""

    def learn(self, context: Context, arm: str, value: float, weight: float = 1.0) -> float:
        """Learn that `arm` had `value` there; return the earlier prediction.

        `weight`: the part of an observation it counts for, from above 0 to 1. ValueError, and no
        change, if the value or the context is not finite.
        """

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""

    def load(self, state: bytes) -> None:
        """Load a saved state; ValueError, and no change, if it is damaged or of another kind."""


class Listed:
    """A table for a regressor that can only predict each context again."""

    # The mutable state is the contexts.

    def __init__(self, head: Regressor) -> None:
        self._head = head
        self._contexts: dict[int, Context] = {}

    def put(self, row: int, context: Context) -> None:
        """Store a context in a row; see the port."""
        self._contexts[row] = context

    def predict(self, rows: Rows, arms: Sequence[str]) -> Matrix:
        """Return a value per row and arm; see the port."""
        chosen = range(len(self._contexts))[rows] if isinstance(rows, slice) else rows
        return self._head.predict_many([self._contexts[row] for row in chosen], arms)
