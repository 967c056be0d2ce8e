"""Reads the rows of a gateway's journal."""

import warnings
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from tollway.gateway.storage import journal_reader
from tollway.gateway.storage.journal_format import Row


def read_journal(path: str | PathLike[str]) -> Iterator[Row]:
    """Yield the rows of a journal in the order in which they were written, as dictionaries.

    `path` is the journal's folder, the folder above it, or one segment. Each row has a `kind`
    (`decision`, `attempt`, `settlement`, `feedback`, ...); the rows of one request share an `id`.
    Amounts of money (`*_nano`) are nano-dollars, times are seconds since 1970. The
    journal is read as the rows are asked for.

    FileNotFoundError if there is no journal. Rows that fail their checksum are skipped; a
    RuntimeWarning at the end says how many.
    """
    files = journal_reader.files([Path(path)])
    if not files:
        raise FileNotFoundError(f"{path} has no journal-*.jsonl; name the gateway's journal folder")
    return _rows(files, path)


def _rows(files: list[Path], path: str | PathLike[str]) -> Iterator[Row]:
    damage = journal_reader.Damage()
    for file in files:
        yield from journal_reader.sound(file, damage)
    if damage.bad:
        message = f"{damage.bad} of {damage.lines} rows of {path} are damaged and were skipped"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
