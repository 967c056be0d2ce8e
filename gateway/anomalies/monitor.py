"""The spend monitor: records spend, runs the anomaly detector, and sends events.

Among several workers, the one that learns runs the detector on the sums over all workers. Anomalies
that start together, or while another is active, usually have one cause. One event reports the
narrowest anomaly that explains it and names the others.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from tollway.gateway.anomalies.detector import ALL, Anomaly, AnomalyDetector, Key, Total
from tollway.gateway.budgets.model import BudgetStatus, Scope
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.observability.aggregation import Family
from tollway.gateway.observability.events import EventLog
from tollway.gateway.observability.time_series import TimeSeries
from tollway.gateway.storage import snapshot_file

log = logging.getLogger("tollway.anomalies")

SAVE_S = 300.0
OWNER = 0.8  # smallest share of the excess at which a tenant or route explains an anomaly
_RANK = {"tenant": 0, "route": 1, "all": 2, "backend": 3}


class SpendMonitor:
    """Checks the spend every few seconds."""

    # The mutable state is the baselines, the budgets' spending at the last check, and whether an
    # active anomaly has been reported.

    def __init__(
        self,
        anomalies: AnomalyDetector,
        history: TimeSeries,
        *,
        looks: bool,
        families: Callable[[], Awaitable[list[Family]]],
        wallet: Reservations,
        events: EventLog,
        file: Path,
        wall: Callable[[], float],
    ) -> None:
        """`looks`: whether this worker detects anomalies; `file`: where it then saves its state."""
        self.anomalies = anomalies
        self.history = history
        self.looks = looks
        self._families = families
        self._wallet = wallet
        self._events = events
        self._file = file
        self._wall = wall
        self._spent: dict[str, tuple[float, int]] = {}
        self._told = False

    def restore(self) -> None:
        """Load the saved baselines. A damaged file is moved aside and reported."""
        try:
            parts, _ = snapshot_file.unpack(self._file.read_bytes())
            self.anomalies.load(parts["anomalies"])
            self.history.load(parts["history"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError) as exc:
            aside = self._file.with_suffix(".damaged")
            self._file.replace(aside)
            self._events.add("snapshot_damaged", "anomalies", f"{exc}; set aside as {aside}")

    def save(self) -> None:
        """Save the baselines."""
        if not self.looks:
            return
        parts = {"anomalies": self.anomalies.save(), "history": self.history.save()}
        try:
            snapshot_file.write(self._file, snapshot_file.pack(parts, self._wall()))
        except OSError as exc:
            self._events.add("snapshot_failed", "anomalies", f"not saved: {exc}")

    async def look(self) -> None:
        """Check once, and report anomalies that started or ended."""
        families = await self._families()
        now_s = self._wall()
        self.history.sample(families, now_s)
        if not self.looks:
            return
        totals = read(families)
        begun, _ = self.anomalies.observe(totals, now_s)
        left = self._left_s(now_s)
        if begun and not self._told:
            self._tell(begun, left)
        elif not self.anomalies.active and self._told:
            self._told = False
            self._events.add("spend_usual", "spend", "spend is as usual again")

    def _tell(self, begun: list[Anomaly], left_s: dict[str, float]) -> None:
        self._told = True
        main = narrowest(begun)
        touched = [status for status in self._wallet.status() if touches(status, main)]
        names = {status.budget.name for status in touched}
        runs_out = {name: seconds for name, seconds in left_s.items() if name in names}
        also = [other.about for other in begun if other is not main]
        text = str(main)
        for name, seconds in sorted(runs_out.items(), key=lambda item: item[1]):
            text += f"; budget {name} lasts {duration(seconds)} more at this rate"
        self._events.add(
            "spend_anomaly",
            main.about,
            text,
            cause=main.factors.cause,
            since_s=main.since_s,
            usd_per_h=main.usd_per_h,
            usual_usd_per_h=main.usual_usd_per_h,
            baseline=main.baseline,
            ratio=main.ratio,
            factors=asdict(main.factors),
            who=dict(main.who),
            also=also,
            budgets_last_s=runs_out,
        )

    def _left_s(self, now_s: float) -> dict[str, float]:
        """Return how long each budget lasts at the spending rate since the last check."""
        lasts = {}
        for status in self._wallet.status():
            name, spent = status.budget.name, status.spent_nano
            then_s, before = self._spent.get(name, (now_s, spent))
            self._spent[name] = (now_s, spent)
            if spent > before and now_s > then_s:
                left_nano = max(0, status.limit_nano - status.used_nano)
                lasts[name] = left_nano / (spent - before) * (now_s - then_s)
        return lasts


def read(families: Iterable[Family]) -> dict[Key, Total]:
    """Return the totals from the metrics, with usage in the unit that calls are charged by."""
    sums: dict[Key, dict[str, float]] = {}
    for family in families:
        unit = _UNITS.get(family["name"])
        if unit is None:
            continue
        for name, labels, value in family["samples"]:
            if name.endswith("_total"):
                key = (labels["route"], labels["backend"], labels["tenant"])
                figures = sums.setdefault(key, {})
                figures[unit] = figures.get(unit, 0.0) + value
    return {
        key: Total(
            figures.get("attempts", 0.0),
            figures.get("device_s", 0.0)
            or figures.get("tokens", 0.0)
            or figures.get("attempts", 0.0),
            figures.get("usd", 0.0),
        )
        for key, figures in sums.items()
    }


_UNITS = {
    "tollway_attempts": "attempts",
    "tollway_device_seconds": "device_s",
    "tollway_input_tokens": "tokens",
    "tollway_output_tokens": "tokens",
    "tollway_cost_usd": "usd",
}


def narrowest(begun: list[Anomaly]) -> Anomaly:
    """Return the anomaly that explains the rest: a tenant's with most of the excess, else a
    route's, else the total.
    """
    widest = max(begun, key=lambda a: a.usd_per_h - a.usual_usd_per_h)
    excess = widest.usd_per_h - widest.usual_usd_per_h

    def rank(anomaly: Anomaly) -> tuple[int, float]:
        own = anomaly.usd_per_h - anomaly.usual_usd_per_h
        small = anomaly.kind in {"tenant", "route"} and own < OWNER * excess
        return (len(_RANK) if small else _RANK[anomaly.kind], -own)

    return min(begun, key=rank)


def touches(status: BudgetStatus, anomaly: Anomaly) -> bool:
    """Return whether a budget's scope includes the series of an anomaly."""
    scope: Scope = status.budget.scope
    if (anomaly.kind, anomaly.name) == ALL:
        return True
    bound = getattr(scope, anomaly.kind)
    return bound in {None, anomaly.name}


def duration(seconds: float) -> str:
    """Return a human-readable duration."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
