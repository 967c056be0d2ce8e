"""How well the spend monitor detects anomalies: injected ones, and weeks without any.

    python benchmarks/anomalies.py                    # two minutes
    python benchmarks/anomalies.py --weeks 8 --json anomalies.json
    python benchmarks/anomalies.py --series NAB       # real series: five minutes


The gateway's own detector watches synthetic traffic (three backends, two routes, four tenants; days
and weeks with their seasons, Poisson arrivals, costs that vary from request to request) every ten
seconds. First come a cold start and weeks without anomalies, in which every alarm is false. Then
one anomaly at a time is injected into copies of the trained detector, at random hours. The table
shows whether and when each is detected within an hour, and whether its cause is named.

`--series DIR` replays real series with marked windows instead, in the form of the Numenta Anomaly
Benchmark: DIR/*/NAME.csv (timestamp, value) and DIR/labels/combined_windows.json. Each value is a
count of requests at one price, spread over its interval (Poisson), with a mean of five requests a
second and $50 an hour. Alarms count from the third day. The curve shows how many windows are found
for how many false alarms a week, by the detector's `strictness`.
"""

import argparse
import copy
import csv
import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from tollway.gateway.anomalies.detector import (
    ALL,
    REST_S,
    TICK_S,
    Anomaly,
    AnomalyDetector,
    Total,
    _Series,
    _Window,
)
from tollway.gateway.anomalies.seasonal_baseline import ExpectedSpend

WEEK_S = 7 * 86_400
MONDAY_S = 4 * 86_400  # 1970 began on a Thursday
TENANTS = {"acme": 0.5, "globex": 0.3, "initech": 0.15, "hooli": 0.05}
ROUTES = {"chat": 0.7, "search": 0.3}
BACKENDS = {"rules": (0.5, 1.0, 1e-5), "small": (0.35, 0.05, 4e-3), "large": (0.15, 0.4, 7e-3)}
"""Share of the requests, usage of one, dollars per unit of usage."""


@dataclass(frozen=True)
class World:
    """The factors that apply while an anomaly lasts."""

    volume: float = 1.0
    tenant: tuple[str, float] = ("acme", 1.0)
    route: tuple[str, float] = ("chat", 1.0)
    shares: tuple[float, float, float] = (1.0, 1.0, 1.0)
    usage: tuple[float, float, float] = (1.0, 1.0, 1.0)
    price: tuple[float, float, float] = (1.0, 1.0, 1.0)


QUIET = World()
KINDS: dict[str, tuple[World, str]] = {
    "ten times the requests": (replace(QUIET, volume=10.0), "volume"),
    "twice the requests": (replace(QUIET, volume=2.0), "volume"),
    "one tenant's traffic x20": (replace(QUIET, tenant=("initech", 20.0)), "volume"),
    "a retry storm on one route (x4)": (replace(QUIET, route=("search", 4.0)), "volume"),
    "all traffic to the most expensive": (replace(QUIET, shares=(0.0, 0.0, 1.0)), "mix"),
    "the cheap backend is down": (replace(QUIET, shares=(0.0, 1.0, 2.0)), "mix"),
    "answers three times as long": (replace(QUIET, usage=(1.0, 3.0, 3.0)), "usage"),
    "a device at half its speed": (replace(QUIET, usage=(1.0, 1.0, 2.0)), "usage"),
    "the highest price doubles": (replace(QUIET, price=(1.0, 1.0, 2.0)), "price"),
    "all prices up by 80 %": (replace(QUIET, price=(1.8, 1.8, 1.8)), "price"),
}


class Traffic:
    """Accumulates the totals of each (route, backend, tenant)."""

    def __init__(self, per_s: float, seed: int) -> None:
        self._per_s = per_s
        self._rng = np.random.default_rng(seed)
        self._totals: dict[tuple[str, str, str], Total] = {}
        self._drift = 0.0

    def tick(self, now_s: float, world: World) -> dict[tuple[str, str, str], Total]:
        """Return the totals after TICK_S more seconds."""
        rng = self._rng
        # Traffic is never as smooth as its season: a slow random walk of about 10 % around it.
        self._drift = 0.999 * self._drift + 0.005 * rng.standard_normal()
        rate = self._per_s * season(now_s) * math.exp(self._drift) * world.volume * TICK_S
        shares = [s * m for (s, _, _), m in zip(BACKENDS.values(), world.shares, strict=True)]
        for tenant, part in TENANTS.items():
            own = world.tenant[1] if tenant == world.tenant[0] else 1.0
            for route, part_of_route in ROUTES.items():
                much = world.route[1] if route == world.route[0] else 1.0
                for at, (name, (_, usage, usd)) in enumerate(BACKENDS.items()):
                    mean = rate * part * own * part_of_route * much * shares[at] / sum(shares)
                    count = int(rng.poisson(mean))
                    key = (route, name, tenant)
                    before = self._totals.get(key, Total(0, 0, 0))
                    # The sum of `count` usages that are exponential, by their mean.
                    used = rng.gamma(count) * usage * world.usage[at] if count else 0.0
                    spent = used * usd * world.price[at]
                    self._totals[key] = Total(
                        before.requests + count, before.usage + used, before.usd + spent
                    )
        return self._totals


