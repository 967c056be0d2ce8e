"""The seat of a worker: which of several processes this is, and what they share.

A gateway with one process has a seat too: alone, and learning.
"""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LEARNER = 0
"""The worker that learns. It serves as the others do, so that its features see the same traffic."""


class SharedCounters:
    """Counts of requests, a row a worker, in memory that all of them see and that outlives each.

    Made before the workers are, who inherit it. Each writes its own row only.
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
        """Return what a worker, or the one that had its seat before it, has counted."""
        return self._cells[self._at(worker, route)]

    def tell(self, worker: int, route: str, count: int) -> int:
        """Write what a worker has counted in all; return the sum over the workers."""
        self._cells[self._at(worker, route)] = count
        return sum(self._cells[self._at(row, route)] for row in range(self._rows))

    def _at(self, worker: int, route: str) -> int:
        return worker * len(self._columns) + self._columns[route]


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """One worker's place among `count`.

    `folder` is where the workers meet: their sockets, what they last told, what was learned. It is
    the supervisor's, empty at its start. None for a gateway of one process.
    """

    index: int = LEARNER
    count: int = 1
    folder: Path | None = None
    board: SharedCounters | None = None

    @property
    def learns(self) -> bool:
        """Whether this worker learns for all."""
        return self.index == LEARNER

    @property
    def others(self) -> list[int]:
        """The seats of the other workers."""
        return [identity for identity in range(self.count) if identity != self.index]

    def total(self, route: str) -> Callable[[int], int]:
        """Return what turns this process's count of a route's requests into that of all workers.

        Of a route that came after the start there is no column: workers have the same share.
        """
        board = self.board
        if board is None:
            return lambda count: count
        if route not in board:
            return lambda count: count * self.count
        return _total(board, self.index, route, board.count(self.index, route))


def _total(board: SharedCounters, index: int, route: str, before: int) -> Callable[[int], int]:
    return lambda count: board.tell(index, route, before + count)
