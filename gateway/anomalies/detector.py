"""Detects unusual spend and reports its cause, its contributors and its start.

Every few seconds, the total spend and the spend of each tenant, route and backend over the last 1,
5 and 15 minutes, and every five minutes over the last half hour, 1, 3 and 6 hours, are compared
with the baseline for this time (`seasonal_baseline`). Spend is anomalous if it exceeds the baseline

    by a ratio, and by an amount worth a person's attention,
    by more than chance: requests arrive and cost at random, so the variance of spend over a period
      is about twice the spend times the cost-weighted mean cost of a request,
    by more than the series strays by itself at this time scale (`dispersion`; until that is known,
      by a larger ratio), in dollars or in dollars per request.

Dollars per request stray less than dollars, because requests come in bursts. So a higher price or
longer answers are found sooner than more requests. Dollars over minutes must be unusual in two
consecutive checks.

One burst is one alarm: spend that rises again within hours of an anomaly continues it silently,
unless it is twice as high. The cause is found by comparing the backends' activity with their usual
activity (`attribution`).

The detector is pure: it maps totals and the time to findings.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

import orjson

from tollway.gateway.anomalies.attribution import Contribution, Factors, decompose
from tollway.gateway.anomalies.dispersion import MULTIPLES, Dispersion, log_ratio
from tollway.gateway.anomalies.seasonal_baseline import ExpectedSpend, SeasonalBaseline

TICK_S = 10.0
SHORT, MIDDLE, LONG = 6, 30, 90  # ticks: a minute, five, a quarter of an hour
BUCKET_S = 300
HOURS = tuple(scale_s for scale_s in MULTIPLES if scale_s > LONG * TICK_S)  # in buckets
BUCKETS = max(HOURS) // BUCKET_S + 1  # with the one that is being filled
CHANCE = 6.0  # standard deviations: one in a billion, with thousands of checks per day
FADE_S = 6 * 3600.0  # half-life of the usual composition of requests
OVER = 1.2  # an anomaly ends after CALM ticks below this multiple of the baseline
CALM = 30
REST_S = 6 * 3600.0  # after an anomaly: spend that rises again belongs to it,
AGAIN = 2.0  # unless it is this many times as high
WHO_MAX = 3  # contributors named

ALL = ("all", "")
Key = tuple[str, str, str]
"""(route, backend, tenant)"""


@dataclass(frozen=True, slots=True)
class Total:
    """Totals of a key since the start: calls, usage in its unit, dollars."""

    requests: float
    usage: float
    usd: float


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Unusual spend; rates are in dollars per hour."""

    kind: str  # all, tenant, route or backend
    name: str
    since_s: float
    usd_per_h: float
    usual_usd_per_h: float
    baseline: str
    factors: Factors
    who: tuple[tuple[str, float], ...]  # tenants (for a tenant: routes) with shares of the excess

    @property
    def about(self) -> str:
        """Description of the series that spends."""
        return f"{self.kind} {self.name}" if self.name else "the gateway"

    @property
    def ratio(self) -> float:
        """Spend as a multiple of the baseline."""
        return self.usd_per_h / self.usual_usd_per_h if self.usual_usd_per_h else math.inf

    @property
    def cause(self) -> str:
        """The factor that explains most of the anomaly."""
        return self.factors.cause

    def __str__(self) -> str:
        """Return a one-sentence description."""
        who = ", ".join(f"{name} {share:.0%}" for name, share in self.who)
        times = f"{self.ratio:.1f} times" if math.isfinite(self.ratio) else "above"
        return (
            f"{self.about} spends ${self.usd_per_h:,.2f} per hour, {times} the baseline of "
            f"${self.usual_usd_per_h:,.2f} ({self.baseline}); cause: {_CAUSES[self.factors.cause]} "
            f"(x{getattr(self.factors, self.factors.cause):.2f}){'; by ' if who else ''}{who}"
        )


_CAUSES = {
    "volume": "more requests",
    "mix": "more requests go to expensive backends",
    "usage": "requests use more tokens or device time",
    "price": "the price of usage rose",
}


