"""Detects unusual spend and reports its cause, its contributors and its start.

Every few seconds, the total spend and the spend of each tenant, route and backend over the last 1,
5 and 15 minutes are compared with the baseline for this time (`seasonal_baseline`). Spend is
anomalous if it exceeds the baseline by a ratio, by an amount worth a person's attention, and by
more than chance, in two consecutive checks. Requests arrive and cost at random, so the variance of
spend over a period is about twice the spend times the cost-weighted mean cost of a request. The
cause is found by comparing the backends' activity with their usual activity (`attribution`).

The detector is pure: it maps totals and the time to findings.
"""

import json
import math
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from tollway.gateway.anomalies.attribution import Contribution, Factors, decompose
from tollway.gateway.anomalies.seasonal_baseline import ExpectedSpend, SeasonalBaseline

TICK_S = 10.0
SHORT, MIDDLE, LONG = 6, 30, 90  # ticks: a minute, five, a quarter of an hour
CHANCE = 6.0  # standard deviations: one in a billion, with thousands of checks per day
FADE_S = 6 * 3600.0  # half-life of the usual composition of requests
OVER = 1.2  # an anomaly ends after CALM ticks below this multiple of the baseline
CALM = 30
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
            f"{self.about} spends ${self.usd_per_h:,.2f} an hour, {times} the usual "
            f"${self.usual_usd_per_h:,.2f} ({self.baseline}); cause: {_CAUSES[self.factors.cause]} "
            f"(x{getattr(self.factors, self.factors.cause):.2f}){'; by ' if who else ''}{who}"
        )


_CAUSES = {
    "volume": "more requests",
    "mix": "more expensive backends answer more of them",
    "usage": "requests use more (tokens or seconds each)",
    "price": "usage costs more",
}


