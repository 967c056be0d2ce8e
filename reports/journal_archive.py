"""Archives: segments of the journal as Parquet, from which the segment can be had back.

An archive has one row for each line of its segment. `line` is the line itself, with its checksum
and its end, so that all lines joined are the segment's bytes: `restore` writes them back, and ids
lead to their rows again. The other columns are members of the row, for queries; they are null where
the line is damaged.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import polars as pl

from tollway.gateway.security.private_files import FILE_MODE, make_folder, opener
from tollway.gateway.storage.journal import MARK_BYTES
from tollway.gateway.storage.journal_format import unseal

BATCH_BYTES = 32 << 20  # of lines that are converted at once; joining the parts takes more
SCHEMA = {
    "id": pl.String,
    "kind": pl.String,
    "time": pl.Float64,
    "route": pl.String,
    "tenant": pl.String,
    "cost_nano": pl.Int64,
    "line": pl.Binary,
}
_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "kind": (str,),
    "time": (int, float),
    "route": (str,),
    "tenant": (str,),
    "cost_nano": (int,),
}


@dataclass(frozen=True, slots=True)
class Archived:
    """What was archived of a segment."""

    path: Path
    lines: int
    damaged: int


def archive(segment: Path, folder: Path) -> Archived:
    """Write a closed segment to `folder` as Parquet, read it back, and compare the bytes.

    An archive that exists is replaced. Raises OSError, and ValueError if the bytes differ.
    """
    make_folder(folder)
    target = folder / f"{segment.stem}.parquet"
    lines, damaged = _store(_batches(segment), target, segment)
    return Archived(target, lines, damaged)


def rewrite(archived: Path, change: Callable[[bytes], bytes | None]) -> None:
    """Replace lines of an archive, whole or not at all: `change` returns None to keep a line.

    Raises OSError, and ValueError if the file is no archive.
    """
    changed = False

    def batches() -> Iterator[list[bytes]]:
        nonlocal changed
        for batch in lines(archived):
            replaced = [change(line) for line in batch]
            changed = changed or any(replaced)
            yield [new or old for new, old in zip(replaced, batch, strict=True)]

    _store(batches(), archived, archived, wanted=lambda: changed)


def lines(archived: Path) -> Iterator[list[bytes]]:
    """Yield the lines of an archive, in batches; ValueError if the file is no archive."""
    try:
        count = pl.scan_parquet(archived).select(pl.len()).collect().item()
        for batch in _read(archived, count, _step(archived, count)):
            yield [line for _, line in batch]
    except pl.exceptions.PolarsError as exc:
        raise ValueError(f"{archived} is no archive of a segment, or is damaged: {exc}") from exc


def _store(
    batches: Iterable[list[bytes]],
    target: Path,
    dated: Path,
    *,
    wanted: Callable[[], bool] = lambda: True,
) -> tuple[int, int]:
    """Write an archive unless it is not `wanted` in the end; return its (lines, damaged lines).

    It is compared with the lines, byte for byte, before it replaces another; its time is that of
    the file `dated`.
    """
    count = damaged = 0
    digest = hashlib.sha256()
    with TemporaryDirectory(prefix=".archive-", dir=target.parent) as scratch:
        parts = []
        for number, batch in enumerate(batches):
            rows = [_row(line) for line in batch]
            digest.update(b"".join(batch))
            count += len(rows)
            damaged += sum(row["kind"] is None for row in rows)
            parts.append(Path(scratch) / f"{number:06}.parquet")
            pl.DataFrame(rows, schema=SCHEMA).write_parquet(parts[-1])
        if not wanted():
            return count, damaged
        whole = Path(scratch) / target.name
        if parts:
            pl.scan_parquet(parts).sink_parquet(whole)
        else:
            pl.DataFrame(schema=SCHEMA).write_parquet(whole)
        if _digest(whole, count, len(parts)) != digest.digest():
            raise ValueError(f"{dated} was read back with other bytes; nothing was archived")
        whole.chmod(FILE_MODE)
        times = dated.stat()
        os.utime(whole, ns=(times.st_atime_ns, times.st_mtime_ns))  # by which its rows are dated
        whole.replace(target)
    return count, damaged


def restore(archived: Path, folder: Path) -> Path:
    """Write an archive's segment to a journal's folder, with its time, and return its path.

    Its decisions are marked as having had feedback: a label that was learned before the segment was
    removed must not be learned again. Raises FileExistsError if the segment is there, OSError, and
    ValueError if the file is no archive.
    """
    segment = folder / f"{archived.stem}.jsonl"
    if segment.exists():
        raise FileExistsError(f"{segment} exists")
    # Marks without a segment are removed by retention, so both get their names at the end.
    beside, marks = segment.with_suffix(".restored"), segment.with_suffix(".restored-marks")
    try:
        with open(beside, "wb", opener=opener) as file, open(marks, "wb", opener=opener) as marked:
            _write(archived, file, marked)
        times = archived.stat()
        os.utime(beside, ns=(times.st_atime_ns, times.st_mtime_ns))
        marks.rename(segment.with_suffix(".marks"))
        beside.rename(segment)
    except pl.exceptions.PolarsError as exc:
        raise ValueError(f"{archived} is no archive of a segment, or is damaged: {exc}") from exc
    finally:
        beside.unlink(missing_ok=True)
        marks.unlink(missing_ok=True)
    return segment


def _write(archived: Path, segment: BinaryIO, marks: BinaryIO) -> None:
    offset = 0
    count = pl.scan_parquet(archived).select(pl.len()).collect().item()
    for batch in _read(archived, count, _step(archived, count)):
        for kind, line in batch:
            if kind == "decision":
                marks.seek(offset // MARK_BYTES)
                marks.write(b"\x01")
            segment.write(line)
            offset += len(line)


def _batches(segment: Path) -> Iterator[list[bytes]]:
    """Yield a segment's lines, with their ends, in batches of about BATCH_BYTES."""
    with segment.open("rb") as file:
        while batch := file.readlines(BATCH_BYTES):
            yield batch


def _row(line: bytes) -> dict[str, Any]:
    """Return an archive's row: null where a member is missing or of another type."""
    row = unseal(line) or {}
    members = {name: row.get(name) for name in _TYPES}
    known = {
        name: value if isinstance(value, _TYPES[name]) else None for name, value in members.items()
    }
    return {**known, "line": line}


def _step(archived: Path, count: int) -> int:
    """Return how many lines of an archive to read at once; lines compress about tenfold."""
    return max(1, count * BATCH_BYTES // (10 * archived.stat().st_size))


def _digest(path: Path, lines: int, batches: int) -> bytes:
    digest = hashlib.sha256()
    for batch in _read(path, lines, max(1, lines // max(1, batches))):
        digest.update(b"".join(line for _, line in batch))
    return digest.digest()


def _read(path: Path, lines: int, step: int) -> Iterator[list[tuple[str | None, bytes]]]:
    """Yield the kinds and the lines of an archive, `step` at a time."""
    scan = pl.scan_parquet(path).select("kind", "line")
    for at in range(0, lines, step):
        yield scan.slice(at, step).collect().rows()
