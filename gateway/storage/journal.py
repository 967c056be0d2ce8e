"""The journal: the append-only record of decisions, attempts and feedback.

Theory of operation. Rows are JSON objects, one per line, in segment files `journal-<tag>.jsonl`.
Each row ends with a CRC-32 of the bytes before it. pandas, polars and duckdb read the files
directly. A row is appended to a buffer in memory, and the buffer is passed to write() once per
iteration of the event loop, so the request path only pays for formatting. Data passed to write()
survives SIGKILL. A periodic fsync bounds what a power loss can destroy.

An id is an address. The rows of one request are appended together when the head of its reply is
sent. The decision id is `<tag>.<offset>.<nonce>` (base 36): the segment, the byte at which the
first row starts, and a nonce that prevents guessing. A decision can therefore be read with one
pread, hours later and after a restart, without an index or memory that grows.

If the disk rejects a write, rows wait in memory up to a limit. Beyond it they are dropped and
counted, and serving continues.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tollway.gateway.security.private_files import FILE_MODE, make_folder
from tollway.gateway.storage.journal_format import ROW_BYTES_MAX, Row, base36, seal, unseal

log = logging.getLogger(__name__)

_ID = re.compile(r"([0-9a-z]{1,24})\.([0-9a-z]{1,12})\.([0-9a-z]{4})")
FOLLOWED_BYTES = 256 << 20  # takes half a second to read, in a thread
RETRIED_BYTES = 1 << 20  # bytes to append before retrying to open a new segment
MARK_BYTES = 128  # every decision row is longer
_NONCE_CHARS = 4
_NONCES_BYTES = 512  # 256 nonces, none left over; few, because the string is copied for each one


def segments(folder: Path) -> list[Path]:
    """Return a folder's segments, oldest first."""
    dated = [(modified_s(path), path) for path in folder.glob("journal-*.jsonl")]
    return [path for _, path in sorted(dated)]


def modified_s(path: Path) -> float:
    """Return when a segment was last written; 0 if retention has removed it meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def is_empty(path: Path) -> bool:
    """Return whether a segment has no row, or retention has removed it meanwhile."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


