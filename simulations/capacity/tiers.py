"""What a chain of tiers (CDN, gateways, caches, model servers) needs for a rate, and its latency.

Theory of operation. Requests pass the tiers in order. A tier that keeps answers ends the share that
it finds, and the rest goes on. What a cache of C answers finds follows from the popularity of the
requests, a Zipf law, by Che's approximation for LRU (Che, Tung, Wang 2002; Fricker, Robert, Roberts
2012):

    hit of object i = 1 - exp(-p_i T),   with T such that the sum over all objects is C

The next tier sees only what the one before has missed. With `hashed`, each replica keeps its own
part of the objects, so n replicas keep n C; otherwise all keep the same.

A tier has as many replicas as keep its utilization below `busy_max`, and spares for those that are
down. Calls wait as in M/G/1 at one of the replicas (`queue = "own"`: processes, shards), or as in
M/G/c at all of them (`queue = "shared"`). Latencies are drawn: the service of each call from a
gamma distribution of its mean and squared coefficient of variation, its wait from an exponential
one (see `waiting`). Tiers are taken to be independent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollway.gateway.scaling.queueing import waiting_chance
from tollway.simulations.capacity.capacity import MONTH_H, spared
from tollway.simulations.capacity.waiting import Service, mean_wait_s

Floats = NDArray[np.float64]
DRAWS = 200_000  # requests whose latencies are drawn: the 99th percentile is known to 1 %
BINS = 4000  # of ranks: each object of the first thousand alone, the others by factors
ALONE = 1000
STEPS = 60  # bisections of a cache's characteristic time
SECONDS_A_MONTH = MONTH_H * 3600


class BadTiers(ValueError):  # noqa: N818 - reads as what happened
    """A description that cannot be planned; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests: `cacheable` of them ask for one of `objects`, with frequencies by Zipf's law.

    `share` of them must be answered `within_ms`.
    """

    rate: float
    within_ms: float = 10.0
    share: float = 0.99
    cacheable: float = 1.0
    objects: float = 1e8
    zipf: float = 1.0


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier. Times are of one call at one replica; `batch` calls are one service.

    `visits`: the share of the arriving requests that it is asked for; the others pass it by.
    `keeps`: the answers that one replica keeps. `answers`: the share that ends here apart from
    those. `network_ms`: the way there and back. `measured`: the command that prints its figures.
    """

    name: str
    service_ms: float
    scv: float = 1.0
    places: int = 1
    batch: int = 1
    batch_wait_ms: float = 0.0
    network_ms: float = 0.0
    busy_max: float = 0.6
    queue: str = "own"
    visits: float = 1.0
    keeps: float = 0.0
    hashed: bool = False
    answers: float = 0.0
    up: float = 0.999
    availability: float = 0.9999
    usd_per_hour: float = 0.0
    usd_per_million: float = 0.0
    measured: str = ""


@dataclass(frozen=True, slots=True)
class Sized:
    """What one tier needs at a rate.

    `arriving`: requests that reach it, a second. `ends`: the share of them that it answers.
    """

    tier: Tier
    arriving: float
    ends: float
    replicas: int
    busy: float
    p50_ms: float
    p99_ms: float
    usd_month: float


@dataclass(frozen=True, slots=True)
class Planned:
    """A chain at a rate. `within`: the share of all requests that are in time."""

    workload: Workload
    tiers: tuple[Sized, ...]
    p50_ms: float
    p99_ms: float
    within: float
    late_by: dict[str, float] = field(default_factory=dict)

    @property
    def usd_month(self) -> float:
        """The cost of a month at this rate."""
        return sum(one.usd_month for one in self.tiers)

    @property
    def usd_per_million(self) -> float:
        """The cost of a million requests."""
        return self.usd_month / (self.workload.rate * SECONDS_A_MONTH) * 1e6

    @property
    def costliest(self) -> Sized:
        """The tier that costs the most."""
        return max(self.tiers, key=lambda one: one.usd_month)

    @property
    def slowest(self) -> str:
        """The tier that takes most of the time of the requests that are late."""
        return max(self.late_by, key=lambda name: self.late_by[name])

    @property
    def fullest(self) -> Sized:
        """The tier whose replicas are the busiest: the first to be overloaded if traffic grows."""
        return max(self.tiers, key=lambda one: one.busy)


