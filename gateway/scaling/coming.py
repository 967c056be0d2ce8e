"""What is coming: the next time at which fewer replicas will be recommended, seen beforehand.

If the load stays as it is, the recommendation falls when what was wanted at a busier time leaves
the window of `down_s`, and when the calendar's bounds fall. Whoever looks can prepare for it, or
keep the replicas by raising `min`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tollway.gateway.scaling.calendar import Calendar
from tollway.gateway.scaling.recommendation import Recommendation, Target

AHEAD_S, STEP_S = 3600.0, 60.0  # how far it looks, and how finely at the calendar


@dataclass(frozen=True, slots=True)
class Coming:
    """Fewer replicas, `in_s` seconds from now; `reason` is `damping` or `max`."""

    replicas: int
    in_s: float
    reason: str


def coming(
    target: Target,
    calendar: Calendar,
    now: Recommendation,
    wanted: Sequence[tuple[float, int]],
    now_s: float,
) -> Coming | None:
    """Return the next fall of a recommendation within AHEAD_S; None if there is none.

    `wanted` is what was wanted, as (time, replicas), up to now.
    """
    falls = (_damped(target, now, wanted, now_s), _bounded(target, calendar, now, now_s))
    return min([one for one in falls if one], key=lambda one: one.in_s, default=None)


def _damped(
    target: Target, now: Recommendation, wanted: Sequence[tuple[float, int]], now_s: float
) -> Coming | None:
    leaving: dict[float, int] = {}
    for since_s, count in wanted:
        at_s = since_s + target.down_s
        leaving[at_s] = max(count, leaving.get(at_s, count))
    # From the last time to the first, so what is left is known without another pass over a window
    # that may be a day long.
    found, left = None, None
    for at_s in sorted(leaving, reverse=True):
        if at_s <= now_s:
            break
        steady = min(now.steady, now.wanted if left is None else left)
        replicas = max(steady, now.bounds.least)
        if replicas < now.replicas and at_s <= now_s + AHEAD_S:
            found = Coming(replicas, at_s - now_s, "damping")
        left = max(leaving[at_s], left or 0)
    return found


def _bounded(
    target: Target, calendar: Calendar, now: Recommendation, now_s: float
) -> Coming | None:
    if not calendar.schedule:
        return None
    # Whole minutes: schedules change at them.
    at_s = now_s - now_s % STEP_S + STEP_S
    while at_s <= now_s + AHEAD_S:
        most = calendar.bounds(target.usual, at_s, target.lead_s).most
        if most < now.replicas:
            return Coming(most, at_s - now_s, "max")
        at_s += STEP_S
    return None
