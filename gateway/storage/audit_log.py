"""The audit log: what operators did to a gateway, who, when, and the values before and after.

One JSON object per line, only ever appended. Each ends with a checksum (SHA-256) of itself and of
the checksum before it, so a line that is changed, removed or inserted breaks the chain, and
`broken` says where. What a chain cannot show: lines missing at its end, and a file that somebody
rewrote with new checksums. The gateway's log has the number and the checksum of each act that came
over the network or by signal, so a log that is kept elsewhere proves both.

An act that changes money has two lines: `begun`, written before it, and its outcome, which names
the first by number. A line is on the disk (fsync) when `write` returns. All workers, and gateways
that share a state directory, append to one file under a lock.
"""

import fcntl
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from tollway.gateway.security.private_files import FILE_MODE, make_folder

NAME = "audit.jsonl"
"""The file's name in the state directory."""
BEGUN, DONE, REFUSED, UNKNOWN = "begun", "done", "refused", "unknown"
"""Outcomes. `begun` without a second line: the gateway ended, or could not write, meanwhile."""
TEXT_CHARS_MAX = 2000  # a `why` has at most 1,000, the problems of a configuration any number
VALUE_CHARS_MAX = 200
VALUES_MAX = 40  # settings of one reload whose values are written down
LOCK_WAIT_S = 5.0  # an append holds the lock for one fsync
POLL_S = 0.01
_TAIL_BYTES = 256 << 10  # the longest line that these limits allow, at four bytes a character
_SUM = re.compile(rb',"sum":"([0-9a-f]{64})"\}\Z')

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: the name given, by which right (`admin key`, `signal`), and from which address."""

    who: str
    by: str = ""
    client: str = ""

    def named(self, who: str) -> "Actor":
        """Return this actor under the name that was given."""
        return replace(self, who=who)


SIGNAL = Actor("signal", "signal")
MACHINE = Actor("this machine", "command line")


@dataclass(frozen=True, slots=True)
class Entry:
    """One whole line: its fields, its checksum, and the bytes that this is the checksum of."""

    fields: dict[str, Any]
    checksum: str
    body: bytes


class AuditLog:
    """Appends to an audit log, and returns its newest acts; without a path it does neither."""

    # The mutable state is the file's, shared by all processes that append to it.

    def __init__(self, path: Path | None, *, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall = wall

    def write(
        self,
        act: str,
        actor: Actor,
        outcome: str,
        *,
        about: str = "",
        why: str = "",
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        begun: int | None = None,
    ) -> int:
        """Append a line and return its number; `begun` is the number of the line it completes.

        It takes one fsync. Raises OSError if the line is not safely on the disk; the file is then
        as it was before.
        """
        if self._path is None:
            return 0
        fields = {
            "time": self._wall(),
            "act": act,
            "outcome": outcome,
            "about": about[:VALUE_CHARS_MAX],
            "who": actor.who[:VALUE_CHARS_MAX],
            "by": actor.by,
            "client": actor.client[:VALUE_CHARS_MAX],
            "why": why[:TEXT_CHARS_MAX],
            "before": _bounded(before or {}),
            "after": _bounded(after or {}),
        }
        if begun is not None:
            fields["begun"] = begun
        return _append(self._path, fields)

    @contextmanager
    def recorded(self, act: str, actor: Actor, *, about: str, why: str = "") -> Iterator[None]:
        """Write an act before it is done and its outcome after; OSError, undone, if it cannot."""
        begun = self.write(act, actor, BEGUN, about=about, why=why)
        try:
            yield
        except BaseException as exc:
            failed = f"{why}; {exc}" if why else str(exc)
            self.write(act, actor, UNKNOWN, about=about, why=failed, begun=begun)
            raise
        self.write(act, actor, DONE, about=about, why=why, begun=begun)

    def newest(self, most: int) -> list[dict[str, Any]]:
        """Return the newest acts, newest first, each with its outcome; OSError if unreadable."""
        if self._path is None or not self._path.exists():
            return []
        return acts(_from_end(self._path, 2 * most))[:most]


def acts(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the acts that lines describe, newest first: an outcome replaces what was begun."""
    known: dict[int, dict[str, Any]] = {}
    for line in lines:
        entry = parsed(line)
        if entry is not None:
            known[entry.fields.get("begun", entry.fields["n"])] = entry.fields
    return sorted(known.values(), key=lambda fields: -fields["n"])


