"""The replicas that a backend needs: what each reason asks for, and which one decides.

Theory of operation. By Little's law the calls in progress are rate x duration; this is the load. A
replica serves some calls at once (its places). Each term turns a load into replicas, by the
utilisation that is the target and, if a wait is set, by Erlang's mean wait (M/M/c):

    measured  the load of the last minute
    forecast  the load expected `lead_s` ahead, when a replica started now serves its first call
    event     the load times the factor of an event of the calendar
    reserve   the median hour of the forecast plus a share of it that is always to be served
    spike     the load of the last few seconds, if it is more than the replicas can serve at once
              and more than chance explains (three standard deviations of a Poisson count)
    waiting   one replica, while calls wait for the first one

The highest term is wanted. It is damped as Kubernetes' HPA does it: the recommendation rises to the
least that was wanted throughout `up_s`, and falls to the most that was wanted within `down_s`, so a
load that varies around a boundary does not start and stop replicas. A spike is not damped upwards.
Last, the bounds of the calendar apply, then one replica for an accuracy floor that needs the
backend, and above all what the budget pays. A backend that is overloaded answers slowly, which
raises the load: its backlog asks for replicas too. A backend that fails answers fast, or is not
called: while most of its calls fail, the recommendation does not fall.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tollway.gateway.scaling.calendar import Bounds, Calendar
from tollway.gateway.scaling.queueing import memoryless_wait_s

AT_ONCE = frozenset({"spike", "waiting"})  # reasons that are not damped upwards
CHANCE = 3.0  # standard deviations: one interval in a thousand exceeds them by chance


@dataclass(frozen=True, slots=True)
class Target:
    """What replicas are to achieve. `places`: calls that a replica serves at once."""

    usual: Bounds
    places: int
    utilization: float
    wait_s: float | None
    lead_s: float
    up_s: float
    down_s: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What the forecast says, in calls per second, `lead_s` ahead.

    `headroom`: the share by which it is raised, or below 0 lowered, to prepare for it; an event is
    certain, and is not lowered. `reserve_per_s`: what is always to be served; 0 for nothing.
    """

    per_s: float
    headroom: float = 0.0
    reserve_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What was measured of a backend's calls.

    `rate_per_s` and `service_s` are means of the last minute. `latest_per_s` is the rate of the
    last `interval_s`, with refused calls. `waiting` calls have no place at present.
    `is_failing`: most calls fail. `wanted` is
    what was wanted before, as (time, replicas). `steady` and `replicas` are the last recommendation
    before and after its bounds; None if there was none. `cold`: calls that wait for the first
    replica. `holds_floor`: an accuracy floor needs the backend. `paid`: the replicas that a budget
    pays for; None if none limits them.
    """

    rate_per_s: float
    service_s: float
    latest_per_s: float = 0.0
    interval_s: float = 10.0
    waiting: float = 0.0
    is_failing: bool = False
    wanted: Sequence[tuple[float, int]] = ()
    steady: int | None = None
    replicas: int | None = None
    cold: float = 0.0
    holds_floor: bool = False
    paid: int | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """The replicas that one reason asks for, and its load in calls at once."""

    reason: str
    load: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The replicas to run. `reason` names the term, the damping or the bound that decided."""

    replicas: int
    reason: str
    terms: tuple[Term, ...]
    wanted: int
    steady: int
    bounds: Bounds


