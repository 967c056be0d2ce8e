"""Replays real arrivals under several ways to set replicas: attainment, and replica-hours.

    python benchmarks/autoscaling.py FOLDER [--attain 0.95 0.99] [--headroom -0.3]

FOLDER has series of counts, as CSV with the columns timestamp and value, in the folders of the
Numenta Anomaly Benchmark (https://github.com/numenta/NAB, `data/`): taxi trips, requests to a load
balancer, tweets about companies. black-friday is a week of usual days and then a day with ten times
the calls from 09:00 to 15:00, as in the scenario of that name; its event is announced.

Each series is scaled so that its 99th percentile needs 20 replicas of four places; between its
points the rate is a straight line, and the calls of each minute are Poisson. Calls take half a
second. A decision at the end of a minute serves two minutes later. The first weeks are for the
forecast and do not count. A call is attained if it starts within a second: by Erlang's tail, with
Sakasegawa's approximation of the chance to wait, and not at all while there is a backlog.

    hpa         Kubernetes' rule on the utilization, with its tolerance of 10 % and its window of
                five minutes downwards; replicas that have not started count as idle
    scheduled   what each hour of the week needed in the weeks before, written down by a person
    predictive  the forecast (and the event) alone
    combined    what Tollway recommends
    oracle      the fewest replicas for the calls of each minute, which it knows in advance

Each runs at target utilizations from 0.05 to 0.98. The table has, for each, the fewest
replica-hours at which a share of the calls is attained, interpolated between targets.
"""

import argparse
import csv
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tollway.gateway.learning.known_events import KnownEvent
from tollway.gateway.scaling.advisor import BackendScaling, ScalingPlan
from tollway.gateway.scaling.calendar import Bounds, Calendar
from tollway.gateway.scaling.recommendation import Target

