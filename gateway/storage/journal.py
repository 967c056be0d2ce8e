"""The journal: the append-only record of decisions, attempts and feedback.

Theory of operation. Rows are JSON objects, one a line, each ending with a CRC-32 of the bytes
before it, in segment files `journal-<tag>.jsonl`; pandas, polars and duckdb read them as they are.
A row is appended to a buffer in memory and the buffer is handed to write() once per turn of the
event loop, so the request path pays for formatting only. What was handed to write() survives
SIGKILL; an fsync on a timer bounds what a power cut can take.

An id is an address. The rows of one request are appended together when its reply's head goes out,
and its decision id is `<tag>.<offset>.<nonce>` (base 36): the segment, the byte at which its first
row starts, and a nonce against guessing. So a decision is found again with one pread, hours later
and after a restart, with no index and no memory that grows.

Where the disk refuses a write, rows wait in memory up to a limit and are then dropped and counted:
serving goes on.
"""

import asyncio
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tollway.gateway.storage.journal_format import ROW_BYTES_MAX, Row, base36, seal, unseal

log = logging.getLogger("tollway.journal")

_ID = re.compile(r"([0-9a-z]{1,24})\.([0-9a-z]{1,12})\.([0-9a-z]{4})")
FOLLOWED_BYTES = 256 << 20  # half a second of reading, in a thread
RETRIED_BYTES = 1 << 20  # how much later a new segment is tried for again
MARK_BYTES = 128  # every decision row is longer
_NONCE_CHARS = 4
_NONCES_BYTES = 512  # 256 nonces; the string is cut anew for each, so not too many


