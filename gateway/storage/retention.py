"""Retention: removes the journal's segments that are too old, or the oldest above a size.

Only whole segments are removed, and never one that something still needs:

- An open segment. Whoever writes to a segment holds a lock on it, in any worker.
- Rows that are in no snapshot. If the gateway died now, it would learn from them at the next start.
  A snapshot must therefore be newer than the segment's last row, and newer than the last label of a
  decision in it: the label's row is in a newer segment, and is learned with the decision's rows.
- Rows of calls in progress: a segment stays at least as long as a call may take.

Money needs no rows: the ledger and the recovery files have it.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tollway.gateway.storage.journal import modified_s, segments

RETAIN_S = 60.0  # between two runs
OPEN_S = 3600.0  # a person who reads or labels what just happened finds it
CLOCKS_S = 1.0  # the file system's clock may be a tick behind

Report = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment: its size, when its last row was written, and when a decision in it was labelled.

    Times are in Unix time, 0 if there is no label.
    """

    path: Path
    bytes: int
    written_s: float
    labelled_s: float


def excess(
    listed: list[Segment], now_s: float, keep_s: float | None, bytes_max: float | None
) -> list[Segment]:
    """Return the segments that are beyond the limits, given all of them, oldest first."""
    left = sum(segment.bytes for segment in listed)
    beyond = []
    for segment in listed:
        is_old = keep_s is not None and segment.written_s < now_s - keep_s
        if is_old or (bytes_max is not None and left > bytes_max):
            beyond.append(segment)
            left -= segment.bytes
    return beyond


class JournalRetention:
    """Removes the segments of a journal that are beyond its limits."""

    # The mutable state is the folder, and the number of segments removed.

    def __init__(
        self,
        folder: Path,
        *,
        keep_s: float | None,
        bytes_max: float | None,
        open_s: float,
        saved_s: Callable[[], float],
        report: Report,
        wall: Callable[[], float],
    ) -> None:
        """None is no limit. `open_s`: how long a call may take; `saved_s` returns the time up to
        which all that was learned is in snapshots, 0 if unknown.
        """
        self._folder = folder
        self._keep_s = keep_s
        self._bytes_max = bytes_max
        self._open_s = open_s
        self._saved_s = saved_s
        self._report = report
        self._wall = wall
        self.removed = 0

    @property
    def is_limited(self) -> bool:
        """Whether anything is ever removed."""
        return self._keep_s is not None or self._bytes_max is not None

    async def run(self) -> None:
        """Remove what is beyond the limits and not needed, in a thread, and report it."""
        before_s = min(self._saved_s() - CLOCKS_S, self._wall() - self._open_s)
        removed = await asyncio.to_thread(self._remove, before_s)
        if not removed:
            return
        self.removed += len(removed)
        size, newest_s = sum(one.bytes for one in removed), max(one.written_s for one in removed)
        age = (self._wall() - newest_s) / 86_400.0
        self._report(
            "journal_removed",
            "journal",
            f"removed {len(removed)} segments ({size / 1e9:.2f} GB); the newest row in them was "
            f"{age:.1f} days old",
            segments=[one.path.name for one in removed],
            bytes=size,
        )

    def _remove(self, before_s: float) -> list[Segment]:
        """Remove what is beyond the limits and was neither written nor labelled since a time."""
        listed = [segment for path in segments(self._folder) if (segment := _read(path))]
        beyond = excess(listed, self._wall(), self._keep_s, self._bytes_max)
        removed = [
            segment
            for segment in beyond
            if max(segment.written_s, segment.labelled_s) < before_s and _unlink(segment.path)
        ]
        for marks in self._folder.glob("journal-*.marks"):
            if not marks.with_suffix(".jsonl").exists():
                marks.unlink(missing_ok=True)
        return removed


def _read(path: Path) -> Segment | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return Segment(path, found.st_size, found.st_mtime, modified_s(path.with_suffix(".marks")))


def _unlink(path: Path) -> bool:
    """Remove a segment unless somebody writes to it; return whether it is gone. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
