"""How well the spend monitor detects anomalies: injected ones, and weeks without any.

    python benchmarks/anomalies.py                    # a minute
    python benchmarks/anomalies.py --weeks 8 --json anomalies.json

The gateway's own detector watches synthetic traffic (three backends, two routes, four tenants; days
and weeks with their seasons, Poisson arrivals, costs that vary from request to request) every ten
seconds. First come a cold start and quiet weeks, in which every alarm is false. Then, from what it
has learned in four weeks, one anomaly at a time is injected, at all hours: is it detected, after
how long, and is its cause named?
"""

import argparse
import copy
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).parent
if sys.path and Path(sys.path[0]).resolve() == HERE.resolve():
    # A script's folder comes first on the path, and gateway.py there hides the package.
    sys.path.pop(0)

from tollway.gateway.anomalies.detector import TICK_S, Anomaly, AnomalyDetector, Total  # noqa: E402

WEEK_S = 7 * 86_400
MONDAY_S = 4 * 86_400  # 1970 began on a Thursday
TENANTS = {"acme": 0.5, "globex": 0.3, "initech": 0.15, "hooli": 0.05}
ROUTES = {"chat": 0.7, "search": 0.3}
BACKENDS = {"rules": (0.5, 1.0, 1e-5), "small": (0.35, 0.05, 4e-3), "large": (0.15, 0.4, 7e-3)}
"""Share of the requests, usage of one, dollars per unit of usage."""


@dataclass(frozen=True)
class World:
    """What is multiplied while an anomaly lasts."""

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
    "one tenant runs away (x20)": (replace(QUIET, tenant=("initech", 20.0)), "volume"),
    "a retry storm on one route (x4)": (replace(QUIET, route=("search", 4.0)), "volume"),
    "all goes to the most expensive": (replace(QUIET, shares=(0.0, 0.0, 1.0)), "mix"),
    "the cheap backend is down": (replace(QUIET, shares=(0.0, 1.0, 2.0)), "mix"),
    "answers three times as long": (replace(QUIET, usage=(1.0, 3.0, 3.0)), "usage"),
    "a device at half its speed": (replace(QUIET, usage=(1.0, 1.0, 2.0)), "usage"),
    "the most expensive doubles its price": (replace(QUIET, price=(1.0, 1.0, 2.0)), "price"),
    "all prices up by 80 %": (replace(QUIET, price=(1.8, 1.8, 1.8)), "price"),
}


class Traffic:
    """Counts up what each (route, backend, tenant) has done."""

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
    """Run from one time to another; return what began, and when."""
    found = []
    for at in range(int((end_s - start_s) / TICK_S)):
        now_s = start_s + (at + 1) * TICK_S
        begun, _ = anomalies.observe(traffic.tick(now_s, world), now_s)
        found += [(now_s, anomaly) for anomaly in begun]
    return found


def episodes(found: list[tuple[float, Anomaly]]) -> int:
    """Return how many alarms a person had: what begins within an hour is one."""
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
    parser.add_argument("--times", type=int, default=6, help="each anomaly, at other hours (6)")
    parser.add_argument("--rate", type=float, default=5.0, help="requests a second at noon (5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    anomalies, traffic = AnomalyDetector(), Traffic(given.rate, given.seed)
    quiet = []
    for week in range(given.weeks):
        start_s = MONDAY_S + week * WEEK_S
        found = watch(anomalies, traffic, start_s, start_s + WEEK_S)
        quiet.append(episodes(found))
        print(f"week {week + 1}, nothing injected: {quiet[-1]} alarms", flush=True)
    start_s = MONDAY_S + given.weeks * WEEK_S
    rows = [inject(name, anomalies, traffic, start_s, given.times, given.seed) for name in KINDS]
    print(f"\n{'injected':34}{'noticed':>9}{'median s':>10}{'worst s':>9}{'cause named':>13}")
    for row in rows:
        print(
            f"{row['kind']:34}{row['noticed']:>6}/{row['times']}{row['median_s']:>10.0f}"
            f"{row['worst_s']:>9.0f}{row['named']:>10}/{row['noticed']}"
        )
    noticed, times = sum(row["noticed"] for row in rows), sum(row["times"] for row in rows)
    print(
        f"\nrecall {noticed / times:.2f}, false alarms a week {np.mean(quiet[1:]):.2f} "
        f"(the first week, cold: {quiet[0]}), precision at one anomaly a week "
        f"{1 / (1 + np.mean(quiet[1:])):.2f}"
    )
    if given.json:
        document = {"quiet_weeks": quiet, "injected": rows}
        given.json.write_text(json.dumps(document, indent=1))


def inject(
    name: str, anomalies: AnomalyDetector, traffic: Traffic, start_s: float, times: int, seed: int
) -> dict:
    """Inject one kind at several hours of the week; each time for half an hour, from a copy."""
    world, cause = KINDS[name]
    rng = np.random.default_rng(seed + 1)
    delays, named = [], 0
    for _ in range(times):
        own, others = copy.deepcopy(anomalies), copy.deepcopy(traffic)
        # The copies go on quietly for a while, at an hour of the first day.
        begin_s = start_s + float(rng.uniform(1, 23)) * 3600
        skip(own, others, start_s, begin_s)
        found = watch(own, others, begin_s, begin_s + 1800, world)
        if found:
            first_s = found[0][0]
            delays.append(first_s - begin_s)
            # The most telling of those that began together: the widest excess.
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


if __name__ == "__main__":
    main()
