"""Captures: prompts and replies that an operator chose to keep, within a disk budget.

They are lines of JSON in files of their own, so that the journal stays free of what people write.
Records wait in memory, within a bound, and a thread redacts and writes them. The oldest files are
deleted when the budget is used up or their time is over. A line may be sealed.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from re import Pattern
from typing import Any

import orjson

from tollway.gateway.security import private_files
from tollway.gateway.security.sealing import MARK, Seal

REDACTED = "[redacted]"
WAITING_BYTES_MAX = 16 << 20  # of records that the thread has not yet written
FILES = 8  # of the budget: the oldest eighth is deleted at once
FILE_S = 3600.0
_GLOB = "capture-*.jsonl"
_DEPTH_MAX = 200

Record = dict[str, Any]


class Captures:
    """The captures that one worker writes."""

    # The mutable state: records that wait and their size, counts, and the file being written.
    def __init__(
        self,
        folder: Path,
        *,
        bytes_max: int,
        keep_s: float,
        redact: Sequence[Pattern[str]],
        seal: Seal | None,
        worker: int = 0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`bytes_max`: of this worker's files; `redact`: what is replaced by REDACTED."""
        self._folder = folder
        self._bytes_max = bytes_max
        self._keep_s = keep_s
        self._redact = redact
        self._seal = seal
        self._worker = worker
        self._wall = wall
        self._waiting: list[Record] = []
        self._waiting_bytes = 0
        self._file: Path | None = None
        self._begun_s = 0.0
        self.written = 0
        self.dropped = 0

    def put(self, record: Record, size: int) -> None:
        """Keep a record of about `size` bytes; drop it if too many wait."""
        if self._waiting_bytes + size > WAITING_BYTES_MAX:
            self.dropped += 1
            return
        self._waiting.append(record)
        self._waiting_bytes += size

    async def write(self) -> None:
        """Write what waits, in a thread; what the disk refuses is dropped and counted."""
        records, self._waiting, self._waiting_bytes = self._waiting, [], 0
        try:
            self.written += await asyncio.to_thread(self._write, records)
        except OSError:
            self.dropped += len(records)

    def _write(self, records: list[Record]) -> int:
        self._trim()
        if not records:
            return 0
        lines = [self._line(record) for record in records]
        lines = [line for line in lines if len(line) <= self._bytes_max // FILES]
        data = b"".join(lines)
        now_s = self._wall()
        file = self._file
        is_full = file is not None and _size(file) + len(data) > self._bytes_max // FILES
        if file is None or is_full or now_s - self._begun_s > FILE_S:
            file = self._file = self._folder / f"capture-{int(now_s * 1e6)}-{self._worker}.jsonl"
            self._begun_s = now_s
        private_files.make_file(file)
        with file.open("ab") as out:
            out.write(data)
        self._trim()
        return len(lines)

    def _line(self, record: Record) -> bytes:
        line = orjson.dumps(redacted(record, self._redact))
        return (line if self._seal is None else self._seal.seal(line)) + b"\n"

    def _trim(self) -> None:
        """Delete the files that are too old, and the oldest above the budget."""
        files = sorted(self._folder.glob(f"capture-*-{self._worker}.jsonl"), key=_age)
        sizes = {file: _size(file) for file in files}
        left = sum(sizes.values())
        for file in files:
            if left <= self._bytes_max and _time_s(file) > self._wall() - self._keep_s - FILE_S:
                return
            left -= sizes[file]
            file.unlink(missing_ok=True)


def redacted(value: Any, patterns: Sequence[Pattern[str]], depth: int = 0) -> Any:
    """Return a document in which what matches a pattern is replaced: texts, names, numbers."""
    if not patterns or value is None or isinstance(value, bool):
        return value
    if depth > _DEPTH_MAX:
        return REDACTED
    if isinstance(value, dict):
        return {
            redacted(str(name), patterns): redacted(one, patterns, depth + 1)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(one, patterns, depth + 1) for one in value]
    text = new = value if isinstance(value, str) else str(value)
    for pattern in patterns:
        new = pattern.sub(REDACTED, new)
    return value if new == text else new


def read(folder: Path, seal: Seal | None) -> Iterator[bytes]:
    """Yield the captures of a folder, oldest file first, as lines of JSON without their ends.

    Raises Sealed for a line of another key, and ValueError for a sealed one without a key.
    """
    for file in sorted(folder.glob(_GLOB), key=_age):
        with file.open("rb") as lines:
            for line in lines:
                if line.strip():  # a blank line is a capture that was erased
                    yield opened(line.rstrip(b"\n"), seal)


def opened(line: bytes, seal: Seal | None) -> bytes:
    """Return a line of a capture file as JSON; raises as `read` does."""
    if not line.startswith(MARK):
        return line
    if seal is None:
        raise ValueError("the captures are sealed; set capture.key")
    return seal.unseal(line)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _age(file: Path) -> tuple[float, str]:
    return _time_s(file), file.name


def _time_s(file: Path) -> float:
    """Return when a file was begun, from its name."""
    began = file.stem.split("-")[1]
    return int(began) / 1e6 if began.isdigit() else 0.0
