"""Reads the numbers of a foreign table, which may stand there as text."""

import polars as pl

from tollway.simulations.replay.logs import BadLog


def numbers(scan: pl.LazyFrame, name: str, source: str) -> pl.Expr:
    """Return a column's numbers, null where it is empty; BadLog names the first invalid row.

    NaN is empty too: pandas writes it for a missing value.
    """
    said = pl.col(name)
    parsed = said.cast(pl.Float64, strict=False).fill_nan(None)
    kind = scan.collect_schema()[name]
    empty = said.is_null() | (said.is_nan() if kind.is_float() else pl.lit(value=False))
    rows = scan.select(row=pl.int_range(pl.len()) + 1, said=said, at=parsed, empty=empty)
    unread = pl.col("at").is_null() | ~pl.col("at").is_finite()
    first = rows.filter(unread & ~pl.col("empty")).head(1).collect()
    if len(first):
        row, value, *_ = first.row(0)
        raise BadLog(f"{source} row {row}: {name} = {value!r} is not a number; write one, as 0.25")
    return parsed
