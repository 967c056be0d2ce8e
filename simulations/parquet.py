"""Reads the rows of a Parquet file, for commands that take tables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows as dictionaries by column, in order."""
    yield from pl.scan_parquet(path).collect().iter_rows(named=True)
