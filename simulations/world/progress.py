"""Shows a grid's progress: a bar on a terminal, one line per cell in a log."""

import sys
import time
from types import TracebackType
from typing import Self

WIDTH = 30


class Progress:
    """Writes to stderr, so that stdout holds only the result."""

    # The mutable state is the start time and the length of the last line.

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
        """Report that a cell is done."""
        passed_s = time.monotonic() - self._began_s
        if not self._watched:
            sys.stderr.write(f"{count}/{of} {name} ({passed_s:.0f} s)\n")
            return
        full = WIDTH * count // of
        line = f"[{'#' * full}{'.' * (WIDTH - full)}] {count}/{of} {passed_s:.0f} s  {name[:40]}"
        sys.stderr.write(f"\r{line.ljust(self._shown)}")
        sys.stderr.flush()
        self._shown = len(line)
