"""The spend monitor: runs the anomaly detector on the spend of all workers, and sends events.

Among several workers, the one that learns runs it. Anomalies that start together, or while another
is active, usually have one cause. One event reports the narrowest anomaly that explains it and
names the others. If that was a tenant's, an anomaly of another tenant has another cause, and is
reported too: a tenant cannot hide another's by spending unusually itself.
"""

from collections.abc import Mapping
from dataclasses import asdict

from tollway.gateway.anomalies.activity import Activity
from tollway.gateway.anomalies.detector import ALL, Anomaly, AnomalyDetector, Key
from tollway.gateway.budgets.burn_rate import SpendRates, lasts_s
from tollway.gateway.budgets.model import BudgetStatus, Scope
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.observability.events import EventLog

OWNER = 0.8  # smallest share of the excess at which a tenant or route explains an anomaly
_RANK = {"tenant": 0, "route": 1, "all": 2, "backend": 3}


class SpendMonitor:
    """Checks the spend every few seconds."""

    # The mutable state is the budgets' spending at the last check, whether an active anomaly has
    # been reported, and which tenants it and those after it named, if it was a tenant's.

    def __init__(
        self,
        anomalies: AnomalyDetector,
        *,
        detects: bool,
        reservations: Reservations,
        events: EventLog,
    ) -> None:
        """`detects`: whether this worker detects anomalies."""
        self.anomalies = anomalies
        self.detects = detects
        self._reservations = reservations
        self._events = events
        self._rates = SpendRates(period_s=0.0)
        self._reported = False
        self._named: set[str] = set()

    def look(self, counts: Mapping[Key, Activity], now_s: float) -> None:
        """Check the counts of all workers, and report anomalies that started or ended."""
        if not self.detects:
            return
        totals = {key: count.total() for key, count in counts.items()}
        begun, _ = self.anomalies.observe(totals, now_s)
        left = self._left_s(now_s)
        if unexplained := self._unexplained(begun):
            self._report(unexplained, left)
        elif not self.anomalies.active and self._reported:
            self._reported = False
            self._named.clear()
            self._events.add("spend_usual", "spend", "spend is back at the baseline")

    def _unexplained(self, begun: list[Anomaly]) -> list[Anomaly]:
        """Return the anomalies that those reported before do not explain."""
        if not self._reported:
            return begun
        if not self._named:
            return []
        return [one for one in begun if one.kind == "tenant" and one.name not in self._named]

    def _report(self, begun: list[Anomaly], left_s: dict[str, float]) -> None:
        main = narrowest(begun)
        self._reported = True
        if main.kind == "tenant":
            self._named |= {one.name for one in begun if one.kind == "tenant"}
        touched = [status for status in self._reservations.status() if touches(status, main)]
        names = {status.budget.name for status in touched}
        runs_out = {name: seconds for name, seconds in left_s.items() if name in names}
        also = [other.about for other in begun if other is not main]
        text = str(main)
        for name, seconds in sorted(runs_out.items(), key=lambda item: item[1]):
            text += f"; at this rate budget {name} runs out in {duration(seconds)}"
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
        rates = (
            (status, self._rates.nano_per_s(status, now_s))
            for status in self._reservations.status()
        )
        return {status.budget.name: lasts_s(status, rate) for status, rate in rates if rate}


def narrowest(begun: list[Anomaly]) -> Anomaly:
    """Return the anomaly that explains the others.

    That is a tenant's if it has most of the excess, else a route's, else the total.
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