class Popularity:
    """How often objects are asked for, in bins of ranks, and what of it caches have not found."""

    # The mutable state is the frequencies that are left.

    def __init__(self, objects: float, zipf: float) -> None:
        alone = int(min(objects, ALONE))
        edges = np.arange(1, alone + 1, dtype=float)
        if objects > alone:
            edges = np.concatenate([edges, np.geomspace(alone + 1, objects + 1, BINS)])
        else:
            edges = np.append(edges, alone + 1.0)
        self._count = np.diff(edges)
        middle = np.sqrt(edges[:-1] * np.maximum(edges[1:] - 1.0, edges[:-1]))
        weight = middle**-zipf
        self._left = weight / float((weight * self._count).sum())

    def found(self, kept: float) -> float:
        """Return the share that an LRU cache of `kept` objects finds; take it from what is left."""
        p, count = self._left, self._count
        total = float((p * count).sum())
        if kept <= 0.0 or total <= 0.0:
            return 0.0
        if kept >= float(count.sum()):
            self._left = np.zeros_like(p)
            return 1.0
        low, high = 0.0, 1.0
        while float((count * -np.expm1(-p * high)).sum()) < kept:
            high *= 2.0
        for _ in range(STEPS):
            middle = (low + high) / 2.0
            held = float((count * -np.expm1(-p * middle)).sum())
            low, high = (middle, high) if held < kept else (low, middle)
        missed = p * np.exp(-p * high)
        self._left = missed
        return 1.0 - float((missed * count).sum()) / total


def planned(workload: Workload, tiers: Sequence[Tier], *, seed: int = 0) -> Planned:
    """Return what the tiers need, and how long requests take. BadTiers if something is invalid."""
    check(workload, tiers)
    rng = np.random.default_rng(seed)
    popularity = Popularity(workload.objects, workload.zipf)
    cacheable, other = workload.cacheable * workload.rate, (1 - workload.cacheable) * workload.rate
    took = np.zeros(DRAWS)
    parts: list[Floats] = []
    passing = np.ones(DRAWS, bool)
    sized = []
    for tier in tiers:
        arriving = cacheable + other
        if not arriving:
            break
        asked = arriving * tier.visits
        replicas, busy = _replicas(tier, asked)
        found = tier.visits * popularity.found(tier.keeps * (replicas if tier.hashed else 1))
        ends = (found * cacheable + tier.answers * tier.visits * arriving) / arriving
        own = _latencies(tier, asked, replicas, rng)
        visiting = passing & (rng.random(DRAWS) < tier.visits)
        part = np.where(visiting, own, 0.0)
        took += part
        parts.append(part)
        ended = passing & (rng.random(DRAWS) < min(1.0, ends))
        passing &= ~ended
        spares = spared(replicas, tier.up, tier.availability)
        usd = spares * tier.usd_per_hour * MONTH_H
        usd += asked * SECONDS_A_MONTH / 1e6 * tier.usd_per_million
        p50, p99 = np.quantile(own, [0.5, 0.99])
        sized.append(Sized(tier, arriving, ends, spares, busy, float(p50), float(p99), usd))
        cacheable *= 1.0 - found
        cacheable, other = (
            cacheable * (1.0 - tier.answers * tier.visits),
            other * (1.0 - tier.answers * tier.visits),
        )
    late = took > workload.within_ms
    p50, p99 = np.quantile(took, [0.5, 0.99])
    # Which tier makes the slowest hundredth slow, late or not.
    slow = took >= p99
    late_by = {
        one.tier.name: float(part[slow].mean()) for one, part in zip(sized, parts, strict=True)
    }
    return Planned(
        workload, tuple(sized), float(p50), float(p99), 1.0 - float(late.mean()), late_by
    )


def _replicas(tier: Tier, rate: float) -> tuple[int, float]:
    """Return how many replicas keep a tier's utilization below its limit, and the utilization."""
    load = rate * tier.service_ms / 1000.0 / tier.batch / tier.places
    replicas = max(1, math.ceil(load / tier.busy_max - 1e-9))
    return replicas, load / replicas


