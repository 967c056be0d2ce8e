"""The identity of a worker: which of several processes this is, and what they share.

A gateway with a single process has an identity too: it is alone, and it learns.
"""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LEARNER = 0
"""The worker that learns. It also serves requests, so that its features see the same traffic."""


class SharedCounters:
    """Request counts, one row per worker, in memory that all workers see and that outlives each.

    It is created before the workers, which inherit it. Each worker writes only its own row.
    """

    # The mutable state is the mapped memory; a cell is stored by one eight-byte move.

    def __init__(self, workers: int, routes: Sequence[str]) -> None:
        self._rows = workers
        self._columns = {route: at for at, route in enumerate(routes)}
        size = workers * len(routes) * 8
        self._cells = memoryview(mmap.mmap(-1, size)).cast("q")

    def __contains__(self, route: str) -> bool:
        return route in self._columns

    def count(self, worker: int, route: str) -> int:
        """Return the count of a worker, including its predecessors."""
        return self._cells[self._at(worker, route)]

    def add(self, worker: int, route: str, count: int) -> int:
        """Store a worker's total count; return the sum over the workers."""
        self._cells[self._at(worker, route)] = count
        return sum(self._cells[self._at(row, route)] for row in range(self._rows))

    def _at(self, worker: int, route: str) -> int:
        return worker * len(self._columns) + self._columns[route]


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """One worker's index among `count` workers.

    `folder` is shared by the workers: their sockets, last reports and learned policies. It belongs
    to the supervisor and is empty at its start. None for a gateway with a single process.
    """

    index: int = LEARNER
    count: int = 1
    folder: Path | None = None
    board: SharedCounters | None = None

    @property
    def learns(self) -> bool:
        """Whether this worker learns for all workers."""
        return self.index == LEARNER

    @property
    def others(self) -> list[int]:
        """The indices of the other workers."""
        return [identity for identity in range(self.count) if identity != self.index]

    def total(self, route: str) -> Callable[[int], int]:
        """Return the function that scales a route's request count here to all workers.

        A route added after the start has no column; the workers are assumed to have equal shares.
        """
        board = self.board
        if board is None:
            return lambda count: count
        if route not in board:
            return lambda count: count * self.count
        return _total(board, self.index, route, board.count(self.index, route))


def _total(board: SharedCounters, index: int, route: str, before: int) -> Callable[[int], int]:
    return lambda count: board.add(index, route, before + count)
