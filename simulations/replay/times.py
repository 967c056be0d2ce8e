"""Reads the times of a foreign table: seconds since 1970, or ISO 8601 dates and times.

A time without an offset is UTC: the time zone of the machine that reads a log must not change it.
"""

import math
from datetime import UTC, datetime

import polars as pl

from tollway.simulations.replay.logs import BadLog


def parse(text: str) -> float:
    """Parse a time into seconds since 1970; ValueError if it is invalid."""
    try:
        seconds = float(text)
    except ValueError:
        when = datetime.fromisoformat(text.strip())
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(f"{text} is no time")
    return seconds


def seconds(scan: pl.LazyFrame, name: str, source: str) -> pl.Expr:
    """Return the expression for a column's seconds; BadLog names the first invalid row."""
    kind, column = scan.collect_schema()[name], pl.col(name)
    if kind.is_numeric():
        found = column.cast(pl.Float64)
    elif isinstance(kind, pl.Date | pl.Datetime):
        found = column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    else:
        found = column.cast(pl.String).map_elements(_or_nothing, pl.Float64, skip_nulls=True)
    told = scan.select(row=pl.int_range(pl.len()) + 1, said=column, at=found)
    wrong = told.filter(pl.col("at").is_null() | ~pl.col("at").is_finite())
    first = wrong.head(1).collect()
    if len(first):
        row, said, _ = first.row(0)
        raise BadLog(
            f"{source} row {row}: {name} = {said!r} is no time; write seconds since 1970, such as "
            "1767225600.5, or ISO 8601, such as 2026-01-01T00:00:00Z (without an offset: UTC)"
        )
    return found


def _or_nothing(text: str) -> float | None:
    try:
        return parse(text)
    except (ValueError, OverflowError):
        return None