@dataclass(slots=True)
class _Series:
    """One tenant, route or backend."""

    seasons: SeasonalBaseline = field(default_factory=SeasonalBaseline)
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

    def __init__(self, *, ratio: float = 1.5, min_usd_per_h: float = 1.0) -> None:
        """Set the thresholds.

        `ratio`: smallest multiple of the baseline, and `min_usd_per_h`: smallest excess over the
        baseline, that raise an alert.
        """
        if not (ratio > 1 and min_usd_per_h >= 0):
            raise ValueError(f"ratio {ratio}, min_usd_per_h {min_usd_per_h}")
        self._ratio, self._min_usd_per_s = ratio, min_usd_per_h / 3600
        self._series: dict[tuple[str, str], _Series] = defaultdict(_Series)
        self._last: dict[Key, Total] = {}
        self._last_s = math.nan

    @property
    def active(self) -> list[Anomaly]:
        """Active anomalies."""
        return [s.anomaly for s in self._series.values() if s.anomaly is not None]

    def usual(self, now_s: float) -> dict[tuple[str, str], float]:
        """Return the known baselines by series (kind, name), in dollars per hour."""
        found = {about: s.seasons.usual(now_s) for about, s in self._series.items()}
        return {about: usual.usd_per_s * 3600 for about, usual in found.items() if usual.by}

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
            series.ticks.append(parts)
            series.usd.append(sum(part.usd for part in parts.values()))
            was = series.anomaly
            self._judge(about, series, now_s, passed_s)
            if series.anomaly is not None and was is None:
                begun.append(series.anomaly)
            elif series.anomaly is None and was is not None:
                over.append(f"{about[0]} {about[1]}")
            series.seasons.add(series.usd[-1], now_s, passed_s)
            if series.anomaly is None:
                _remember(about, series, 0.5 ** (passed_s / FADE_S))
        return begun, over

    def _judge(
        self, about: tuple[str, str], series: _Series, now_s: float, passed_s: float
    ) -> None:
        usual = series.seasons.usual(now_s)
        if series.anomaly is not None:
            rate = sum(list(series.usd)[-SHORT:]) / SHORT / passed_s
            series.calm = series.calm + 1 if rate <= OVER * usual.usd_per_s else 0
            if series.calm >= CALM:
                series.anomaly, series.calm = None, 0
            return
        found = self._stands_out(series, usual, passed_s)
        series.hits = series.hits + 1 if found else 0
        if series.hits >= 2:
            series.hits = 0
            series.anomaly = _explain(about, series, usual, now_s, ticks=found, tick_s=passed_s)
            if about[0] == "backend":
                series.anomaly = self._apportion(series.anomaly, now_s, found, passed_s)

    def _stands_out(self, series: _Series, usual: ExpectedSpend, passed_s: float) -> int:
        """Return the number of ticks over which spend is significantly unusual; 0 if none."""
        if not usual.by:
            return 0
        spent = list(series.usd)
        cost_usd = _typical_usd(series.usually)
        most = max(
            self._ratio * usual.doubt * usual.usd_per_s, usual.usd_per_s + self._min_usd_per_s
        )
        for ticks in (SHORT, MIDDLE, LONG):
            if len(spent) < ticks:
                return 0
            time_s = ticks * passed_s
            usd, expected = sum(spent[-ticks:]), usual.usd_per_s * time_s
            chance = CHANCE * math.sqrt(2 * cost_usd * max(usd, expected))
            if usd > most * time_s and usd - expected > chance:
                return ticks
        return 0

    def _apportion(self, found: Anomaly, now_s: float, ticks: int, tick_s: float) -> Anomaly:
        """Separate a backend's larger share of requests (mix) from more requests in total."""
        everything = self._series[ALL]
        usual = everything.seasons.usual(now_s)
        count = sum(
            total.requests for part in list(everything.ticks)[-ticks:] for total in part.values()
        )
        usually = _usual_requests(everything.usually, usual.usd_per_s * ticks * tick_s)
        if not (count and usually):
            return found
        factors = found.factors
        share = factors.volume * usually / count
        return replace(found, factors=replace(factors, volume=count / usually, mix=share))

    def save(self) -> bytes:
        """Return the baselines."""
        return json.dumps(
            [
                {
                    "about": about,
                    "seasons": series.seasons.save(),
                    "usually": {
                        name: [part.requests, part.usage, part.usd]
                        for name, part in series.usually.items()
                    },
                    "who": series.who,
                }
                for about, series in self._series.items()
            ]
        ).encode()

    def load(self, state: bytes) -> None:
        """Load saved baselines. Raises ValueError and changes nothing if they are damaged."""
        loaded: dict[tuple[str, str], _Series] = defaultdict(_Series)
        try:
            for row in json.loads(state):
                kind, name = row["about"]
                series = loaded[str(kind), str(name)]
                series.seasons.load(row["seasons"])
                series.usually = {
                    str(backend): Contribution(*map(float, values))
                    for backend, values in row["usually"].items()
                }
                series.who = {str(who): float(usd) for who, usd in row["who"].items()}
        except (KeyError, TypeError) as exc:
            raise ValueError(f"damaged baselines: {exc}") from exc
        self._series = loaded


def _since(total: Total, before: Total | None) -> Total:
    if before is None or before.requests > total.requests:  # the counters were reset
        return total
    return Total(
        total.requests - before.requests, total.usage - before.usage, total.usd - before.usd
    )


def _by_series(done: Mapping[Key, Total]) -> dict[tuple[str, str], dict[Key, Total]]:
    """Return the activity by tenant, route and backend, including idle series."""
    found: dict[tuple[str, str], dict[Key, Total]] = defaultdict(dict)
    for key, total in done.items():
        route, backend, tenant = key
        for about in (ALL, ("tenant", tenant), ("route", route), ("backend", backend)):
            parts = found[about]
            if total.requests:
                parts[key] = total
    return found


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


def _explain(
    about: tuple[str, str],
    series: _Series,
    usual: ExpectedSpend,
    now_s: float,
    *,
    ticks: int,
    tick_s: float,
) -> Anomaly:
    """Build the anomaly for the last `ticks` ticks of `tick_s` seconds."""
    time_s = ticks * tick_s
    now: dict[str, Contribution] = {}
    by: dict[str, float] = defaultdict(float)
    for key, total in chain.from_iterable(part.items() for part in list(series.ticks)[-ticks:]):
        now.setdefault(key[1], Contribution()).add(total.requests, total.usage, total.usd)
        by[_who(about, key)] += total.usd
    spent = sum(part.usd for part in now.values())
    requests = sum(part.requests for part in now.values())
    usual_usd = usual.usd_per_s * time_s
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
        usual.usd_per_s * 3600,
        usual.by,
        decompose(series.usually, now, volume),
        tuple((who, usd / excess) for who, usd in ranked if usd > 0.05 * excess),
    )
