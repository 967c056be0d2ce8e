"""The scaling advisor: keeps a recommendation for each backend up to date.

It reads the counters of all workers every few seconds, off the request path, and so each worker
comes to the same recommendation. It starts and stops nothing: an autoscaler reads the metric.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from tollway.gateway.learning.demand_forecast import Forecast
from tollway.gateway.scaling.calendar import Calendar
from tollway.gateway.scaling.load_meter import LoadMeter, Tick, Totals
from tollway.gateway.scaling.recommendation import Observed, Recommendation, Target, recommend

AHEAD_S = 60.0  # of the forecast, from `lead_s` ahead: its rates are those of whole hours


@dataclass(frozen=True, slots=True)
class ScalingPlan:
    """How a backend is scaled."""

    target: Target
    calendar: Calendar


@dataclass(slots=True)
class BackendScaling:
    """One backend: its plan, its load, its forecast, what was wanted, and the recommendation."""

    plan: ScalingPlan
    meter: LoadMeter = field(default_factory=LoadMeter)
    forecast: Forecast = field(default_factory=Forecast)
    wanted: deque[tuple[float, int]] = field(default_factory=deque)
    current: Recommendation | None = None

    def observe(self, now: Totals, now_s: float) -> None:
        """Take the counters at `now_s` (seconds since 1970), and recommend again."""
        tick = self.meter.observe(now, now_s)
        if tick is None:
            return
        self.forecast.update(tick.calls + tick.refused, now_s, tick.passed_s)
        if self.meter.is_known:
            self._recommend(tick, now_s)

    def _recommend(self, tick: Tick, now_s: float) -> None:
        target, meter, before = self.plan.target, self.meter, self.current
        observed = Observed(
            rate_per_s=meter.rate_per_s,
            service_s=meter.service_s,
            latest_per_s=(tick.calls + tick.refused) / tick.passed_s,
            interval_s=tick.passed_s,
            waiting=meter.waiting,
            is_failing=meter.is_failing,
            wanted=self.wanted,
            steady=None if before is None else before.steady,
            replicas=None if before is None else before.replicas,
        )
        self.current = recommend(
            target, observed, self._expected_per_s(now_s), self.plan.calendar, now_s
        )
        self.wanted.append((now_s, self.current.wanted))
        while self.wanted and self.wanted[0][0] <= now_s - max(target.up_s, target.down_s):
            self.wanted.popleft()

    def _expected_per_s(self, now_s: float) -> float | None:
        from_s = now_s + self.plan.target.lead_s
        expected = self.forecast.expected(from_s, from_s + AHEAD_S)
        return None if expected is None else expected / AHEAD_S


class ScalingAdvisor:
    """The recommendations of all backends that have a plan."""

    # The mutable state is that of each backend.

    def __init__(self, plans: Mapping[str, ScalingPlan]) -> None:
        self.backends: dict[str, BackendScaling] = {}
        self.revise(plans)

    def revise(self, plans: Mapping[str, ScalingPlan]) -> None:
        """Take the plans of another configuration; what was measured of a backend is kept."""
        for gone in self.backends.keys() - plans.keys():
            del self.backends[gone]
        for name, plan in plans.items():
            self.backends.setdefault(name, BackendScaling(plan)).plan = plan

    def observe(self, counted: Mapping[str, Totals], now_s: float) -> None:
        """Take the totals of each backend over all workers at `now_s` (seconds since 1970)."""
        for name, one in self.backends.items():
            one.observe(counted.get(name, Totals()), now_s)

    def replicas(self) -> dict[str, int]:
        """Return the recommended replicas of each backend whose load is known."""
        known = {name: one.current for name, one in self.backends.items()}
        return {name: one.replicas for name, one in known.items() if one is not None}

    def save(self) -> bytes:
        """Return the forecasts."""
        return orjson.dumps({name: one.forecast.save() for name, one in self.backends.items()})

    def load(self, state: bytes) -> None:
        """Load saved forecasts. Raises ValueError or KeyError if they are damaged."""
        saved = orjson.loads(state)
        for name in saved.keys() & self.backends.keys():
            self.backends[name].forecast.load(saved[name])