def _latencies(tier: Tier, rate: float, replicas: int, rng: np.random.Generator) -> Floats:
    """Return drawn times at a tier, in milliseconds, including its network."""
    mean_s = tier.service_ms / 1000.0
    drawn = _drawn(mean_s, tier.scv, rng)
    own = tier.queue == "own"
    places = tier.places if own else tier.places * replicas
    batches = rate / tier.batch / (replicas if own else 1)
    service = Service(np.array([mean_s]), mean_s, tier.scv)
    wait_s = mean_wait_s(batches, service, places)
    chance = waiting_chance(batches * mean_s, places)
    waits = rng.random(DRAWS) < chance
    waited = np.where(waits, rng.exponential(wait_s / chance if chance else 0.0, DRAWS), 0.0)
    filling = rng.random(DRAWS) * tier.batch_wait_ms
    times: Floats = (drawn + waited) * 1000.0 + filling + tier.network_ms
    return times


def _drawn(mean_s: float, scv: float, rng: np.random.Generator) -> Floats:
    if scv <= 0.0:
        return np.full(DRAWS, mean_s)
    return rng.gamma(1.0 / scv, mean_s * scv, DRAWS)


def check(workload: Workload, tiers: Sequence[Tier]) -> None:
    """Raise BadTiers for values that no plan can have."""
    if not tiers:
        raise BadTiers("there is no [[tiers]]; write one for each tier, in order")
    for name in ("rate", "within_ms", "objects"):
        if not 0.0 < getattr(workload, name) <= 1e15:
            raise BadTiers(f"workload.{name} must be above 0")
    for name in ("share", "cacheable"):
        if not 0.0 <= getattr(workload, name) <= 1.0:
            raise BadTiers(f"workload.{name} must be from 0 to 1")
    if not 0.0 <= workload.zipf <= 4.0:
        raise BadTiers("workload.zipf must be from 0 to 4")
    for tier in tiers:
        where = f"tier {tier.name!r}"
        if not tier.service_ms > 0.0 or tier.places < 1 or tier.batch < 1:
            raise BadTiers(f"{where}: service_ms, places and batch must be above 0")
        if not (0.0 < tier.busy_max < 1.0 and 0.0 <= tier.visits <= 1.0):
            raise BadTiers(f"{where}: busy_max must be between 0 and 1, visits from 0 to 1")
        if tier.queue not in ("own", "shared"):
            raise BadTiers(f'{where}: queue must be "own" or "shared"')
        if not (0.0 <= tier.answers <= 1.0 and tier.keeps >= 0.0 and tier.scv >= 0.0):
            raise BadTiers(f"{where}: answers must be from 0 to 1, keeps and scv not below 0")


def read(document: dict[str, Any]) -> tuple[Workload, list[Tier]]:
    """Read a description: a table `workload`, and `tiers` in order. BadTiers if it is invalid."""
    unknown = document.keys() - {"workload", "tiers"}
    if unknown:
        raise BadTiers(f"{min(unknown)!r} is unknown; there are [workload] and [[tiers]]")
    workload = _table(Workload, document.get("workload", {}), "workload")
    tiers = [_table(Tier, one, f"tiers[{n}]") for n, one in enumerate(document.get("tiers", []))]
    return workload, tiers


def _table(kind: Any, table: Any, where: str) -> Any:
    known = {one.name: one for one in fields(kind)}
    if not isinstance(table, dict):
        raise BadTiers(f"{where} must be a table")
    for key, value in table.items():
        if key not in known:
            raise BadTiers(f"{where}.{key} is unknown; the keys are {', '.join(known)}")
        wanted: Any = known[key].type
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        sound = {
            float: is_number,
            int: is_number and not isinstance(value, float),
            str: isinstance(value, str),
            bool: isinstance(value, bool),
        }[wanted]
        if not sound:
            raise BadTiers(f"{where}.{key} = {value!r} must be a {wanted.__name__}")
    try:
        return kind(**table)
    except TypeError as exc:
        raise BadTiers(f"{where}: {exc}") from None