ROOT = Path(__file__).resolve().parent.parent
Floats = NDArray[np.float64]
TICK_S, SERVICE_S, PLACES = 60, 0.5, 4
LEAD, WINDOW = 2, 5  # in ticks
AT_P99, MOST = 20, 1000
WITHIN_S, PATIENCE_S = 1.0, 30.0
HEADROOM = -0.3  # the default of the setting
TARGETS = np.array([*np.arange(0.05, 0.45, 0.05), *np.arange(0.45, 0.95, 0.05), 0.98])
DAY = 1440
WEEK = 7 * DAY
SERIES = (
    ("taxi", "realKnownCause/nyc_taxi.csv", 70, 28),
    ("load balancer", "realAWSCloudwatch/elb_request_count_8c0756.csv", 14, 7),
    *(
        (f"tweets {name}", f"realTweets/Twitter_volume_{name}.csv", 55, 28)
        for name in ("AAPL", "GOOG", "CRM", "KO")
    ),
)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A series: calls at once in each minute, from `start_s`; those from `counted` on count."""

    name: str
    load: Floats
    start_s: float
    counted: int
    events: tuple[KnownEvent, ...] = ()


def target(utilization: float = 0.7) -> Target:
    """Return the target of the backend."""
    return Target(
        usual=Bounds(1, MOST),
        places=PLACES,
        utilization=utilization,
        wait_s=None,
        lead_s=LEAD * TICK_S,
        up_s=30.0,
        down_s=WINDOW * TICK_S,
    )


def drawn(
    name: str,
    shape: Floats,
    start_s: float,
    counted: int,
    events: tuple[KnownEvent, ...] = (),
    seed: int = 1,
) -> Arrivals:
    """Return a series whose rate is proportional to `shape`, by minute."""
    rate = shape * (AT_P99 * PLACES * 0.7 / SERVICE_S) / float(np.quantile(shape[counted:], 0.99))
    calls = np.random.default_rng(seed).poisson(rate * TICK_S)
    return Arrivals(name, calls * SERVICE_S / TICK_S, start_s, counted, events)


def read(name: str, path: Path, days: int, warm: int) -> Arrivals:
    """Return the last days of a file; the first `warm` of them do not count."""
    with path.open() as file:
        pairs = [
            (
                datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp(),
                float(row["value"]),
            )
            for row in csv.DictReader(file)
        ]
    times, values = np.array(sorted(pairs)).T
    start_s = float(max(times[0], times[-1] - days * 86_400) // 3600 * 3600 + 3600)
    minutes = np.arange(start_s, times[-1], TICK_S)
    return drawn(name, np.interp(minutes, times, values), start_s, warm * DAY)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def black_friday() -> Arrivals:
    """Return a usual week, and the day of the scenario."""
    text = (ROOT / "simulations" / "scenarios" / "black-friday.toml").read_text()
    workload = tomllib.loads(text)["workload"]
    (burst,) = workload["bursts"]
    start_s = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
    minute = np.arange(8 * DAY)
    shape = 1.0 + workload["swing"] * np.cos((minute / 60 - 14) * 2 * np.pi / 24)
    begin_s = start_s + (WEEK + 60 * burst["at_h"]) * 60
    event = KnownEvent(begin_s, begin_s + 3600 * burst["for_h"], float(burst["times"]))
    at_s = start_s + minute * 60
    shape = np.where((at_s >= event.start_s) & (at_s < event.end_s), event.factor * shape, shape)
    return drawn("black-friday", shape, start_s, WEEK, events=(event,))


def forecasts(one: Arrivals) -> tuple[Floats, Floats]:
    """Return the load of the whole forecast and of the event term at the end of each tick.

    By the product's own forecast, which learns as the series goes on; 0 where there is none.
    """
    plan = ScalingPlan(target(), Calendar("UTC", (), one.events))
    backend = BackendScaling(plan)
    usual, event = np.zeros(len(one.load)), np.zeros(len(one.load))
    for tick, load in enumerate(one.load):
        now_s = one.start_s + (tick + 1) * TICK_S
        backend.learn(load * TICK_S / SERVICE_S, now_s, TICK_S)
        expected = backend.expected(now_s)
        if expected is None:
            continue
        usual[tick] = expected.per_s * SERVICE_S
        near = plan.calendar.event(now_s, plan.target.lead_s)
        event[tick] = 0.0 if near is None else near.factor * expected.per_s * SERVICE_S
    return usual, event


def needed(load: Floats, targets: Floats) -> Floats:
    """Return the replicas for each load at each target utilization."""
    wanted: Floats = np.ceil(load[..., None] / (targets * PLACES) - 1e-9)
    return wanted


def combined(load: Floats, ahead: Sequence[Floats], targets: Floats) -> Floats:
    """Return what is recommended at the end of each tick: the highest term, damped, bounded.

    As `recommend` does it, for all targets at once. Ticks are longer than `up_s`, so a rise is
    recommended at once; a spike is no more than what was measured in a tick.
    """
    wanted = needed(np.maximum.reduce([load, *ahead]), targets)
    steady, decided = wanted[0], np.empty_like(wanted)
    for tick, now in enumerate(wanted):
        most = wanted[max(0, tick - WINDOW + 1) : tick + 1].max(axis=0)
        steady = np.maximum(np.minimum(steady, most), now)
        decided[tick] = steady
    return np.clip(decided, 1, MOST)


def hpa(load: Floats, targets: Floats) -> Floats:
    """Return what Kubernetes' rule decides at the end of each tick."""
    spec = np.full(len(targets), float(AT_P99))
    decided = np.empty((len(load), len(targets)))
    history, recent = [spec] * (LEAD + 1), [spec] * WINDOW
    for tick, now in enumerate(load):
        ready = np.minimum.reduce(history)
        ratio = np.minimum(now, ready * PLACES) / (spec * PLACES) / targets
        want = np.where(np.abs(ratio - 1.0) <= 0.1, spec, np.ceil(spec * ratio - 1e-9))
        recent = [*recent[1:], want]
        spec = np.where(want > spec, want, np.minimum(spec, np.maximum.reduce(recent)))
        spec = np.clip(spec, 1, MOST)
        decided[tick] = spec
        history = [*history[1:], spec]
    return decided