def segments(folder: Path) -> list[Path]:
    """Return a folder's segments, oldest first."""
    return sorted(folder.glob("journal-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)


class Journal:
    """Appends rows, and finds those of a decision again."""

    # The mutable state of a journal is its open segment, the bytes waiting to be written to it, and
    # the count of bytes that it has taken.

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes_max: int = 256 << 20,
        waiting_bytes_max: int = 32 << 20,
    ) -> None:
        """Open a new segment in `folder` (made if missing); every append writes at once."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes_max = segment_bytes_max
        self._waiting_bytes_max = waiting_bytes_max
        self._soon: Callable[[Callable[[], None]], object] | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._scheduled = False
        self._synced_bytes = 0
        self._nonces = ""
        self.rows_written = 0
        self.rows_dropped = 0
        self._open()

    def _open(self) -> None:
        tag = base36(time.time_ns() // 1000) + secrets.token_hex(1)
        path = self._folder / f"journal-{tag}.jsonl"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o640)
        self._tag, self._size = tag, 0
        self._rotates_at = self._segment_bytes_max

    def write_in_turns(self) -> None:
        """From now on write once per turn of the running event loop."""
        self._soon = asyncio.get_running_loop().call_soon

    def new_id(self) -> str:
        """Return the id of the request whose rows are appended next, before any other's."""
        if len(self._nonces) < _NONCE_CHARS:
            # One draw from the system's generator costs 6 us, whatever its size.
            self._nonces = secrets.token_hex(_NONCES_BYTES)
        nonce, self._nonces = self._nonces[:_NONCE_CHARS], self._nonces[_NONCE_CHARS:]
        return f"{self._tag}.{base36(self._size)}.{nonce}"

    def record(self, decision: str, made: Callable[[], list[Row]]) -> None:
        """Append the rows of a decision, as they are made; a journal that writes asks at once."""
        self.append(*made())

    def append(self, *appended: Row) -> None:
        """Append rows, together."""
        data = b"".join(map(seal, appended))
        if self._waiting_bytes + len(data) > self._waiting_bytes_max:
            self.rows_dropped += len(appended)
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._size += len(data)
        self.rows_written += len(appended)
        if self._soon is None:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            self._soon(self.flush)

    def put(self, row: Row) -> bool:
        """Append a row and hand it to the operating system now; False where the disk refuses it.

        A row that is refused is not appended: whoever sent it may send it again.
        """
        self.flush()
        if self._waiting:
            return False
        line = seal(row)
        try:
            written = os.write(self._fd, line)
        except OSError:
            return False
        self._size += len(line)
        self.rows_written += 1
        if rest := line[written:]:  # the disk is full now: the row's end waits for room
            self._waiting, self._waiting_bytes = [rest], len(rest)
        return True

    @property
    def waiting_bytes(self) -> int:
        """Bytes appended and not yet taken by the operating system."""
        return self._waiting_bytes

    def flush(self) -> None:
        """Hand what waits to write(); what the disk refuses waits for the next flush."""
        self._scheduled = False
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        try:
            written = os.write(self._fd, data)
        except OSError:
            written = 0
        rest = data[written:]
        self._waiting = [rest] if rest else []
        self._waiting_bytes = len(rest)
        if not rest and self._size > self._rotates_at:
            self._rotate()

    def _rotate(self) -> None:
        """Go on in a new segment; where the disk has none to give, in this one."""
        full = self._fd
        try:
            os.fsync(full)
            self._open()
        except OSError as exc:
            log.warning("no new segment of the journal can be had: %s", exc)
            self._rotates_at = self._size + RETRIED_BYTES
            return
        os.close(full)
        self._synced_bytes = 0

    def sync(self) -> None:
        """Have the operating system put what was written on the disk; blocks, so call it aside."""
        if self._size != self._synced_bytes:
            self._synced_bytes = self._size
            fd = os.dup(self._fd)  # the loop may rotate the segment meanwhile
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Write and sync everything, and close the segment; what the disk refuses is told of."""
        self.flush()
        if self._waiting:
            log.error(
                "the disk refused %d bytes of the journal: they are lost", self._waiting_bytes
            )
        try:
            os.fsync(self._fd)
        except OSError as exc:
            log.error("the journal may not be whole: %s", exc)
        os.close(self._fd)

    def find(self, decision: str) -> list[Row]:
        """Return the rows of a decision; empty where there is none of that id.

        The reply's rows stand together; those that came later (audits, feedback) are found by
        reading on, see `follow`.
        """
        match = _ID.fullmatch(decision)
        if match is None:
            return []
        self.flush()
        path = self._folder / f"journal-{match[1]}.jsonl"
        try:
            with path.open("rb") as file:
                file.seek(int(match[2], 36))
                return list(_group(file, decision))
        except (OSError, OverflowError):
            return []

    def follow(self, found: list[Row]) -> list[Row]:
        """Return the rows of a decision that came after those found: audits, feedback.

        Reads on in its segment and in those written to since, FOLLOWED_BYTES at most; so in a
        thread, never inline.
        """
        decision, since_s = found[0]["id"], found[0]["time"]
        tag, offset, _ = decision.split(".")
        own = self._folder / f"journal-{tag}.jsonl"
        others = [p for p in segments(self._folder) if p != own and p.stat().st_mtime >= since_s]
        rows: list[Row] = []
        left = FOLLOWED_BYTES
        for path in [own, *others]:
            left -= _follow(path, int(offset, 36) if path == own else 0, decision, left, rows)
        return rows[len(found) :]

    def marked(self, decision: str) -> bool:
        """Whether a decision was marked as one that had its feedback; OSError as `mark`."""
        match = _ID.fullmatch(decision)
        if match is None:
            return False
        try:
            with (self._folder / f"journal-{match[1]}.marks").open("rb") as file:
                file.seek(int(match[2], 36) // MARK_BYTES)
                return file.read(1) == b"\x01"
        except FileNotFoundError:
            return False

    def mark(self, decision: str) -> bool:
        """Mark a decision as one that had its feedback; False where it was marked before.

        The marks of a segment are a sparse file beside it, a byte per 128 bytes of the segment: no
        two decisions share one, since a decision's rows are longer than that.
        """
        match = _ID.fullmatch(decision)
        if match is None:
            return False
        path = self._folder / f"journal-{match[1]}.marks"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            at = int(match[2], 36) // MARK_BYTES
            if os.pread(fd, 1, at) == b"\x01":
                return False
            os.pwrite(fd, b"\x01", at)
        finally:
            os.close(fd)
        return True


def _group(lines: Any, decision: str) -> Iterator[Row]:
    while line := lines.readline(ROW_BYTES_MAX):
        row = unseal(line)
        if row is None or row.get("id") != decision:
            return
        yield row


def _follow(path: Path, start: int, decision: str, most: int, rows: list[Row]) -> int:
    """Add a decision's rows in a segment from `start` on; return how many bytes were read."""
    told, count = b'"%b"' % decision.encode(), 0
    with path.open("rb") as file:
        file.seek(start)
        while count < most and (line := file.readline()):
            count += len(line)
            if told in line and (row := unseal(line)) is not None and row.get("id") == decision:
                rows.append(row)
    return count
