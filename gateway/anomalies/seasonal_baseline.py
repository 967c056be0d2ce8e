"""What a series of spend usually is at this time: a robust baseline with daily and weekly seasons.

Spend is kept by the hour, for four weeks. What is usual at an hour is the median of the same hour
of earlier weeks, times how the last day compared with the weeks before it; with less history the
median of the same hour of earlier days; with less than a day that of the last hour's minutes. The
less is known, the further above it spend must be before that says anything: mornings and Mondays
are no anomalies. Between the middles of hours it is interpolated. Hours are UTC; where clocks
change, so do two of the 8,760.
"""

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any

HOUR_S = 3600
DAY_H, WEEK_H, WEEKS = 24, 168, 4
KEPT_H = WEEKS * WEEK_H
MINUTES = 60  # of the trailing baseline
LAG = 5  # its newest minutes are left out: an anomaly must not be its own baseline
MINUTES_MIN = 15
GROWTH_MAX = 2.0  # of the last day over the same days before: more is an anomaly and not growth


@dataclass(frozen=True, slots=True)
class ExpectedSpend:
    """What is usual now, in dollars a second; `doubt` multiplies the ratio that is unusual.

    `by` says what it was taken from; empty where nothing can be said yet.
    """

    usd_per_s: float
    doubt: float
    by: str


UNKNOWN = ExpectedSpend(0.0, math.inf, "")


class SeasonalBaseline:
    """The baseline of one series."""

    # The mutable state is the hours (NaN where nothing was running), the hour and minute under way,
    # the last hour's minutes, and what was found for the hours around now.

    def __init__(self) -> None:
        self._hours: dict[int, float] = {}
        self._hour = -1
        self._sum = 0.0
        self._seen_s = 0.0
        self._minute = -1
        self._minute_sum = 0.0
        self._minutes: deque[float] = deque(maxlen=MINUTES)
        self._found: dict[int, ExpectedSpend] = {}
        self._growth = 1.0

    def add(self, usd: float, now_s: float, passed_s: float) -> None:
        """Count what was spent in the `passed_s` seconds before `now_s` (seconds since 1970)."""
        hour, minute = int(now_s // HOUR_S), int(now_s // 60)
        if hour != self._hour:
            self._end_hour(hour)
        if minute != self._minute:
            if self._minute >= 0:
                self._minutes.append(self._minute_sum / 60)
            self._minute, self._minute_sum = minute, 0.0
        self._sum += usd
        self._seen_s += passed_s
        self._minute_sum += usd

    def _end_hour(self, hour: int) -> None:
        if self._seen_s > HOUR_S / 2:  # an hour of which less was seen tells too little
            self._hours[self._hour] = self._sum / self._seen_s
        self._hour, self._sum, self._seen_s = hour, 0.0, 0.0
        for old in [kept for kept in self._hours if kept < hour - KEPT_H]:
            del self._hours[old]
        self._found.clear()
        self._growth = self._grown()

    def usual(self, now_s: float) -> ExpectedSpend:
        """Return what is usual at a time."""
        middle = now_s / HOUR_S - 0.5
        hour = math.floor(middle)
        before, after = self._at(hour), self._at(hour + 1)
        if not (before.by and after.by):
            return self._trailing()
        share = middle - hour
        rate = before.usd_per_s + share * (after.usd_per_s - before.usd_per_s)
        return ExpectedSpend(rate, max(before.doubt, after.doubt), before.by)

    def _at(self, hour: int) -> ExpectedSpend:
        found = self._found.get(hour)
        if found is None:
            found = self._found[hour] = self._look(hour)
        return found

    def _look(self, hour: int) -> ExpectedSpend:
        weeks = self._earlier(hour, WEEK_H, WEEKS)
        if len(weeks) >= 2:
            return ExpectedSpend(
                median(weeks) * self._growth, 1.0, "the same hour of earlier weeks"
            )
        if weeks:
            return ExpectedSpend(weeks[0] * self._growth, 4 / 3, "the same hour of last week")
        days = self._earlier(hour, DAY_H, WEEK_H // DAY_H)
        if days and median(days) > 0:  # after days at rest the first call is no anomaly
            return ExpectedSpend(median(days), 2.0, "the same hour of earlier days")
        return UNKNOWN

    def _earlier(self, hour: int, step: int, count: int) -> list[float]:
        found = (self._hours.get(hour - step * back) for back in range(1, count + 1))
        return [value for value in found if value is not None]

    def _grown(self) -> float:
        """Return how the last day compares with the same hours of earlier weeks, within bounds."""
        actual = usual = 0.0
        for hour in range(self._hour - DAY_H, self._hour):
            weeks = self._earlier(hour, WEEK_H, WEEKS)
            if weeks and hour in self._hours:
                actual += self._hours[hour]
                usual += median(weeks)
        if not usual:
            return 1.0
        return min(GROWTH_MAX, max(1 / GROWTH_MAX, actual / usual))

    def _trailing(self) -> ExpectedSpend:
        minutes = list(self._minutes)[:-LAG]
        if len(minutes) < MINUTES_MIN or median(minutes) <= 0:
            return UNKNOWN
        return ExpectedSpend(median(minutes), 8 / 3, "the last hour")

    def save(self) -> dict[str, Any]:
        """Return the hours."""
        return {"hours": list(self._hours), "usd_per_s": list(self._hours.values())}

    def load(self, state: dict[str, Any]) -> None:
        """Take saved hours; ValueError or KeyError where they are damaged."""
        pairs = zip(state["hours"], state["usd_per_s"], strict=True)
        self._hours = {int(hour): float(rate) for hour, rate in pairs}
        self._found.clear()
