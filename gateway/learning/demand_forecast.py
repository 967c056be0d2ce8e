"""Forecasts the number of future requests from the same hours of earlier weeks and days.

Requests are counted per hour (UTC) for four weeks. The forecast for an hour of the week is the mean
of that hour in earlier weeks, or without a known week the mean of that hour on earlier days. There
is no forecast until every hour of the day was observed once: twenty seconds of traffic say nothing
about a day. Hours without requests count as zero. Hours in which no gateway ran do not count.
"""

import itertools
import statistics
from typing import Any

HOUR_S = 3600
DAY_H, WEEK_H, WEEKS = 24, 168, 4
KEPT_H = WEEKS * WEEK_H
GAP_S = 600.0  # longest time between two counts; after a longer gap, no gateway was counting


class Forecast:
    """Seasonal demand forecast of one series of requests."""

    # The mutable state is the mean rate of each observed hour, the current hour, and the cumulative
    # requests of an average week up to each of its hours (empty: not known yet).

    def __init__(self) -> None:
        self._hours: dict[int, float] = {}
        self._hour = -1
        self._count = 0.0
        self._seen_s = 0.0
        self._week: list[float] = []

    def update(self, requests: float, now_s: float, passed_s: float) -> None:
        """Count the requests of the `passed_s` seconds before `now_s` (seconds since 1970)."""
        if passed_s > GAP_S:
            return
        hour, second = divmod(now_s, HOUR_S)
        if hour != self._hour:
            before = max(0.0, 1.0 - second / passed_s)  # share that fell into the previous hour
            self._count += before * requests
            self._seen_s += before * passed_s
            self._end_hour(int(hour))
            requests, passed_s = requests - before * requests, passed_s - before * passed_s
        self._count += requests
        self._seen_s += passed_s

    def _end_hour(self, hour: int) -> None:
        if self._seen_s > HOUR_S / 2:  # less than half an observed hour is too little
            self._hours[self._hour] = self._count / self._seen_s
        self._hour, self._count, self._seen_s = hour, 0.0, 0.0
        for old in [past for past in self._hours if past < hour - KEPT_H]:
            del self._hours[old]
        self._learn()

    def _learn(self) -> None:
        """Compute the average week (100 us, once an hour)."""
        by_week: dict[int, list[float]] = {}
        by_day: dict[int, list[float]] = {}
        for hour, rate in self._hours.items():
            by_week.setdefault(hour % WEEK_H, []).append(rate)
            by_day.setdefault(hour % DAY_H, []).append(rate)
        if len(by_day) < DAY_H:
            self._week = []
            return
        rates = [_mean(by_week.get(hour) or by_day[hour % DAY_H]) for hour in range(WEEK_H)]
        self._week = [0.0, *itertools.accumulate(rate * HOUR_S for rate in rates)]

    @property
    def known(self) -> bool:
        """Whether a whole day has been observed."""
        return bool(self._week)

    @property
    def median_per_s(self) -> float:
        """The rate of the median hour of the average week, per second; 0 if it is not known."""
        week = self._week
        rates = [later - before for before, later in itertools.pairwise(week)]
        return statistics.median(rates) / HOUR_S if rates else 0.0

    def expected(self, from_s: float, to_s: float) -> float | None:
        """Return the requests expected between two times; None until a whole day was observed."""
        if not self._week:
            return None
        return max(0.0, self._until(to_s) - self._until(from_s))

    def _until(self, time_s: float) -> float:
        """Return the requests expected from the start of hour 0 to a time."""
        hours, second = divmod(time_s, HOUR_S)
        weeks, hour = divmod(int(hours), WEEK_H)
        week, share = self._week, second / HOUR_S
        within = week[hour] + share * (week[hour + 1] - week[hour])
        return weeks * week[-1] + within

    def save(self) -> dict[str, Any]:
        """Return the hours."""
        return {"hours": list(self._hours), "per_s": list(self._hours.values())}

    def load(self, state: dict[str, Any]) -> None:
        """Load saved hours. Raises ValueError or KeyError if they are damaged."""
        pairs = zip(state["hours"], state["per_s"], strict=True)
        self._hours = {int(hour): float(rate) for hour, rate in pairs}
        self._learn()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