def season(now_s: float) -> float:
    """Return the shape of a week: nights at a fifth, weekends at two fifths."""
    day = now_s / 86_400
    hour = 24 * (day % 1)
    bright = 0.2 + 0.8 * max(0.0, math.sin(math.pi * (hour - 6) / 14)) ** 0.7
    weekend = int(day - MONDAY_S / 86_400) % 7 >= 5
    return bright * (0.4 if weekend else 1.0)


def watch(
    anomalies: AnomalyDetector, traffic: Traffic, start_s: float, end_s: float, world: World = QUIET
) -> list[tuple[float, Anomaly]]:
    """Run from one time to another; return the anomalies that began, with their times."""
    found = []
    for at in range(int((end_s - start_s) / TICK_S)):
        now_s = start_s + (at + 1) * TICK_S
        begun, _ = anomalies.observe(traffic.tick(now_s, world), now_s)
        found += [(now_s, anomaly) for anomaly in begun]
    return found


def episodes(found: list[tuple[float, Anomaly]]) -> int:
    """Return how many alarms a person got: those that begin within an hour count as one."""
    last_s, count = -math.inf, 0
    for now_s, _ in found:
        count += now_s - last_s > 3600
        last_s = now_s
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weeks", type=int, default=6, help="quiet weeks, at least 5 (6)")
    parser.add_argument("--times", type=int, default=6, help="injections of each anomaly (6)")
    parser.add_argument("--rate", type=float, default=5.0, help="requests a second at noon (5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--series", type=Path, metavar="DIR", help="replay the series in DIR")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    if given.series:
        replay(given.series, given.json)
        return
    anomalies, traffic = AnomalyDetector(), Traffic(given.rate, given.seed)
    quiet = []
    for week in range(given.weeks):
        start_s = MONDAY_S + week * WEEK_S
        found = watch(anomalies, traffic, start_s, start_s + WEEK_S)
        quiet.append(episodes(found))
        print(f"week {week + 1}, no anomaly: {quiet[-1]} alarms", flush=True)
    start_s = MONDAY_S + given.weeks * WEEK_S
    rows = [inject(name, anomalies, traffic, start_s, given.times, given.seed) for name in KINDS]
    print(f"\n{'injected':34}{'detected':>9}{'median s':>10}{'worst s':>9}{'cause named':>13}")
    for row in rows:
        print(
            f"{row['kind']:34}{row['noticed']:>6}/{row['times']}{row['median_s']:>10.0f}"
            f"{row['worst_s']:>9.0f}{row['named']:>10}/{row['noticed']}"
        )
    noticed, times = sum(row["noticed"] for row in rows), sum(row["times"] for row in rows)
    print(
        f"\nrecall {noticed / times:.2f}, false alarms a week {np.mean(quiet[1:]):.2f} "
        f"(first week: {quiet[0]}), precision at one anomaly a week "
        f"{1 / (1 + np.mean(quiet[1:])):.2f}"
    )
    if given.json:
        document = {"quiet_weeks": quiet, "injected": rows}
        given.json.write_text(json.dumps(document, indent=1))


def inject(
    name: str, anomalies: AnomalyDetector, traffic: Traffic, start_s: float, times: int, seed: int
) -> dict:
    """Inject one kind at several hours of the week; each time for an hour, from a copy."""
    world, cause = KINDS[name]
    rng = np.random.default_rng(seed + 1)
    delays, named = [], 0
    for _ in range(times):
        own, others = copy.deepcopy(anomalies), copy.deepcopy(traffic)
        # The copies go on quietly for a while, at an hour of the first day.
        begin_s = start_s + float(rng.uniform(1, 23)) * 3600
        skip(own, others, start_s, begin_s)
        found = watch(own, others, begin_s, begin_s + 3600, world)
        if found:
            first_s = found[0][0]
            delays.append(first_s - begin_s)
            # Of those that began together, the one with the largest excess.
            told = max(
                (a for at, a in found if at <= first_s + TICK_S),
                key=lambda a: a.usd_per_h - a.usual_usd_per_h,
            )
            named += told.factors.cause == cause
    return {
        "kind": name,
        "times": times,
        "noticed": len(delays),
        "median_s": median(delays) if delays else math.nan,
        "worst_s": max(delays, default=math.nan),
        "named": named,
    }


def skip(anomalies: AnomalyDetector, traffic: Traffic, start_s: float, end_s: float) -> None:
    """Go on quietly for the last half hour before `end_s`."""
    watch(anomalies, traffic, max(start_s, end_s - 1800), end_s)


# -- real series

PER_S, USD_PER_H = 5.0, 50.0  # mean requests and spend of a series
SKIPPED_S = 2 * 86_400  # at the start, where nothing is known yet
STRICTNESS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)


