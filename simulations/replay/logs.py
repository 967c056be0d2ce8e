"""Logged feedback as one table, from any source: arms offered, arm drawn, feedback and cost.

Theory of operation. Every input becomes a Parquet file of one row per decision, written as a stream
in order of time. Only its narrow columns are loaded: about 30 bytes per decision and arm. The wide
columns, the features, stay on disk and are read in batches. So a journal may be larger than memory
by the ratio of the size of its rows (a kilobyte and more) to that of the loaded columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tollway.policies.types import Context
from tollway.simulations.replay import memory
from tollway.simulations.replay.scratch import Scratch

Floats = NDArray[np.float64]
KEPT_MIN = 0.01  # a reply with a smaller probability of being kept has too large a weight
SORTED_ROWS = 100_000  # rows sorted at once: 250 MB with features as below
BATCH_ROWS = 20_000  # with 64 features and as many words each, some 50 MB
READ_AT_ONCE = 8  # features read from disk in one pass
ROW_BYTES, CELL_BYTES = 100, 100  # at the peak of an evaluation, about

SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "excluded": pl.String(),
    "time": pl.Float64(),
    "route": pl.String(),
    "tenant": pl.String(),
    "arms": pl.List(pl.String()),
    "pmf": pl.List(pl.Float64()),
    "cost_hat_usd": pl.List(pl.Float64()),
    "dense": pl.List(pl.Float64()),
    "sparse_index": pl.List(pl.Int64()),
    "sparse_value": pl.List(pl.Float64()),
    "arm": pl.String(),
    "propensity": pl.Float64(),
    "answered": pl.String(),
    "kept": pl.Boolean(),
    "kept_chance": pl.Float64(),
    "cost_usd": pl.Float64(),
    "latency_s": pl.Float64(),
    "total_usd": pl.Float64(),
}
"""The table's columns as a reader gives them; `quality`, `final_quality` and `taught_s` besides."""


class BadLog(ValueError):  # noqa: N818 - reads as what happened
    """A log that supports no estimate; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Log:
    """Logged feedback of one route, oldest first: n decisions over K arms.

    `quality`, `cost_usd` and `latency_s` are those of the drawn arm; quality is nan without
    feedback. `final_quality` and `total_usd` are those of the whole request, which in a cascade may
    end at another arm. `pmf` (n x K) is nan if only the propensity was logged, and 0 for arms not
    offered; `cost_hat_usd` (n x K) is nan if not logged. `taught_s` is when the feedback arrived,
    inf without feedback. `keeping` is 1, except in a cascade whose feedback scores only the reply
    given. There it is 1 over the probability that the first reply was kept, 0 if it was not kept,
    and nan if that probability is too small to rely on, so that nothing is known. `priced` is false
    if the log has no costs; they are then 0 in the arrays. `names` are those of the dense features,
    if the log has any.
    """

    arms: tuple[str, ...]
    time: Floats
    arm: NDArray[np.int64]
    pmf: Floats
    offered: NDArray[np.bool_]
    propensity: Floats
    quality: Floats
    cost_usd: Floats
    latency_s: Floats
    cost_hat_usd: Floats
    taught_s: Floats
    final_quality: Floats
    total_usd: Floats
    keeping: Floats
    excluded: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    path: Path | None = None
    features: tuple[Context, ...] = ()
    priced: bool = True
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.time)

    @property
    def whole(self) -> bool:
        """Whether the probabilities of all arms are known, not only of the drawn one."""
        return bool(np.isfinite(self.pmf).all())

    def contexts(self, start: int, stop: int) -> list[Context]:
        """Return the contexts of some rows, read from disk if the log is on disk."""
        if self.path is None:
            return list(self.features[start:stop]) or [Context(())] * (stop - start)
        wide = ["dense", "sparse_index", "sparse_value"]
        frame = pl.scan_parquet(self.path).slice(start, stop - start).select(wide).collect()
        return [
            Context(tuple(dense), tuple(zip(index, value, strict=True)))
            for dense, index, value in frame.iter_rows()
        ]

    def dense(self) -> Iterator[Floats]:
        """Yield each dense feature (n)."""
        if self.path is None:
            for values in zip(*(context.dense for context in self.features), strict=True):
                yield np.array(values, float)
            return
        scan = pl.scan_parquet(self.path)
        count = scan.select(pl.col("dense").list.len().min()).collect().item()
        for first in range(0, count or 0, READ_AT_ONCE):
            some = range(first, min(first + READ_AT_ONCE, count))
            parts = [pl.col("dense").list.get(at).alias(str(at)) for at in some]
            yield from map(_numbers, scan.select(parts).collect().iter_columns())

    def batches(self) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of batches whose features fit in memory."""
        for start in range(0, len(self), BATCH_ROWS):
            yield start, min(start + BATCH_ROWS, len(self))

    def noted(self, *notes: str) -> "Log":
        """Return the log with additional notes."""
        return replace(self, notes=(*self.notes, *notes))


class Spool:
    """Writes rows to Parquet in chunks, so that a log need not fit in memory."""

    # The mutable state is the chunk being filled and the number of parts written.

    def __init__(self, folder: Path, name: str, schema: dict[str, pl.DataType]) -> None:
        self._folder, self._name, self._schema = folder, name, schema
        self._rows: list[dict[str, object]] = []
        self._parts = 0

    def add(self, row: dict[str, object]) -> None:
        """Add a row."""
        self._rows.append(row)
        if len(self._rows) >= BATCH_ROWS:
            self._write()

    def _write(self) -> None:
        path = self._folder / f"{self._name}-{self._parts:06d}.parquet"
        pl.DataFrame(self._rows, schema=self._schema, orient="row").write_parquet(path)
        self._rows, self._parts = [], self._parts + 1

    def scan(self) -> pl.LazyFrame:
        """Return all rows added, lazily."""
        if self._rows or not self._parts:
            self._write()
        return pl.scan_parquet(self._folder / f"{self._name}-*.parquet")


