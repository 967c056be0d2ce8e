"""Overwrites lines of a file in place, each with one that is as long, also while others append.

An id of a decision is an address, so no row of the journal may move. A process that is killed while
it overwrites must leave no torn line, so the new lines are written to a file beside (`.redo`) first
and synced. Whoever overwrites next applies what such a file still has. It has no old line, so
nothing that was to be erased is kept in it.

Two processes that overwrite the same line would undo each other's work: each holds the folder's
lock, `erasing.lock`. Appending needs no lock.
"""

import contextlib
import fcntl
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from tollway.gateway.security.private_files import FILE_MODE, make_folder, opener
from tollway.gateway.storage.journal import is_open
from tollway.gateway.storage.journal_format import Row, closed

LOCK = "erasing.lock"
BATCH_BYTES = 8 << 20  # of new lines that wait in memory and in a .redo file
_END = b"end:"

Change = Callable[[int, bytes], bytes | None]
"""Returns a line's replacement, as long as the line; None to keep it: (offset, line)."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, waiting for it, and finish what a killed process left undone.

    It may wait for as long as another erasure takes; call it in a thread. Raises OSError.
    """
    make_folder(folder)
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        for redo in folder.glob("*.redo"):
            _redo(redo, redo.with_suffix(".jsonl"))
        yield
    finally:
        os.close(fd)


def as_long(row: Row, size: int) -> bytes:
    """Return a row as a line of `size` bytes, filled up with spaces; ValueError if it is longer."""
    row = {name: value for name, value in row.items() if name not in ("v", "crc")}
    body = orjson.dumps(row)[:-1]
    spare = size - len(closed(body))
    if spare < 0:
        raise ValueError(f"a row of {size} bytes has no room for its erased form, {-spare} longer")
    return closed(body + b" " * spare)


def overwrite(path: Path, change: Change) -> None:
    """Overwrite the lines of a file that `change` replaces. The caller holds the folder's lock.

    A line that somebody is still writing is left alone. A closed file keeps its time, by which
    retention removes it. A file that is removed meanwhile is no error. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb", buffering=1 << 20) as file:
        waiting: list[tuple[int, bytes]] = []
        at = size = 0
        # Retention and the next start go by the time of the last row. Asked before the first line
        # is read: a segment that is closed meanwhile has newer rows than it had now.
        modified_ns = 0 if is_open(path) else os.fstat(file.fileno()).st_mtime_ns
        for line in file:
            place, at = at, at + len(line)
            if not line.endswith(b"\n") or (new := change(place, line)) is None:
                continue
            assert len(new) == len(line)
            waiting.append((place, new))
            size += len(new)
            if size >= BATCH_BYTES:
                _apply(path, waiting, modified_ns)
                waiting, size = [], 0
        if waiting:
            _apply(path, waiting, modified_ns)


def _apply(path: Path, lines: list[tuple[int, bytes]], modified_ns: int) -> None:
    data = b"%d\n" % modified_ns + b"".join(b"%d:%b" % one for one in lines)
    redo = path.with_suffix(".redo")
    with open(redo, "wb", opener=opener) as file:
        file.write(data + b"%b%08x\n" % (_END, zlib.crc32(data)))
        file.flush()
        os.fsync(file.fileno())
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    _redo(redo, path)


def _redo(redo: Path, path: Path) -> None:
    """Write the lines of a .redo file, if it is whole, and remove it."""
    data, _, checksum = redo.read_bytes().rpartition(_END)
    if checksum == b"%08x\n" % zlib.crc32(data):  # if not, nothing was overwritten yet
        with contextlib.suppress(FileNotFoundError):
            _write(path, data.splitlines(keepends=True))
    redo.unlink()


def _write(path: Path, lines: list[bytes]) -> None:
    modified_ns = int(lines[0])
    with path.open("rb+", buffering=0) as file:
        for entry in lines[1:]:
            place, _, line = entry.partition(b":")
            written = os.pwrite(file.fileno(), line, int(place))
            if written < len(line):
                raise OSError(f"{path} could be written in part only; run it again")
        os.fsync(file.fileno())
    if modified_ns:
        os.utime(path, ns=(modified_ns, modified_ns))