class Recorder(AnomalyDetector):
    """A detector that records how strict it could be and still notice the total spend.

    That is for the curve: one run answers for every strictness. It takes a period for anomalous at
    once, where the detector waits for a second check.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.noticed: list[tuple[float, float]] = []

    def observe(
        self, totals: Mapping[tuple[str, str, str], Total], now_s: float
    ) -> tuple[list[Anomaly], list[str]]:
        """Process totals, as the detector does."""
        self.now_s = now_s
        return super().observe(totals, now_s)

    def _strength(self, series: _Series, usual: ExpectedSpend, window: _Window) -> float:
        strength = super()._strength(series, usual, window)
        if strength and series is self._series[ALL] and series.dispersion.is_known:
            self.noticed.append((self.now_s, strength))
        return strength


@dataclass(frozen=True)
class Found:
    """The alarms of one series, and those at each strictness, in seconds since 1970."""

    name: str
    windows: list[tuple[float, float]]
    weeks: float
    alarms: list[float]
    by_strictness: dict[float, list[float]]

    def counts(self, alarms: list[float]) -> tuple[int, int]:
        """Return the number of windows with an alarm, and of alarms outside all windows."""
        found = sum(any(a <= at <= b for at in alarms) for a, b in self.windows)
        return found, sum(not any(a <= at <= b for a, b in self.windows) for at in alarms)


def seconds(text: str) -> float:
    """Return a time of the benchmark's files in seconds since 1970."""
    return datetime.fromisoformat(text.split(".", maxsplit=1)[0]).replace(tzinfo=UTC).timestamp()


def replay_one(file: Path, windows: list[tuple[float, float]]) -> Found:
    """Replay one series."""
    with file.open() as lines:
        rows = [(seconds(row["timestamp"]), float(row["value"])) for row in csv.DictReader(lines)]
    step_s = float(np.median(np.diff([at for at, _ in rows])))
    mean = float(np.mean([max(0.0, value) for _, value in rows]))
    per_tick, usd = PER_S * TICK_S / mean, USD_PER_H / 3600 / PER_S
    ticks = max(1, round(step_s / TICK_S))
    rng, detector, requests, alarms = np.random.default_rng(1), Recorder(), 0.0, []
    for at, value in rows:
        for tick, count in enumerate(rng.poisson(max(0.0, value) * per_tick, ticks)):
            requests += float(count)
            now_s = at + tick * step_s / ticks
            total = Total(requests, requests, requests * usd)
            begun, _ = detector.observe({("route", "backend", "tenant"): total}, now_s)
            alarms += [now_s for anomaly in begun if anomaly.kind == ALL[0]]
    from_s = rows[0][0] + SKIPPED_S
    by_strictness: dict[float, list[float]] = {}
    for strictness in STRICTNESS:
        own, last_s = by_strictness.setdefault(strictness, []), -math.inf
        for now_s, most in detector.noticed:
            if most > strictness:
                if now_s > last_s + REST_S and now_s > from_s:
                    own.append(now_s)
                last_s = now_s
    return Found(
        "/".join(file.parts[-2:]),
        windows,
        (rows[-1][0] - from_s) / WEEK_S,
        [now_s for now_s in alarms if now_s > from_s],
        by_strictness,
    )


def replay(folder: Path, output: Path | None) -> None:
    """Replay all series of a folder that have marked windows; print and write what was found."""
    labels = json.loads((folder / "labels" / "combined_windows.json").read_text())
    files = [file for file in sorted(folder.glob("*/*.csv")) if "/".join(file.parts[-2:]) in labels]
    if not files:
        raise SystemExit(f"no series with marked windows in {folder}")
    marked = [
        [(seconds(a), seconds(b)) for a, b in labels["/".join(file.parts[-2:])]] for file in files
    ]
    print(f"{'series':52}{'windows found':>14}{'false alarms':>14}{'weeks':>7}")
    series = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for one in pool.map(replay_one, files, marked):
            hits, false = one.counts(one.alarms)
            print(
                f"{one.name:52}{hits:>11}/{len(one.windows)}{false:>14}{one.weeks:>7.1f}",
                flush=True,
            )
            series.append(one)
    weeks, windows = sum(one.weeks for one in series), sum(len(one.windows) for one in series)

    def told(name: str, counts: list[tuple[int, int]]) -> dict[str, float]:
        found, false = (sum(column) for column in zip(*counts, strict=True))
        print(f"{name:52}{found:>11}/{windows}{false / weeks:>14.2f} a week and series")
        return {"found": found, "windows": windows, "false_a_week": false / weeks}

    document: dict[str, object] = {
        "detector": told("the detector", [one.counts(one.alarms) for one in series])
    }
    for strictness in STRICTNESS:
        counts = [one.counts(one.by_strictness[strictness]) for one in series]
        document[str(strictness)] = told(f"curve: strictness {strictness}", counts)
    if output:
        output.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