def settle(frame: pl.LazyFrame, scratch: Scratch, *, route: str | None, first: bool) -> Log:
    """Write a table in order of time and load its narrow columns.

    `frame` has the columns of SCHEMA and `quality`, `final_quality`, `taught_s`. `first`: the
    quality of first replies is known even if a cascade escalated; otherwise only kept replies
    count, weighted by the probability of being kept.
    """
    routes = frame.group_by("route").len().sort("len", descending=True).collect()
    name = _route(routes["route"].to_list(), route)
    frame = frame.filter(pl.col("route") == name)
    excluded = {
        str(why): int(count)
        for why, count in frame.filter(pl.col("excluded") != "")
        .group_by("excluded")
        .len()
        .collect()
        .iter_rows()
    }
    frame = frame.filter(pl.col("excluded") == "")
    labelled = pl.col("final_quality").is_not_null()
    chance = pl.col("kept_chance")
    keeping = pl.when("kept").then(1.0 / chance).otherwise(0.0)
    frame = frame.with_columns(
        quality=pl.when(pl.lit(first) | pl.col("kept"))
        .then("quality")
        .otherwise(pl.when(labelled).then(0.0)),
        keeping=pl.when(pl.lit(first))
        .then(1.0)
        .otherwise(pl.when(chance >= KEPT_MIN).then(keeping)),
    )
    path = _by_time(frame, scratch.path)
    log = load(path)
    if not len(log):
        raise BadLog(f"route {name!r} has no usable decision; excluded: {excluded}")
    return replace(log, excluded=excluded)


def _by_time(frame: pl.LazyFrame, folder: Path) -> Path:
    """Write a table in order of time, one time range after another; return its file pattern.

    Sorting the whole table would hold it in memory. Segments are nearly in order of time already,
    so each range reads only a few row groups, and only the statistics of the others.
    """
    joined = folder / "joined.parquet"
    frame.sink_parquet(joined, row_group_size=BATCH_ROWS)
    frame = pl.scan_parquet(joined)
    times = frame.select("time").collect(engine="streaming")["time"].sort()
    ends = [*dict.fromkeys(times[SORTED_ROWS::SORTED_ROWS].to_list()), float("inf")]
    begin = float("-inf")
    for number, end in enumerate(ends):
        stretch = frame.filter(pl.col("time") >= begin, pl.col("time") < end)
        stretch.sort("time", maintain_order=True).sink_parquet(
            folder / f"log-{number:06d}.parquet", row_group_size=BATCH_ROWS
        )
        begin = end
    joined.unlink()
    return folder / "log-*.parquet"


def _route(routes: list[str], wanted: str | None) -> str:
    if not routes:
        raise BadLog("the log has no decisions; name the folder that the gateway writes to")
    if wanted is not None and wanted not in routes:
        raise BadLog(f"no route {wanted!r} in the log; its routes: {', '.join(sorted(routes))}")
    return wanted if wanted is not None else routes[0]


def load(path: Path) -> Log:
    """Load the narrow columns of a settled table."""
    scan = pl.scan_parquet(path)
    arms = tuple(scan.select(pl.col("arms").explode()).unique().sort("arms").collect()["arms"])
    _check_memory(scan.select(pl.len()).collect().item(), len(arms))
    narrow = scan.select(
        "time",
        "arm",
        "propensity",
        "quality",
        "cost_usd",
        "latency_s",
        "taught_s",
        "final_quality",
        "total_usd",
        "keeping",
    ).collect()
    place = {name: at for at, name in enumerate(arms)}
    spread = (
        scan.select("arms", "pmf", "cost_hat_usd")
        .with_row_index("row")
        .explode("arms", "pmf", "cost_hat_usd")
        .with_columns(pl.col("arms").replace_strict(place, return_dtype=pl.Int64))
        .collect()
    )
    shape = len(narrow), len(arms)
    rows, columns = spread["row"].to_numpy(), spread["arms"].to_numpy()
    pmf, offered = np.zeros(shape), np.zeros(shape, bool)
    cost_hat = np.full(shape, np.nan)
    pmf[rows, columns] = _numbers(spread["pmf"])
    cost_hat[rows, columns] = _numbers(spread["cost_hat_usd"])
    offered[rows, columns] = True

    def column(name: str) -> Floats:
        return _numbers(narrow[name])

    return Log(
        arms=arms,
        time=column("time"),
        arm=narrow["arm"].replace_strict(place, return_dtype=pl.Int64).to_numpy(),
        pmf=pmf,
        offered=offered,
        propensity=column("propensity"),
        quality=column("quality"),
        cost_usd=column("cost_usd"),
        latency_s=column("latency_s"),
        cost_hat_usd=cost_hat,
        taught_s=np.nan_to_num(column("taught_s"), nan=np.inf),
        final_quality=column("final_quality"),
        total_usd=column("total_usd"),
        keeping=column("keeping"),
        path=path,
    )


def _check_memory(rows: int, arms: int) -> None:
    """Refuse a log that does not fit: the kernel would end this process without a message."""
    needed, free = rows * (ROW_BYTES + arms * CELL_BYTES), memory.available_bytes()
    if free is not None and needed > free:
        raise BadLog(
            f"{rows:,} decisions over {arms} arms need about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are available; name fewer segments of the journal, or run where "
            "there is more memory"
        )


def _numbers(series: pl.Series) -> Floats:
    """Return a column as floats, with nan for null."""
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
