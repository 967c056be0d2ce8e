"""Each backend's calls, hour by hour, and how long they took.

They are read from all attempts in a journal, because fallbacks, audits and the second stages of
cascades are load too, or from a CSV or Parquet file with one row per call. The data passes through
Parquet, so it may be larger than memory; only counts by minute and a few hundred quantiles are
kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tollway.gateway.storage import journal_reader
from tollway.gateway.storage.journal_reader import Damage
from tollway.simulations.capacity.waiting import Service
from tollway.simulations.replay import numbers, times
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.logs import BadLog, Spool
from tollway.simulations.replay.scratch import Scratch

Floats = NDArray[np.float64]
HOUR_S, MINUTE_S = 3600, 60
TIMES = 400  # quantiles of a call's duration that are kept, up to 99.75 %
SAMPLE_MAX = 500_000  # durations sampled for quantiles; a thousand lie above the 99.75 % one
CALLS_MIN = 100  # of a backend; fewer show neither its load nor its durations
CALLS: dict[str, pl.DataType] = {
    "backend": pl.String(),
    "time": pl.Float64(),
    "latency_s": pl.Float64(),
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """The calls to one backend. `calls` (h) counts those of each whole hour from `start_s` on.

    `start_s` is in seconds since 1970. An hour is nan in `calls` if no backend was called in it:
    the gateway was not running. `step_s` is an hour, or the whole span if that is under three
    hours. `bursts` is the variance of a minute's calls about their hour's mean, divided by that
    mean: 1 for Poisson arrivals.
    """

    backend: str
    start_s: float
    step_s: float
    calls: Floats
    bursts: float
    service: Service

    @property
    def rates(self) -> Floats:
        """Calls per second of each hour."""
        return self.calls / self.step_s


def read(path: Path, scratch: Scratch, columns: Columns, damage: Damage) -> list[Traffic]:
    """Read every backend's traffic, the most called first; BadLog if there is too little.

    Cut or damaged lines of a journal, and rows of a table that have no backend or no time, are
    counted in `damage` and left out.
    """
    try:
        return _read(_calls(path, scratch, columns, damage))
    except (pl.exceptions.PolarsError, OSError) as exc:
        first = str(exc).partition("\n")[0]
        raise BadLog(f"{path} cannot be read; it may be incomplete: {first}") from exc


def _read(scan: pl.LazyFrame) -> list[Traffic]:
    counted = (
        scan.group_by("backend", minute=(pl.col("time") // MINUTE_S).cast(pl.Int64))
        .agg(calls=pl.len())
        .sort("minute")
        .collect()
    )
    ends = scan.select(first=pl.col("time").min(), last=pl.col("time").max()).collect().row(0)
    names = (
        counted.group_by("backend")
        .agg(pl.col("calls").sum())
        .filter(pl.col("calls") >= CALLS_MIN)
        .sort("calls", "backend", descending=[True, False])["backend"]
        .to_list()
    )
    if not names:
        raise BadLog(f"too few calls: no backend was called {CALLS_MIN} times")
    return [_traffic(name, scan, counted, ends) for name in names]


def _calls(path: Path, scratch: Scratch, columns: Columns, damage: Damage) -> pl.LazyFrame:
    """Return one row per call: backend, time, and latency, null if it was not measured."""
    if not path.exists():
        raise BadLog(f"{path} does not exist")
    if path.is_dir() or path.name.startswith("journal-"):
        files = journal_reader.files([path])
        if not files:
            raise BadLog(f"{path} has no journal-*.jsonl; name the folder the gateway writes to")
        spool = Spool(scratch.path, "calls", CALLS)
        for row in _attempts(files, damage):
            spool.add(row)
        if damage.bad and damage.bad == damage.lines:
            raise BadLog(f"none of the {damage.lines} lines of {path} is valid")
        return spool.scan()
    return _table(path, columns, damage)


def _table(path: Path, columns: Columns, damage: Damage) -> pl.LazyFrame:
    """Return the calls of a CSV or Parquet file; rows without backend or time are damage."""
    scan = pl.scan_csv(path) if path.suffix == ".csv" else pl.scan_parquet(path)
    names = scan.collect_schema().names()
    for option, name in (
        ("--arm", columns.arm),
        ("--time", columns.time),
        ("--latency", columns.latency),
    ):
        if name not in names:
            there = ", ".join(names[:20])
            raise BadLog(
                f"{path.name} has no column {name!r}; set {option} to one of its columns: {there}"
            )
    calls = scan.select(
        backend=pl.col(columns.arm).cast(pl.String),
        time=times.seconds(scan, columns.time, path.name),
        latency_s=numbers.numbers(scan, columns.latency, path.name),
    )
    whole = pl.col("backend").is_not_null() & pl.col("time").is_not_null()
    damage.lines, damage.bad = calls.select(pl.len(), (~whole).sum().alias("bad")).collect().row(0)
    return calls.filter(whole)


def _attempts(files: list[Path], damage: Damage) -> Iterator[dict[str, object]]:
    for path in files:
        for row in journal_reader.sound(path, damage):
            kind = row.get("kind")
            # A stream's attempt row covers only its first event; its settlement has its end.
            if kind == "settlement" or (kind == "attempt" and row.get("provenance") != "pending"):
                answered = not row["error"]
                yield {
                    "backend": row["backend"],
                    "time": float(row["time"]),
                    "latency_s": float(row["latency_s"]) if answered else None,
                }


def _traffic(
    name: str, scan: pl.LazyFrame, counted: pl.DataFrame, ends: tuple[float, float]
) -> Traffic:
    minutes = counted.filter(pl.col("backend") == name)
    at, calls = minutes["minute"].to_numpy(), minutes["calls"].to_numpy().astype(float)
    first, last = int(ends[0] // HOUR_S) + 1, int(ends[1] // HOUR_S)
    if last - first < 2:  # too short for whole hours: use one rate
        span_s = max(ends[1] - ends[0], 1.0)
        service = _service(name, scan, first - 1, np.array([], np.int64))
        return Traffic(name, ends[0], span_s, np.array([calls.sum()]), 1.0, service)
    hour = at // 60
    whole = (hour >= first) & (hour < last)
    by_hour: Floats = np.bincount(
        hour[whole] - first, weights=calls[whole], minlength=last - first
    ).astype(float)
    asked = np.unique((counted["minute"] // 60).to_numpy())
    running = np.isin(np.arange(first, last), asked)
    by_hour[~running] = np.nan
    service = _service(name, scan, first, _calm(by_hour, first))
    bursts = _bursts(at[whole] - first * 60, calls[whole], by_hour)
    return Traffic(name, first * HOUR_S, HOUR_S, by_hour, bursts, service)


def _bursts(minute: NDArray[np.int64], calls: Floats, by_hour: Floats) -> float:
    """Return the variance of a minute's calls over their hour's mean; at least 1."""
    squares = np.bincount(minute // 60, weights=calls**2, minlength=len(by_hour))
    mean = by_hour / 60
    busy = np.isfinite(mean) & (mean > 0.0)
    if not busy.any():
        return 1.0
    variance = (squares[busy] - 60 * mean[busy] ** 2) / 59
    # Weighted by calls, because the plan is for the busy hours.
    return max(1.0, float(variance.sum() / mean[busy].sum()))


def _calm(by_hour: Floats, first: int) -> NDArray[np.int64]:
    """Return the calmest hours, with a quarter of all calls: waiting is least there."""
    order = np.argsort(np.where(by_hour > 0.0, by_hour, np.inf), kind="stable")
    held = np.cumsum(np.nan_to_num(by_hour[order]))
    enough = int(np.searchsorted(held, 0.25 * held[-1])) + 1
    return order[:enough] + first


def _service(name: str, scan: pl.LazyFrame, first: int, calm: NDArray[np.int64]) -> Service:
    """Return how long calls took, in the calm hours if there are any."""
    hour = (pl.col("time") // HOUR_S).cast(pl.Int64)
    answered = scan.filter(pl.col("backend") == name, pl.col("latency_s") > 0.0)
    rows = answered.filter(hour.is_in(calm.tolist())) if len(calm) else answered
    count = int(rows.select(pl.len()).collect().item())
    if not count:  # in no whole hour
        rows, count = answered, int(answered.select(pl.len()).collect().item())
    if not count:
        raise BadLog(f"no call to {name} was answered, so its latency is unknown")
    every = max(1, count // SAMPLE_MAX)
    times = rows.select(pl.col("latency_s").gather_every(every)).collect()["latency_s"].to_numpy()
    return Service.of(np.quantile(times, (np.arange(TIMES) + 0.5) / TIMES))
