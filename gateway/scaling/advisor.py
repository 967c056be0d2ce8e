"""The scaling advisor: keeps a recommendation for each backend up to date.

It reads the counters of all workers every few seconds, off the request path, and so each worker
comes to the same recommendation. It starts and stops nothing: an autoscaler reads the metric, or
the scaler (`scaler.py`) acts on it.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import orjson

from tollway.gateway.learning.demand_forecast import Forecast
from tollway.gateway.learning.known_events import factor_at
from tollway.gateway.scaling.calendar import Calendar
from tollway.gateway.scaling.coming import Coming, coming
from tollway.gateway.scaling.load_meter import LoadMeter, Tick, Totals
from tollway.gateway.scaling.recommendation import (
    Expected,
    Observed,
    Recommendation,
    Target,
    recommend,
)

SMOOTH_S = 3600.0  # around the time that is forecast: its rates are those of whole hours
AGE_WEEKS = 2.5  # mean age of what a forecast of four weeks is made of
ERROR_HALF_LIFE_S = 3600.0  # a forecast is off when it is for hours


@dataclass(frozen=True, slots=True)
class ScalingPlan:
    """How a backend is scaled.

    `headroom` and `growth` (in a week): shares by which the forecast is raised; `peak`: by which
    the median hour is, to be served at any time; None for no such reserve. `replica_nano_per_hour`:
    what a replica costs; `budget` pays for it. `floor_routes` need the backend for their accuracy
    floors. `wait_usd_per_hour`: what it costs that a call waits for the first replica.
    """

    target: Target
    calendar: Calendar
    headroom: float = 0.0
    growth: float = 0.0
    peak: float | None = None
    replica_nano_per_hour: int | None = None
    budget: str = ""
    floor_routes: tuple[str, ...] = ()
    wait_usd_per_hour: float = 0.0


@dataclass(slots=True)
class BackendScaling:
    """One backend: its plan, its load, its forecast, what was wanted, and the recommendation."""

    plan: ScalingPlan
    meter: LoadMeter = field(default_factory=LoadMeter)
    forecast: Forecast = field(default_factory=Forecast)
    wanted: deque[tuple[float, int]] = field(default_factory=deque)
    current: Recommendation | None = None
    coming: Coming | None = None
    forecast_error: float | None = None
    zero_s: float = -math.inf

    def observe(
        self, now: Totals, now_s: float, *, is_whole: bool = True, paid: int | None = None
    ) -> None:
        """Take the counters at `now_s` (seconds since 1970), and recommend again.

        `is_whole`: no calls are missing. `paid`: the replicas that the budget pays for.
        """
        tick = self.meter.observe(now, now_s)
        if tick is None:
            return
        self.learn(tick.calls + tick.refused, now_s, tick.passed_s)
        if self.meter.is_known:
            self._compare(tick, now_s)
            self._recommend(tick, now_s, is_whole=is_whole, paid=paid)

    def learn(self, calls: float, now_s: float, passed_s: float) -> None:
        """Have the forecast learn the calls of the `passed_s` seconds before `now_s`."""
        # Of an event, the usual calls are learned: next week there will be none.
        usual = 1.0 / factor_at(self.plan.calendar.events, now_s)
        self.forecast.update(calls * usual, now_s, passed_s)

    def _compare(self, tick: Tick, now_s: float) -> None:
        """Compare the forecast for the present hour, made of earlier ones, with the calls."""
        usual_per_s = self._usual_per_s(now_s)
        if usual_per_s is None:
            self.forecast_error = None
            return
        per_s = usual_per_s * factor_at(self.plan.calendar.events, now_s)
        is_s = self.meter.rate_per_s
        highest = max(per_s, is_s)
        error = abs(is_s - per_s) / highest if highest else 0.0
        if self.forecast_error is None:
            self.forecast_error = error
        fresh = -math.expm1(-tick.passed_s * math.log(2) / ERROR_HALF_LIFE_S)
        self.forecast_error += fresh * (error - self.forecast_error)

    def _recommend(self, tick: Tick, now_s: float, *, is_whole: bool, paid: int | None) -> None:
        target, meter, before = self.plan.target, self.meter, self.current
        observed = Observed(
            rate_per_s=meter.rate_per_s,
            service_s=meter.service_s,
            latest_per_s=(tick.calls + tick.refused) / tick.passed_s,
            interval_s=tick.passed_s,
            waiting=meter.waiting,
            is_failing=meter.is_failing or not is_whole,
            wanted=self.wanted,
            steady=None if before is None else before.steady,
            replicas=None if before is None else before.replicas,
            cold=meter.cold,
            holds_floor=bool(self.plan.floor_routes),
            paid=paid,
        )
        self.current = recommend(target, observed, self.expected(now_s), self.plan.calendar, now_s)
        self.wanted.append((now_s, self.current.wanted))
        while self.wanted and self.wanted[0][0] <= now_s - max(target.up_s, target.down_s):
            self.wanted.popleft()
        if not self.current.replicas:
            self.zero_s = now_s
        self.coming = coming(target, self.plan.calendar, self.current, self.wanted, now_s)

    def expected(self, now_s: float) -> Expected | None:
        """Return what is expected `lead_s` ahead; None if that is not known yet."""
        plan = self.plan
        usual_per_s = self._usual_per_s(now_s + plan.target.lead_s)
        if usual_per_s is None:
            return None
        grown = (1.0 + plan.growth) ** AGE_WEEKS
        reserve_per_s = 0.0
        if plan.peak is not None:
            reserve_per_s = (1.0 + plan.peak) * grown * self.forecast.median_per_s
        return Expected(grown * usual_per_s, plan.headroom, reserve_per_s)

    def _usual_per_s(self, time_s: float) -> float | None:
        """Return the rate that is usual at a time; hours are joined, for they are no steps."""
        calls = self.forecast.expected(time_s - SMOOTH_S / 2, time_s + SMOOTH_S / 2)
        return None if calls is None else calls / SMOOTH_S


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

    def observe(
        self,
        counted: Mapping[str, Totals],
        now_s: float,
        *,
        is_whole: bool = True,
        paid: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Take the totals of each backend over all workers at `now_s` (seconds since 1970).

        `is_whole`: no gateway's calls are missing. `paid`: the replicas that budgets pay for.
        """
        for name, one in self.backends.items():
            one.observe(counted.get(name, Totals()), now_s, is_whole=is_whole, paid=paid.get(name))

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