@dataclass(slots=True)
class _Bucket:
    """Five minutes: what was spent and what was expected, in dollars, and by which keys."""

    number: int
    usd: float = 0.0
    usual_usd: float = 0.0
    time_s: float = 0.0
    parts: dict[Key, Total] = field(default_factory=dict)

    def add(self, parts: Mapping[Key, Total], usd: float, usual_usd: float, time_s: float) -> None:
        """Add a tick."""
        self.usd += usd
        self.usual_usd += usual_usd
        self.time_s += time_s
        for key, total in parts.items():
            before = self.parts.get(key)
            self.parts[key] = total if before is None else _sum(before, total)


@dataclass(frozen=True, slots=True)
class _Window:
    """A period that has just ended: spend and baseline in dollars, and the activity in it."""

    scale_s: int
    time_s: float
    usd: float
    usual_usd: float
    parts: Sequence[Mapping[Key, Total]]


@dataclass(slots=True)
class _Series:
    """One tenant, route or backend.

    `rests_until_s`: until when spend that rises again is no news. `told_usd_per_h`: the spend of
    the anomaly that was reported last. `silent`: the active anomaly continues that one.
    """

    seasons: SeasonalBaseline = field(default_factory=SeasonalBaseline)
    dispersion: Dispersion = field(default_factory=Dispersion)
    dispersion_per_request: Dispersion = field(default_factory=Dispersion)
    buckets: deque[_Bucket] = field(default_factory=lambda: deque(maxlen=BUCKETS))
    minute: int = -1
    rests_until_s: float = -math.inf
    told_usd_per_h: float = 0.0
    silent: bool = False
    ticks: deque[dict[Key, Total]] = field(default_factory=lambda: deque(maxlen=LONG))
    usd: deque[float] = field(default_factory=lambda: deque(maxlen=LONG))
    usually: dict[str, Contribution] = field(default_factory=dict)
    who: dict[str, float] = field(default_factory=dict)
    hits: int = 0
    calm: int = 0
    anomaly: Anomaly | None = None