def parsed(line: bytes) -> Entry | None:
    """Return a line's entry, its checksum not yet verified; None if it is not a whole entry."""
    found = _SUM.search(line)
    if found is None:
        return None
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("n"), int):
        return None
    return Entry(fields, found[1].decode(), line[: found.start()])


def broken(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield each place at which the chain breaks, in words; nothing if it is whole."""
    last, number = "", 0
    for at, line in enumerate(lines, start=1):
        entry = parsed(line)
        if entry is None:
            yield f"line {at} is not a whole entry: it was changed, or a crash cut it short"
            continue
        n = entry.fields["n"]
        if n != number + 1:
            yield f"line {at} is entry {n}, but entry {number + 1} should be there"
        elif _checksum(last, entry.body) != entry.checksum:
            yield f"line {at} (entry {n}) was changed, or the line before it was"
        last, number = entry.checksum, n


def _checksum(last: str, body: bytes) -> str:
    return hashlib.sha256(last.encode() + body).hexdigest()


def _bounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first values, long texts cut short, with the number of those left out."""
    shown = {
        key[:VALUE_CHARS_MAX]: value if isinstance(value, int | float) else _cut(value)
        for key, value in list(values.items())[:VALUES_MAX]
    }
    if len(values) > VALUES_MAX:
        shown["..."] = f"{len(values) - VALUES_MAX} more"
    return shown


def _cut(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text[:VALUE_CHARS_MAX]


def _append(path: Path, fields: dict[str, Any]) -> int:
    make_folder(path.parent)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
    try:
        _lock(fd, path)
        size = os.fstat(fd).st_size
        last, number, is_cut = _end(fd, size)
        body = orjson.dumps({"n": number + 1, **fields})[:-1]
        checksum = _checksum(last, body)
        line = b'%b%b,"sum":"%b"}\n' % (b"\n" if is_cut else b"", body, checksum.encode())
        try:
            if os.write(fd, line) < len(line):
                raise OSError(f"{path} could be written in part only")
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, size)  # only what was added here
            raise
        if not size:
            _sync_folder(path.parent)
    finally:
        os.close(fd)
    # A warning, like all events: the default level keeps what proves the file. A command on this
    # machine is none: every start would begin with warnings.
    level = logging.INFO if fields["by"] == MACHINE.by else logging.WARNING
    log.log(level, "audit log entry %d %s: %s", number + 1, checksum, fields["act"])
    return number + 1


def _lock(fd: int, path: Path) -> None:
    """Lock the file until it is closed; TimeoutError, an OSError, if another process keeps it."""
    until_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise TimeoutError(f"{path} is locked by another process") from None
            time.sleep(POLL_S)
        else:
            return


def _end(fd: int, size: int) -> tuple[str, int, bool]:
    """Return the checksum and number of the last whole entry, and whether a line is cut short."""
    start = max(0, size - _TAIL_BYTES)
    tail = os.pread(fd, size - start, start)
    for line in reversed(tail.splitlines()):
        entry = parsed(line)
        if entry is not None:
            return entry.checksum, entry.fields["n"], not tail.endswith(b"\n")
    return "", 0, bool(tail) and not tail.endswith(b"\n")


def _sync_folder(folder: Path) -> None:
    """Make sure that a new file survives a power failure too."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _from_end(path: Path, most: int) -> list[bytes]:
    """Return at most that many of the last lines, oldest first."""
    with path.open("rb") as file:
        start, tail = file.seek(0, os.SEEK_END), b""
        while start and tail.count(b"\n") <= most:
            step = min(_TAIL_BYTES, start)
            start -= step
            file.seek(start)
            tail = file.read(step) + tail
    lines = tail.split(b"\n")[:-1] if tail.endswith(b"\n") else tail.split(b"\n")
    return lines[-most:]
