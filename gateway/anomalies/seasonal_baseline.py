"""Seasonal baseline of a spend series: a robust estimate with daily and weekly seasons.

Spend is stored per hour for four weeks. The baseline of an hour is the median of the same hour of
earlier weeks, times the growth of the last day over the weeks before it. With less history it is
the median of the same hour of earlier days, and with less than a day the median of the last hour's
minutes. The less history there is, the higher spend must be to count as unusual, so that mornings
and Mondays are not anomalies. The baseline is interpolated between the middles of hours. Hours are
UTC; daylight saving changes affect two hours of the 8,760 in a year.
"""

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any

HOUR_S = 3600
DAY_H, WEEK_H, WEEKS = 24, 168, 4
KEPT_H = WEEKS * WEEK_H
MINUTES = 60  # length of the trailing baseline
LAG = 5  # newest minutes excluded from it: an anomaly must not become its own baseline
MINUTES_MIN = 15
GROWTH_MAX = 2.0  # largest growth of the last day over earlier weeks; more is an anomaly


@dataclass(frozen=True, slots=True)
class ExpectedSpend:
    """The baseline at a time, in dollars per second. `doubt` multiplies the anomaly ratio.

    `by` names the history that it is based on; empty if there is no baseline yet.
    """

    usd_per_s: float
    doubt: float
    by: str


UNKNOWN = ExpectedSpend(0.0, math.inf, "")


class SeasonalBaseline:
    """The baseline of one series."""

    # The mutable state is the hours, the current hour and minute, the last hour's minutes, the
    # cached baselines of the hours around now, and the growth.

    def __init__(self) -> None:
        self._hours: dict[int, float] = {}
        self._hour = -1
        self._sum = 0.0
        self._seen_s = 0.0
        self._minute = -1
        self._minute_sum = 0.0
        self._minutes: deque[float] = deque(maxlen=MINUTES)
        self._cached: dict[int, ExpectedSpend] = {}
        self._growth = 1.0
        self.mean_usd_per_s = 0.0
        """Mean spend of the hours kept; until there is one, of the hour so far."""

    def add(self, usd: float, now_s: float, passed_s: float) -> None:
        """Add the spend of the `passed_s` seconds before `now_s` (seconds since 1970)."""
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
        if not self._hours:
            self.mean_usd_per_s = self._sum / self._seen_s

    def _end_hour(self, hour: int) -> None:
        if self._seen_s > HOUR_S / 2:  # less than half an observed hour is too little
            self._hours[self._hour] = self._sum / self._seen_s
        self._hour, self._sum, self._seen_s = hour, 0.0, 0.0
        for old in [past for past in self._hours if past < hour - KEPT_H]:
            del self._hours[old]
        self._cached.clear()
        self._growth = self._grown()
        self._average()

    def _average(self) -> None:
        if self._hours:
            self.mean_usd_per_s = sum(self._hours.values()) / len(self._hours)

    def usual(self, now_s: float) -> ExpectedSpend:
        """Return the baseline at a time."""
        middle = now_s / HOUR_S - 0.5
        hour = math.floor(middle)
        before, after = self._at(hour), self._at(hour + 1)
        if not (before.by and after.by):
            return self._trailing()
        share = middle - hour
        rate = before.usd_per_s + share * (after.usd_per_s - before.usd_per_s)
        return ExpectedSpend(rate, max(before.doubt, after.doubt), before.by)

    def _at(self, hour: int) -> ExpectedSpend:
        expected = self._cached.get(hour)
        if expected is None:
            expected = self._cached[hour] = self._look(hour)
        return expected

    def _look(self, hour: int) -> ExpectedSpend:
        weeks = self._earlier(hour, WEEK_H, WEEKS)
        if len(weeks) >= 2:
            return ExpectedSpend(
                median(weeks) * self._growth, 1.0, "the same hour of earlier weeks"
            )
        if weeks:
            return ExpectedSpend(weeks[0] * self._growth, 4 / 3, "the same hour of last week")
        days = self._earlier(hour, DAY_H, WEEK_H // DAY_H)
        if days and median(days) > 0:  # the first call after idle days is no anomaly
            return ExpectedSpend(median(days), 2.0, "the same hour of earlier days")
        return UNKNOWN

    def _earlier(self, hour: int, step: int, count: int) -> list[float]:
        earlier = (self._hours.get(hour - step * back) for back in range(1, count + 1))
        return [value for value in earlier if value is not None]

    def _grown(self) -> float:
        """Return the growth of the last day over the same hours of earlier weeks, within bounds."""
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
        """Load saved hours. Raises ValueError or KeyError if they are damaged."""
        pairs = zip(state["hours"], state["usd_per_s"], strict=True)
        self._hours = {int(hour): float(rate) for hour, rate in pairs}
        self._cached.clear()
        self._average()