class AnomalyDetector:
    """Watches the spend of every tenant, route and backend."""

    # The mutable state is the series and the last totals.

    def __init__(
        self, *, ratio: float = 1.3, min_usd_per_h: float = 1.0, strictness: float = 1.0
    ) -> None:
        """Set the thresholds.

        `ratio`: smallest multiple of the baseline, and `min_usd_per_h`: smallest excess over the
        baseline, that raise an alert. `strictness` multiplies what a series must exceed of its own
        dispersion: above 1 there are fewer alarms, and fewer anomalies are found.
        """
        if not (ratio > 1 and min_usd_per_h >= 0 and strictness > 0):
            raise ValueError(f"ratio {ratio}, {min_usd_per_h} USD per hour, {strictness}")
        self._ratio, self._min_usd_per_s = ratio, min_usd_per_h / 3600
        self._strictness = strictness
        self._series: dict[tuple[str, str], _Series] = defaultdict(_Series)
        self._last: dict[Key, Total] = {}
        self._last_s = math.nan

    @property
    def active(self) -> list[Anomaly]:
        """Active anomalies."""
        return [s.anomaly for s in self._series.values() if s.anomaly is not None]

    def usual(self, now_s: float) -> dict[tuple[str, str], float]:
        """Return the known baselines by series (kind, name), in dollars per hour."""
        expected = {about: s.seasons.usual(now_s) for about, s in self._series.items()}
        return {about: usual.usd_per_s * 3600 for about, usual in expected.items() if usual.by}

    def observe(self, totals: Mapping[Key, Total], now_s: float) -> tuple[list[Anomaly], list[str]]:
        """Process the totals at `now_s` (seconds since 1970). Call it about every TICK_S.

        Return the anomalies that started, and descriptions of those that ended.
        """
        passed_s = now_s - self._last_s
        done = {key: _since(total, self._last.get(key)) for key, total in totals.items()}
        self._last, self._last_s = dict(totals), now_s
        if not 0 < passed_s < 10 * TICK_S:  # first observation, or the clock was changed
            return [], []
        begun, over = [], []
        for about, parts in _by_series(done).items():
            series = self._series[about]
            usd = sum(part.usd for part in parts.values())
            usual = series.seasons.usual(now_s)
            series.ticks.append(parts)
            series.usd.append(usd)
            was = series.anomaly
            self._judge(about, series, usual, now_s, passed_s)
            if series.anomaly is not None and was is None and not series.silent:
                begun.append(series.anomaly)
            elif series.anomaly is None and was is not None and not series.silent:
                over.append(f"{about[0]} {about[1]}")
            series.seasons.add(usd, now_s, passed_s)
            if series.anomaly is None:
                _remember(about, series, 0.5 ** (passed_s / FADE_S))
        return begun, over

    def _judge(
        self,
        about: tuple[str, str],
        series: _Series,
        usual: ExpectedSpend,
        now_s: float,
        passed_s: float,
    ) -> None:
        """Begin, continue or end an anomaly, and learn how far the series strays."""
        windows = list(_windows(series, usual, now_s, passed_s)) if usual.by else []
        begins_minute = now_s // 60 != series.minute
        series.minute = int(now_s // 60)
        found = next(
            (one for one in windows if self._strength(series, usual, one) > self._strictness), None
        )
        at_once = found is not None and found.scale_s in HOURS
        if found is None and begins_minute:  # counting the requests of a period takes a while
            found = next((one for one in windows if self._costs_more(series, one)), None)
            at_once = True
        if found is not None and found.scale_s > MIDDLE * TICK_S:
            last = windows[1]  # the last five minutes: what is over is no news
            if last.usd <= OVER * last.usual_usd:
                found = None
        if series.anomaly is not None:
            rate = sum(islice(reversed(series.usd), SHORT)) / SHORT / passed_s
            series.calm = series.calm + 1 if rate <= OVER * usual.usd_per_s else 0
            if series.calm >= CALM:
                series.anomaly, series.calm = None, 0
        elif found is None:
            series.hits = 0
        else:
            series.hits += 1
            if at_once or series.hits >= 2:
                series.hits = 0
                self._begin(about, series, usual, found, now_s)
        if found is not None and series.anomaly is not None:
            series.rests_until_s = now_s + REST_S
        if begins_minute and usual.by:
            series.dispersion.see({one.scale_s: _log(series, one) for one in windows})
            logs = {one.scale_s: log for one in windows if (log := _log_per_request(series, one))}
            series.dispersion_per_request.see(logs)
        _fill(series, usual, now_s, passed_s)

    def _begin(
        self,
        about: tuple[str, str],
        series: _Series,
        usual: ExpectedSpend,
        found: _Window,
        now_s: float,
    ) -> None:
        anomaly = _explain(about, series, usual, found, now_s)
        if about[0] == "backend":
            anomaly = self._apportion(anomaly, found, now_s)
        rests = now_s < series.rests_until_s
        series.silent = rests and anomaly.usd_per_h < AGAIN * series.told_usd_per_h
        if not series.silent:
            series.told_usd_per_h = anomaly.usd_per_h
        series.anomaly = anomaly

    def _strength(self, series: _Series, usual: ExpectedSpend, window: _Window) -> float:
        """Return the strictness up to which the spend of a period is anomalous; 0 if it is usual.

        Infinite until it is known how far the series strays.
        """
        usd, expected, known = window.usd, window.usual_usd, series.dispersion.is_known
        ratio = self._ratio if known else self._ratio * usual.doubt
        if usd <= ratio * expected or usd <= expected + self._min_usd_per_s * window.time_s:
            return 0.0
        cost_usd = _typical_usd(series.usually)
        if usd - expected <= CHANCE * math.sqrt(2 * cost_usd * max(usd, expected)):
            return 0.0
        least_log = series.dispersion.least_log(window.scale_s)
        return _log(series, window) / least_log if known and least_log else math.inf

    def _costs_more(self, series: _Series, window: _Window) -> bool:
        """Return whether the requests of a period cost significantly more than usual."""
        known = series.dispersion_per_request
        if window.scale_s <= SHORT * TICK_S or not known.is_known:
            return False
        usd, least = window.usd, self._min_usd_per_s * window.time_s
        if usd <= OVER * window.usual_usd or usd <= window.usual_usd + least:
            return False
        log = _log_per_request(series, window)
        expected = usd / math.exp(log)
        cost_usd = _typical_usd(series.usually)
        if log <= math.log(self._ratio) or usd - expected <= least:
            return False
        if usd - expected <= CHANCE * math.sqrt(2 * cost_usd * usd):
            return False
        return log > self._strictness * known.least_log(window.scale_s)

    def _apportion(self, anomaly: Anomaly, window: _Window, now_s: float) -> Anomaly:
        """Separate a backend's larger share of requests (mix) from more requests in total."""
        everything = self._series[ALL]
        if window.scale_s in HOURS:  # the total was judged first: its newest bucket is this tick's
            last = list(islice(reversed(everything.buckets), 1, 1 + window.scale_s // BUCKET_S))
            activity, usual_usd = [one.parts for one in last], sum(one.usual_usd for one in last)
        else:
            activity = list(islice(reversed(everything.ticks), round(window.scale_s / TICK_S)))
            usual_usd = everything.seasons.usual(now_s).usd_per_s * window.time_s
        count = sum(total.requests for parts in activity for total in parts.values())
        usually = _usual_requests(everything.usually, usual_usd)
        if not (count and usually):
            return anomaly
        factors = anomaly.factors
        share = factors.volume * usually / count
        return replace(anomaly, factors=replace(factors, volume=count / usually, mix=share))

    def save(self) -> bytes:
        """Return the baselines."""
        return orjson.dumps(
            [
                {
                    "about": about,
                    "seasons": series.seasons.save(),
                    "dispersion": series.dispersion.save(),
                    "dispersion_per_request": series.dispersion_per_request.save(),
                    "usually": {
                        name: [part.requests, part.usage, part.usd]
                        for name, part in series.usually.items()
                    },
                    "who": series.who,
                }
                for about, series in self._series.items()
            ]
        )

    def load(self, state: bytes) -> None:
        """Load saved baselines. Raises ValueError and changes nothing if they are damaged."""
        loaded: dict[tuple[str, str], _Series] = defaultdict(_Series)
        try:
            for row in orjson.loads(state):
                kind, name = row["about"]
                series = loaded[str(kind), str(name)]
                series.seasons.load(row["seasons"])
                if "dispersion" in row:  # older files have none
                    series.dispersion.load(row["dispersion"])
                    series.dispersion_per_request.load(row["dispersion_per_request"])
                series.usually = {
                    str(backend): Contribution(*map(float, values))
                    for backend, values in row["usually"].items()
                }
                series.who = {str(who): float(usd) for who, usd in row["who"].items()}
        except (KeyError, TypeError) as exc:
            raise ValueError(f"the saved baselines are damaged: {exc}") from exc
        self._series = loaded


def _since(total: Total, before: Total | None) -> Total:
    if before is None:
        return total
    # A worker that died has lost its last second of counts: a decrease is no spend.
    return Total(
        max(0.0, total.requests - before.requests),
        max(0.0, total.usage - before.usage),
        max(0.0, total.usd - before.usd),
    )


def _by_series(done: Mapping[Key, Total]) -> dict[tuple[str, str], dict[Key, Total]]:
    """Return the activity by tenant, route and backend, including idle series."""
    totals: dict[tuple[str, str], dict[Key, Total]] = defaultdict(dict)
    for key, total in done.items():
        route, backend, tenant = key
        for about in (ALL, ("tenant", tenant), ("route", route), ("backend", backend)):
            parts = totals[about]
            if total.requests:
                parts[key] = total
    return totals


def _remember(about: tuple[str, str], series: _Series, fade: float) -> None:
    """Add the newest tick to the usual composition."""
    for part in series.usually.values():
        part.fade(fade)
    for who in series.who:
        series.who[who] *= fade
    for key, total in series.ticks[-1].items():
        series.usually.setdefault(key[1], Contribution()).add(
            total.requests, total.usage, total.usd
        )
        who = _who(about, key)
        series.who[who] = series.who.get(who, 0.0) + total.usd


def _typical_usd(parts: Mapping[str, Contribution]) -> float:
    """Return the mean cost of a request, weighted by cost: a few expensive ones cause jumps."""
    spent = sum(part.usd for part in parts.values())
    squares = sum(part.usd**2 / part.requests for part in parts.values() if part.requests)
    return squares / spent if spent else 0.0


def _usual_requests(parts: Mapping[str, Contribution], usd: float) -> float:
    """Return the number of requests that usually cost this much."""
    spent = sum(part.usd for part in parts.values())
    return usd / spent * sum(part.requests for part in parts.values()) if spent else 0.0


def _who(about: tuple[str, str], key: Key) -> str:
    return key[0] if about[0] == "tenant" else key[2]


def _windows(
    series: _Series, usual: ExpectedSpend, now_s: float, passed_s: float
) -> Iterator[_Window]:
    """Yield the periods that end now and are wholly known, the shortest first."""
    spent = list(series.usd)
    for ticks in (SHORT, MIDDLE, LONG):
        if len(spent) < ticks:
            return
        time_s = ticks * passed_s
        parts = list(islice(reversed(series.ticks), ticks))
        usd = sum(spent[-ticks:])
        scale_s = int(ticks * TICK_S)
        yield _Window(scale_s, time_s, usd, usual.usd_per_s * time_s, parts)
    buckets = series.buckets
    if not buckets or int(now_s // BUCKET_S) == buckets[-1].number:
        return
    for scale_s in HOURS:
        count = scale_s // BUCKET_S
        if len(buckets) < count or buckets[-1].number - buckets[-count].number != count - 1:
            return
        last = list(islice(reversed(buckets), count))
        yield _Window(
            scale_s,
            sum(one.time_s for one in last),
            sum(one.usd for one in last),
            sum(one.usual_usd for one in last),
            [one.parts for one in last],
        )


def _fill(series: _Series, usual: ExpectedSpend, now_s: float, passed_s: float) -> None:
    """Add the newest tick to its bucket; without a baseline, forget the buckets."""
    if not usual.by:
        series.buckets.clear()
        return
    number = int(now_s // BUCKET_S)
    if not series.buckets or series.buckets[-1].number != number:
        series.buckets.append(_Bucket(number))
    series.buckets[-1].add(series.ticks[-1], series.usd[-1], usual.usd_per_s * passed_s, passed_s)


def _log(series: _Series, window: _Window) -> float:
    mean_usd = series.seasons.mean_usd_per_s * window.time_s
    return log_ratio(window.usd, window.usual_usd, mean_usd)


def _log_per_request(series: _Series, window: _Window) -> float:
    """Return the logarithm of a period's cost per request over the usual one; 0 if unknown."""
    spent = sum(part.usd for part in series.usually.values())
    requests = sum(part.requests for part in series.usually.values())
    count = sum(total.requests for parts in window.parts for total in parts.values())
    if not (spent > 0 and requests > 0 and count > 0 and window.usd > 0):
        return 0.0
    return math.log(window.usd / count / (spent / requests))


def _sum(one: Total, other: Total) -> Total:
    return Total(one.requests + other.requests, one.usage + other.usage, one.usd + other.usd)


def _explain(
    about: tuple[str, str], series: _Series, usual: ExpectedSpend, window: _Window, now_s: float
) -> Anomaly:
    """Build the anomaly of a period that ends now."""
    time_s, usual_usd = window.time_s, window.usual_usd
    now: dict[str, Contribution] = {}
    by: dict[str, float] = defaultdict(float)
    for key, total in chain.from_iterable(part.items() for part in window.parts):
        now.setdefault(key[1], Contribution()).add(total.requests, total.usage, total.usd)
        by[_who(about, key)] += total.usd
    spent = sum(part.usd for part in now.values())
    requests = sum(part.requests for part in now.values())
    known = sum(part.usd for part in series.usually.values())
    usual_requests = _usual_requests(series.usually, usual_usd)
    volume = requests / usual_requests if usual_requests else math.inf
    who_usd = {
        who: usd - (usual_usd * series.who.get(who, 0.0) / known if known else 0.0)
        for who, usd in by.items()
    }
    excess = spent - usual_usd
    ranked = sorted(who_usd.items(), key=lambda item: -item[1])[:WHO_MAX]
    return Anomaly(
        about[0],
        about[1],
        now_s - time_s,
        spent / time_s * 3600,
        usual_usd / time_s * 3600,
        usual.by,
        decompose(series.usually, now, volume),
        tuple((who, usd / excess) for who, usd in ranked if usd > 0.05 * excess),
    )