def is_open(segment: Path) -> bool:
    """Return whether a gateway writes to a segment. Raises OSError."""
    fd = os.open(segment, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class Journal:
    """Appends rows and reads back those of a decision."""

    # The mutable state is the open segment, the bytes that wait to be written to it, and its size.

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes_max: int = 256 << 20,
        waiting_bytes_max: int = 32 << 20,
    ) -> None:
        """Open a new segment in `folder`, created if missing. Every append writes immediately."""
        make_folder(folder)
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
        unnamed = path.with_suffix(".opening")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(unnamed, flags, FILE_MODE)
        try:
            with contextlib.suppress(OSError):  # without locks, retention removes nothing
                # As long as it is open; a reader looks for a moment. The segment has its name once
                # it is locked: at no time does it look closed.
                fcntl.flock(fd, fcntl.LOCK_EX)
            unnamed.rename(path)
        except BaseException:
            os.close(fd)
            unnamed.unlink(missing_ok=True)
            raise
        self._fd = fd
        self._tag, self._size = tag, 0
        self._rotates_at = self._segment_bytes_max

    def write_in_turns(self) -> None:
        """From now on, write once per iteration of the running event loop."""
        self._soon = asyncio.get_running_loop().call_soon

    def new_id(self) -> str:
        """Return the id of a request whose rows must be the next to be appended."""
        if not self._nonces:
            # One read from the system's generator costs 6 us, regardless of its size.
            self._nonces = secrets.token_hex(_NONCES_BYTES)
        nonce, self._nonces = self._nonces[:_NONCE_CHARS], self._nonces[_NONCE_CHARS:]
        return f"{self._tag}.{base36(self._size)}.{nonce}"

    def record(self, decision: str, made: Callable[[], list[Row]]) -> None:
        """Build a decision's rows and append them. This journal builds them immediately."""
        self.append(*made())

    def append(self, *appended: Row) -> None:
        """Append rows as one unit."""
        self.append_lines(b"".join(map(seal, appended)), len(appended))

    def append_lines(self, data: bytes, count: int) -> None:
        """Append the lines of `count` rows as one unit."""
        size = len(data)
        if self._waiting_bytes + size > self._waiting_bytes_max:
            self.rows_dropped += count
            return
        self._waiting.append(data)
        self._waiting_bytes += size
        self._size += size
        self.rows_written += count
        if self._soon is None:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            self._soon(self.flush)

    def put(self, row: Row) -> bool:
        """Append a row and write it immediately. Return False if the disk rejects it.

        A rejected row is not appended, so the client may send it again.
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
        if rest := line[written:]:  # the disk is full: the rest of the row waits for space
            self._waiting, self._waiting_bytes = [rest], len(rest)
        return True

    @property
    def waiting_bytes(self) -> int:
        """Bytes appended and not yet accepted by the operating system."""
        return self._waiting_bytes

    def flush(self) -> None:
        """Write the waiting bytes. Bytes that the disk rejects wait for the next flush."""
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
        """Switch to a new segment. If none can be created, continue in the current one."""
        full = self._fd
        try:
            os.fsync(full)
            self._open()
        except OSError as exc:
            log.warning("cannot open a new journal segment: %s", exc)
            self._rotates_at = self._size + RETRIED_BYTES
            return
        os.close(full)
        self._synced_bytes = 0

    def sync(self) -> None:
        """Flush written data to disk with fsync. This blocks, so call it in a thread."""
        if self._size != self._synced_bytes:
            self._synced_bytes = self._size
            fd = os.dup(self._fd)  # the loop may rotate the segment meanwhile
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Write and sync everything and close the segment. Log what the disk rejects."""
        self.flush()
        if self._waiting:
            log.error(
                "%d bytes of the journal were lost: the disk refused them", self._waiting_bytes
            )
        try:
            os.fsync(self._fd)
        except OSError as exc:
            log.error("the journal may be incomplete: %s", exc)
        os.close(self._fd)

    def find(self, decision: str) -> list[Row]:
        """Return the rows of a decision; empty if there is none with that id.

        Only the reply's own rows, which are contiguous, are returned. `follow` finds later rows
        (audits, feedback) by reading on.
        """
        self.flush()
        return self.read(decision)

    def read(self, decision: str) -> list[Row]:
        """Return what `find` does, of the rows that were flushed; it may run in a thread."""
        match = _ID.fullmatch(decision)
        if match is None:
            return []
        path = self._folder / f"journal-{match[1]}.jsonl"
        try:
            with path.open("rb") as file:
                file.seek(int(match[2], 36))
                return list(_group(file, decision))
        except (OSError, OverflowError):
            return []

    def lacks_segment(self, decision: str) -> bool:
        """Return whether a well-formed id is of a segment that is removed, or never was."""
        match = _ID.fullmatch(decision)
        return match is not None and not (self._folder / f"journal-{match[1]}.jsonl").exists()

    def follow(self, group: list[Row]) -> list[Row]:
        """Return a decision's rows that were written after those found: audits, feedback.

        Reads the rest of its segment and the segments written since, FOLLOWED_BYTES at most. Call
        it in a thread, never on the event loop.
        """
        decision, since_s = group[0]["id"], group[0]["time"]
        tag, offset, _ = decision.split(".")
        own = self._folder / f"journal-{tag}.jsonl"
        others = [p for p in segments(self._folder) if p != own and modified_s(p) >= since_s]
        rows: list[Row] = []
        left = FOLLOWED_BYTES
        for path in [own, *others]:
            left -= _follow(path, int(offset, 36) if path == own else 0, decision, left, rows)
        return rows[len(group) :]

    def marked(self, decision: str) -> bool:
        """Return whether a decision was marked as having had feedback. Raises OSError."""
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
        """Mark a decision as having had feedback. Return False if it was already marked.

        The marks of a segment are in a sparse file beside it, one byte per 128 bytes of the
        segment. No two decisions share a byte, because a decision's rows are longer than that.
        """
        match = _ID.fullmatch(decision)
        if match is None:
            return False
        path = self._folder / f"journal-{match[1]}.marks"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
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
    """Add a decision's rows in a segment from `start` on; return the number of bytes read."""
    quoted_id, count = b'"%b"' % decision.encode(), 0
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # removed meanwhile
        file.seek(start)
        while count < most and (line := file.readline()):
            count += len(line)
            if (
                quoted_id in line
                and (row := unseal(line)) is not None
                and row.get("id") == decision
            ):
                rows.append(row)
    return count
