"""Totals: facts added up by day, route, backend, tenant, provenance and tags."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Protocol

import orjson

from tollway.backends.units import HOT
from tollway.gateway.control_plane.dashboard_data import wilson
from tollway.gateway.routing.metering import ESTIMATED
from tollway.reports.facts import Charge, Fact

DIMENSIONS = ("day", "hour", "month", "route", "backend", "tenant", "provenance", "tags")
"""The dimensions to group by, besides each single tag; `tags` is all tags, as JSON."""

OF_CHARGES = frozenset({"backend", "provenance"})
"""Dimensions of charges but not of requests: a request may call several backends."""

UNTAGGED = "(none)"
Key = tuple[str, ...]


@dataclass(slots=True)
class Offers:
    """The expected cost and quality of a route's requests at one backend."""

    count: int = 0
    cost_usd: float = 0.0
    quality: float = 0.0

    @property
    def each_usd(self) -> float:
        """The cost per request in dollars."""
        return self.cost_usd / self.count

    @property
    def accuracy(self) -> float:
        """The mean expected quality of its answers."""
        return self.quality / self.count


@dataclass(slots=True)
class Totals:
    """Sums over facts; money in nano-dollars."""

    requests: int = 0
    answered: int = 0
    calls: int = 0
    failed_calls: int = 0
    refused_calls: int = 0
    fallbacks: int = 0
    audits: int = 0
    cost_nano: int = 0
    audit_nano: int = 0
    estimated_nano: int = 0
    explored_nano: int = 0
    cached: int = 0
    cached_nano: int = 0
    labels: int = 0
    quality: float = 0.0
    version: int = 0
    input_tokens: float = 0.0
    cached_input_tokens: float = 0.0
    output_tokens: float = 0.0
    device_s: float = 0.0
    units: Counter[str] = field(default_factory=Counter)
    offers: dict[str, Offers] = field(default_factory=dict)

    def used(self, unit: str) -> float:
        """Return the calls' usage in a unit."""
        return float(getattr(self, unit) if unit in HOT else self.units[unit])

    def add(self, fact: Fact) -> None:
        """Add one fact."""
        if isinstance(fact, Charge):
            self._charge(fact)
            return
        self.requests += 1
        self.answered += fact.answered
        self.explored_nano += fact.explored_nano
        self.cached += bool(fact.cached_nano)
        self.cached_nano += fact.cached_nano
        self.version = max(self.version, fact.version)
        if fact.quality is not None:
            self.labels += 1
            self.quality += fact.quality
        for backend, (cost_usd, quality) in fact.offered.items():
            offers = self.offers.setdefault(backend, Offers())
            offers.count += 1
            offers.cost_usd += cost_usd
            offers.quality += quality

    def _charge(self, charge: Charge) -> None:
        self.calls += 1
        self.failed_calls += charge.failed
        self.refused_calls += charge.refused
        self.cost_nano += charge.cost_nano
        self.fallbacks += charge.fallback
        self.audits += charge.audit
        if charge.audit:
            self.audit_nano += charge.cost_nano
        if charge.provenance == ESTIMATED:
            self.estimated_nano += charge.cost_nano
        self.input_tokens += charge.input_tokens
        self.cached_input_tokens += charge.cached_input_tokens
        self.output_tokens += charge.output_tokens
        self.device_s += charge.device_s
        for unit, count in charge.units:
            self.units[unit] += count  # type: ignore[assignment] # counts are not always whole

    @property
    def accuracy(self) -> float | None:
        """The mean quality of the answers that have feedback."""
        return self.quality / self.labels if self.labels else None

    @property
    def accuracy_interval(self) -> tuple[float, float] | None:
        """Its 95 % interval."""
        return None if self.accuracy is None else wilson(self.accuracy, self.labels)

    @property
    def accuracy_bounds(self) -> tuple[float | None, float | None]:
        """The ends of that interval; None without labels."""
        return self.accuracy_interval or (None, None)

    @property
    def per_thousand(self) -> int | None:
        """The cost of a thousand requests, in whole nano-dollars."""
        return self.per(self.requests / 1000)

    @property
    def correct(self) -> float | None:
        """The number of right answers, extrapolated from the labelled ones."""
        return None if self.accuracy is None else self.accuracy * self.answered

    @property
    def learning_nano(self) -> int:
        """The cost of learning: audits, plus the expected cost of exploration."""
        return self.audit_nano + self.explored_nano

    def per(self, count: float | None) -> int | None:
        """Return the cost for each of `count` things, in whole nano-dollars."""
        return round(self.cost_nano / count) if count else None


@dataclass(frozen=True, slots=True)
class Span:
    """A time span in seconds since 1970, and the time zone of its days."""

    since_s: float = -math.inf
    until_s: float = math.inf
    zone: tzinfo = UTC

    def keeps(self, fact: Fact) -> bool:
        """Whether a fact lies in the span."""
        return self.since_s <= fact.time_s < self.until_s


class Grouping:
    """Adds facts up by the values of some dimensions.

    A dimension that is not in DIMENSIONS is a tag's name. Requests are left out if a dimension
    applies to charges only (OF_CHARGES).
    """

    # The mutable state is the totals by key.

    def __init__(self, by: tuple[str, ...], span: Span) -> None:
        self.by = by
        self.of_charges = bool(OF_CHARGES.intersection(by))
        self._span = span
        self._read = [reader(name, span.zone) for name in by]
        self._totals: dict[Key, Totals] = {}

    def add(self, fact: Fact) -> None:
        """Add a fact if it lies in the span."""
        if not self._span.keeps(fact):
            return
        if self.of_charges and not isinstance(fact, Charge):
            return
        key = tuple([read(fact) for read in self._read])
        totals = self._totals.get(key)
        if totals is None:
            totals = self._totals[key] = Totals()
        totals.add(fact)

    @property
    def groups(self) -> dict[Key, Totals]:
        """The totals by key, sorted by key."""
        return dict(sorted(self._totals.items()))


def add_up(facts: Iterable[Fact], *groupings: Grouping) -> None:
    """Give every fact to every grouping, in one pass."""
    for fact in facts:
        for grouping in groupings:
            grouping.add(fact)


_TIMES = {"day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H:00", "month": "%Y-%m"}


def reader(name: str, zone: tzinfo) -> Callable[[Fact], str]:
    """Return a function that reads a dimension's value from a fact."""
    if name in _TIMES:
        return _time_reader(_TIMES[name], zone)
    if name == "tags":
        return lambda fact: orjson.dumps(fact.tags, option=orjson.OPT_SORT_KEYS).decode()
    if name in DIMENSIONS:
        return lambda fact: str(getattr(fact, name))
    return lambda fact: fact.tags.get(name, UNTAGGED)


class Timed(Protocol):
    """Something that has a time, in seconds since 1970."""

    @property
    def time_s(self) -> float:
        """Its time."""


def time_reader(name: str, zone: tzinfo) -> Callable[[Timed], str]:
    """Return a function that reads the `day`, `hour` or `month` of something."""
    return _time_reader(_TIMES[name], zone)


def _time_reader(form: str, zone: tzinfo) -> Callable[[Timed], str]:
    """Return a function that formats times; each quarter of an hour is formatted only once.

    Quarters, because some time zones are offset by half or three quarters of an hour.
    """
    known: dict[int, str] = {}

    def read(fact: Timed) -> str:
        quarter = int(fact.time_s // 900)
        text = known.get(quarter)
        if text is None:
            text = known[quarter] = datetime.fromtimestamp(quarter * 900, zone).strftime(form)
        return text

    return read
