"""Reads the times of a foreign table: seconds since 1970, or ISO 8601 dates and times.

A time without an offset is UTC: the time zone of the machine that reads a log must not change it.
"""

import math
from datetime import UTC, datetime

import polars as pl

from tollway.simulations.replay.logs import BadLog

LATEST_S = 1e11  # the year 5138; larger numbers are milliseconds or finer


def parse(text: str) -> float:
    """Parse a time into seconds since 1970; ValueError if it is invalid."""
    try:
        seconds = float(text)
    except ValueError:
        when = datetime.fromisoformat(text.strip())
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(f"{text} is not a time")
    return seconds


def seconds(scan: pl.LazyFrame, name: str, source: str) -> pl.Expr:
    """Return a column's seconds, null where it is empty; BadLog names the first invalid row."""
    kind, column = scan.collect_schema()[name], pl.col(name)
    if kind.is_numeric():
        parsed = column.cast(pl.Float64).fill_nan(None)
    elif isinstance(kind, pl.Date | pl.Datetime):
        parsed = column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    else:
        parsed = column.cast(pl.String).map_elements(_or_nothing, pl.Float64, skip_nulls=True)
    rows = scan.select(row=pl.int_range(pl.len()) + 1, said=column, at=parsed)
    unread = pl.col("at").is_null() | ~(pl.col("at").abs() <= LATEST_S)
    empty = pl.col("said").is_null() | (pl.col("said").is_nan() if kind.is_float() else False)
    first = rows.filter(unread & ~empty).head(1).collect()
    if len(first):
        row, value, _ = first.row(0)
        raise BadLog(
            f"{source} row {row}: {name} = {value!r} is not a time; write seconds since 1970, as "
            "1767225600.5, or ISO 8601, as 2026-01-01T00:00:00Z (without an offset: UTC)"
        )
    return parsed


def _or_nothing(text: str) -> float | None:
    try:
        return parse(text)
    except (ValueError, OverflowError):
        return None
