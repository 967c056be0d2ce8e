"""Says how far a grid is: a bar where somebody watches, a line a cell where a log is kept."""

import sys
import time
from types import TracebackType
from typing import Self

WIDTH = 30


class Progress:
    """On stderr, so that what is printed on stdout is the result alone."""

    # The mutable state is when it began, and how long the last line is.

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._began_s = time.monotonic()
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._watched and self._shown:
            sys.stderr.write("\n")

    def __call__(self, count: int, of: int, name: str) -> None:
        """Say that a cell is done."""
        passed_s = time.monotonic() - self._began_s
        if not self._watched:
            sys.stderr.write(f"{count}/{of} {name} ({passed_s:.0f} s)\n")
            return
        full = WIDTH * count // of
        line = f"[{'#' * full}{'.' * (WIDTH - full)}] {count}/{of} {passed_s:.0f} s  {name[:40]}"
        sys.stderr.write(f"\r{line.ljust(self._shown)}")
        sys.stderr.flush()
        self._shown = len(line)