def recommend(
    target: Target,
    observed: Observed,
    expected: Expected | None,
    calendar: Calendar,
    now_s: float,
) -> Recommendation:
    """Return the replicas to run at `now_s` (seconds since 1970).

    `expected` is the forecast; None if there is none yet.
    """
    terms = _terms(target, observed, expected, calendar, now_s)
    highest = max(terms, key=lambda term: term.replicas)
    wanted = highest.replicas
    steady = _damped(target, observed, wanted, now_s)
    at_once = [term.replicas for term in terms if term.reason in AT_ONCE]
    steady = max([steady, *at_once])
    usual = calendar.bounds(target.usual, now_s, target.lead_s)
    bounds = _bounded(usual, observed)
    replicas = min(max(steady, bounds.least), bounds.most)
    if replicas < steady:
        reason = "max" if bounds.most == usual.most else "budget"
    elif replicas > steady:
        reason = "min" if bounds.least == usual.least else "floor"
    else:
        reason = highest.reason if steady == wanted else "damping"
    return Recommendation(replicas, reason, terms, wanted, steady, bounds)


def _bounded(bounds: Bounds, observed: Observed) -> Bounds:
    """Return the bounds with what a floor needs, and within what a budget pays."""
    least = max(bounds.least, 1) if observed.holds_floor else bounds.least
    most = max(bounds.most, least)
    if observed.paid is not None:
        most = min(most, observed.paid)
    return Bounds(min(least, most), most)


def _terms(
    target: Target,
    observed: Observed,
    expected: Expected | None,
    calendar: Calendar,
    now_s: float,
) -> tuple[Term, ...]:
    rates = {"measured": observed.rate_per_s}
    if expected is not None:
        rates["forecast"] = (1.0 + expected.headroom) * expected.per_s
        if expected.reserve_per_s:
            rates["reserve"] = expected.reserve_per_s
    event = calendar.event(now_s, target.lead_s)
    if event is not None and expected is not None:
        rates["event"] = (1.0 + max(0.0, expected.headroom)) * event.factor * expected.per_s
    elif event is not None and now_s < event.start_s:  # later, the measured rate has it already
        rates["event"] = event.factor * observed.rate_per_s
    loads = {reason: rate * observed.service_s for reason, rate in rates.items()}
    if _is_spike(target, observed):
        loads["spike"] = observed.latest_per_s * observed.service_s + observed.waiting
    if observed.cold:
        loads["waiting"] = 0.0
        rates["waiting"] = observed.cold  # one replica; its calls then tell how many are needed
    service_s = observed.service_s
    return tuple(
        # How long calls take is unknown after a restart, and while none succeeds; one replica
        # then shows it. With none, it would never be known.
        Term(
            reason,
            load,
            max(replicas_for(target, load, service_s), int(rates.get(reason, 0.0) > 0)),
        )
        for reason, load in loads.items()
    )


def _is_spike(target: Target, observed: Observed) -> bool:
    if observed.replicas is None:
        return False
    load = observed.latest_per_s * observed.service_s + observed.waiting
    usual = observed.rate_per_s * observed.interval_s
    by_chance = usual + CHANCE * math.sqrt(usual)
    calls = observed.latest_per_s * observed.interval_s
    return load > observed.replicas * target.places and calls > by_chance


def replicas_for(target: Target, load: float, service_s: float) -> int:
    """Return the fewest replicas with which a load meets the target; 0 for none.

    More replicas than the usual maximum are returned for the utilisation only, not for the wait.
    """
    fewest = math.ceil(load / (target.utilization * target.places) - 1e-9)
    if target.wait_s is None or not load:
        return fewest
    for replicas in range(fewest, target.usual.most):
        if memoryless_wait_s(load, service_s, replicas * target.places) <= target.wait_s:
            return replicas
    return max(fewest, target.usual.most)


def _damped(target: Target, observed: Observed, wanted: int, now_s: float) -> int:
    before = observed.steady
    if before is None:
        return wanted
    rises_to = min(_since(observed.wanted, now_s - target.up_s), default=wanted)
    falls_to = max(_since(observed.wanted, now_s - target.down_s), default=wanted)
    damped = max(min(before, max(falls_to, wanted)), min(rises_to, wanted))
    return max(damped, before) if observed.is_failing else damped


def _since(wanted: Sequence[tuple[float, int]], from_s: float) -> list[int]:
    return [replicas for time_s, replicas in wanted if time_s > from_s]