def scheduled(one: Arrivals) -> Floats:
    """Return a load for each minute: what its hour of the week had at most before."""
    hours = len(one.load) // 60
    by_hour = one.load[: hours * 60].reshape(hours, 60).mean(axis=1)
    warm = one.counted // 60
    table = np.array([by_hour[:warm][hour % 168 :: 168].max(initial=0.0) for hour in range(168)])
    if warm < 168 * 2:  # a single week: the hours of the day, of all days
        daily = [by_hour[:warm][hour % 24 :: 24].max(initial=0.0) for hour in range(168)]
        table = np.maximum(table, daily)
    load: Floats = table[(np.arange(len(one.load)) // 60) % 168]
    return load


def serving(decided: Floats) -> Floats:
    """Return the replicas that serve in each tick, from what was decided at the end of each."""
    before = np.concatenate([np.repeat(decided[:1], LEAD + 1, axis=0), decided])
    parts = [before[at : at + len(decided)] for at in range(LEAD + 1)]
    replicas: Floats = np.minimum.reduce(parts)
    return replicas


def attained(load: Floats, replicas: Floats) -> Floats:
    """Return the share of the calls of each tick that start within WITHIN_S."""
    places, calls = replicas * PLACES, load * TICK_S / SERVICE_S
    served, late = places * TICK_S / SERVICE_S, np.zeros(replicas.shape[1])
    backlogs = np.empty_like(replicas)
    for tick in range(len(load)):
        late = np.clip(late + calls[tick] - served[tick], 0.0, served[tick] * PATIENCE_S / TICK_S)
        backlogs[tick] = late
    busy = np.minimum(load[:, None] / places, 1.0)
    waits = busy ** (np.sqrt(2.0 * (places + 1.0)) - 1.0)
    room = np.maximum(places - load[:, None], 0.0)
    tail = waits * np.exp(-room * WITHIN_S / SERVICE_S)
    share: Floats = np.where((backlogs > 0.0) | (busy >= 1.0), 0.0, 1.0 - tail)
    return share


@dataclass(frozen=True, slots=True)
class Frontier:
    """The attained share of the calls and the replica-hours at each target, of one policy."""

    attained: Floats
    hours: Floats

    def hours_at(self, share: float) -> float:
        """Return the fewest hours at which a share is attained; nan if it never is."""
        order = np.argsort(self.hours)
        shares = np.maximum.accumulate(self.attained[order])
        if shares[-1] < share:
            return float("nan")
        return float(np.interp(share, shares, self.hours[order]))


def frontiers(one: Arrivals, headroom: float = HEADROOM) -> dict[str, Frontier]:
    """Return the frontier of each policy on a series."""
    usual, event = forecasts(one)
    plain = np.maximum(usual, event)
    prepared = [(1.0 + headroom) * usual, (1.0 + max(0.0, headroom)) * event]
    planned = np.clip(needed(scheduled(one), TARGETS), 1, MOST)
    runs = {
        "hpa": serving(hpa(one.load, TARGETS)),
        "scheduled": planned,
        "predictive": serving(np.clip(needed(plain, TARGETS), 1, MOST)),
        "combined": serving(combined(one.load, prepared, TARGETS)),
        "oracle": np.clip(needed(one.load, TARGETS), 1, MOST),
    }
    counted = one.load[one.counted :]
    return {
        name: Frontier(
            (attained(one.load, replicas)[one.counted :] * counted[:, None]).sum(axis=0)
            / counted.sum(),
            replicas[one.counted :].sum(axis=0) * TICK_S / 3600,
        )
        for name, replicas in runs.items()
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--attain", type=float, nargs="+", default=[0.95, 0.99])
    parser.add_argument("--headroom", type=float, default=HEADROOM, help="of `combined`")
    arguments = parser.parse_args()
    every = [read(name, arguments.folder / path, days, warm) for name, path, days, warm in SERIES]
    found = {one.name: frontiers(one, arguments.headroom) for one in [*every, black_friday()]}
    names = ("hpa", "scheduled", "predictive", "combined", "oracle")
    for share in arguments.attain:
        print(f"Replica-hours at which {share:.0%} of the calls start within {WITHIN_S:g} s:\n")
        print("| series | " + " | ".join(names) + " | combined / hpa | combined / oracle |")
        print("|---" * (len(names) + 3) + "|")
        for series, by_name in found.items():
            hours = {name: by_name[name].hours_at(share) for name in names}
            cells = [
                f"{hours[name]:.0f}" if hours[name] == hours[name] else "never" for name in names
            ]
            ratios = [f"{hours['combined'] / hours[name]:.2f}" for name in ("hpa", "oracle")]
            print(f"| {series} | " + " | ".join([*cells, *ratios]) + " |")
        print()
    print("At the default target of 0.7: attained, replica-hours:\n")
    at = int(np.argmin(np.abs(TARGETS - 0.7)))
    for series, by_name in found.items():
        print(series, *(f"{n} {f.attained[at]:.1%} {f.hours[at]:.0f};" for n, f in by_name.items()))


if __name__ == "__main__":
    main()
