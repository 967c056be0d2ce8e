"""The last few hundred contexts as the policy saw them: each arm's expected quality and cost.

The multipliers are solved over these contexts. Arms come and go: where an arm was not offered its
quality is -inf, so that it is never chosen. Costs follow a price change at once, and a change of
what an arm is quoted at when the latest contexts show it.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tollway.policies.regressors.types import Rows, Table
from tollway.policies.types import Context

Matrix = NDArray[np.float64]
Noted = tuple[Context, Sequence[str], Sequence[float], Sequence[float]]
NOTED_MAX = 200  # contexts noted before they are written: solving writes them far earlier
LATEST = 10  # contexts whose quotes are compared with earlier ones
EARLIER = 40  # of these, a sample of at least so many: of all it would take three times as long
SHIFT = 0.7  # logarithm of the ratio of their means from which quotes have changed: twofold
SURE = 5.0  # and standard errors: requests of different lengths are quoted differently
Refresh = Callable[[Table, Rows, Sequence[str]], Matrix]
"""Returns the current predictions for some rows of a table, as rows x arms."""


class RecentContexts:
    """A ring of rows (contexts) over columns (arms).

    Contexts are added for each request and read when multipliers are solved, every few dozen
    requests. So they are only noted at first, and written in bulk before anything is read.
    """

    # The mutable state is the ring, the columns' names, how many rows were ever added, and the
    # contexts noted but not written yet.

    def __init__(self, rows: int, table: Table) -> None:
        self._rows = rows
        self._table = table
        self._columns: dict[str, int] = {}
        self._quality: Matrix = np.empty((rows, 0))
        self._cost: Matrix = np.empty((rows, 0))
        self._added = 0
        self._contexts: list[Context] = []
        self._arms: tuple[str, ...] = ()
        self._noted: list[Noted] = []

    def __len__(self) -> int:
        return min(self._added + len(self._noted), self._rows)

    @property
    def contexts(self) -> list[Context]:
        """The contexts, in no order of time."""
        self._write()
        return self._contexts

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that was ever offered, in the order of the columns."""
        self._write()
        return self._arms

    def add(
        self,
        context: Context,
        arms: Sequence[str],
        qualities: Sequence[float],
        costs_usd: Sequence[float],
    ) -> bool:
        """Add a context; return whether it offered an arm for the first time (0.3 us)."""
        noted = self._noted
        noted.append((context, arms, qualities, costs_usd))
        if arms == self._arms:  # nearly always
            if len(noted) >= NOTED_MAX:
                self._write()
            return False
        known = len(self._columns)
        self._write()
        return len(self._columns) > known

    def _write(self) -> None:
        """Write what was noted into the ring."""
        noted = self._noted
        if not noted:
            return
        self._noted = []
        for context, arms, qualities, costs_usd in noted:
            row = self._added % self._rows
            if arms == self._arms:
                self._quality[row] = qualities
                self._cost[row] = costs_usd
            else:
                self._add_some(row, arms, qualities, costs_usd)
            self._table.put(row, context)
            if self._added < self._rows:
                self._contexts.append(context)
            else:
                self._contexts[row] = context
            self._added += 1

    def _add_some(
        self, row: int, arms: Sequence[str], qualities: Sequence[float], costs_usd: Sequence[float]
    ) -> None:
        """Write a row whose arms are not all columns in their order."""
        if not self._columns.keys() >= set(arms):
            self._widen(arms)
        at = [self._columns[arm] for arm in arms]
        self._quality[row] = -np.inf
        self._quality[row, at] = qualities
        self._cost[row, at] = costs_usd

    def _widen(self, arms: Sequence[str]) -> None:
        missing = [arm for arm in arms if arm not in self._columns]
        for arm in missing:
            self._columns[arm] = len(self._columns)
        more = (self._rows, len(missing))
        self._quality = np.hstack([self._quality, np.full(more, -np.inf)])
        self._cost = np.hstack([self._cost, np.zeros(more)])
        self._arms = tuple(self._columns)

    def reprice(self, arm: str, ratio: float) -> None:
        """Scale an arm's costs by `ratio` after a price change."""
        self._write()
        if arm in self._columns:
            self._cost[:, self._columns[arm]] *= ratio

    def requote(self) -> bool:
        """Scale earlier costs of arms that are quoted very differently by now; return if any are.

        Usage or an unannounced price has changed, and the earlier quotes have not: a solution over
        them would be wrong until they have left the ring.
        """
        self._write()
        step = (len(self) - LATEST) // EARLIER
        if step == 0:
            return False
        ages = np.concatenate([np.arange(LATEST), np.arange(LATEST, len(self), step)])
        rows = (self._added - 1 - ages) % self._rows
        costs = self._cost[rows]
        offered = (self._quality[rows] > -np.inf) & (costs > 0.0)
        logs = np.log(np.where(offered, costs, 1.0))
        now, _, lately = _moments(logs[:LATEST], offered[:LATEST])
        then, deviation, before = _moments(logs[LATEST:], offered[LATEST:])
        sure = SURE * math.sqrt(1.0 / LATEST + 1.0 / EARLIER)
        changed = np.abs(now - then) > np.maximum(SHIFT, sure * deviation)
        changed &= (lately == LATEST) & (before >= EARLIER)
        if not changed.any():
            return False
        ratios = np.where(changed, np.exp(now - then), 1.0)
        self._cost[(self._added - 1 - np.arange(LATEST, len(self))) % self._rows] *= ratios
        return True

    def column(self, arm: str) -> tuple[Matrix, Matrix]:
        """Return (qualities, costs) of an arm in the contexts where it was offered."""
        self._write()
        at = self._columns[arm]
        qualities = self._quality[: len(self), at]
        offered = np.isfinite(qualities)
        return qualities[offered], self._cost[: len(self), at][offered]

    def revalue(self, rethink: Refresh, newest: int) -> None:
        """Replace the qualities of the arms in the `newest` rows by current predictions."""
        self._write()
        rows: Rows = slice(len(self))
        if newest < len(self):
            rows = [at % self._rows for at in range(self._added - newest, self._added)]
        before = self._quality[rows]
        qualities = rethink(self._table, rows, self._arms)
        self._quality[rows] = np.where(np.isfinite(before), qualities, before)

    def tables(self) -> tuple[Matrix, Matrix]:
        """Return (qualities, costs), each contexts x arms, in no order of time."""
        self._write()
        return self._quality[: len(self)], self._cost[: len(self)]


def _moments(values: Matrix, counted: NDArray[np.bool_]) -> tuple[Matrix, Matrix, Matrix]:
    """Return the mean, the deviation and the number of each column's values that are counted."""
    count = counted.sum(axis=0).astype(float)
    shares = counted / np.maximum(count, 1.0)
    mean = (values * shares).sum(axis=0)
    return mean, np.sqrt((np.square(values - mean) * shares).sum(axis=0)), count
