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
    times = {at_s + target.down_s for at_s, _ in wanted if at_s + target.down_s > now_s}
    falls = sorted(at_s for at_s in times if at_s <= now_s + AHEAD_S)
    for at_s in falls:
        left = [count for since_s, count in wanted if since_s + target.down_s > at_s]
        steady = min(now.steady, max(left, default=now.wanted))
        replicas = max(steady, now.bounds.least)
        if replicas < now.replicas:
            by_damping = Coming(replicas, at_s - now_s, "damping")
            break
    else:
        by_damping = None
    by_calendar = _bounded(target, calendar, now, now_s)
    both = [one for one in (by_damping, by_calendar) if one is not None]
    return min(both, key=lambda one: one.in_s, default=None)


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
