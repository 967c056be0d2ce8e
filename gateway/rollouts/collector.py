"""Collects one process' evidence on a rollout: what both versions' replies were like.

Each metric becomes values in [0, 1] that count as harm (`policies.evidence.comparison`):

    quality        1 - quality of a label
    error_rate     1 for a failure that is the backend's
    invalid_rate   1 for a reply without an answer (empty, NaN) or against the route's schema
    p95_latency    1 if slower than the stable version's p95, plus what is tolerated; at most 5 %
                   more of the candidate's may be than of the stable version's at the same time
    cost           the cost as a share of COST_RANGE times the stable version's usual one
    value          what the answer lacks of the route's value_per_correct_usd, less the cost
    answers        for each of BINS groups of answers: 1 if the answer is in it

Evidence of several processes adds up: `add`.
"""

import math
import zlib
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from tollway.gateway.rollouts.measures import BINS, COST_RANGE, SLOW, Sums, scale_of
from tollway.gateway.rollouts.model import (
    ANSWERS,
    COST,
    ERRORS,
    INVALID,
    LATENCY,
    QUALITY,
    VALUE,
    Criterion,
    Measure,
    RolloutPlan,
)
from tollway.policies.evidence.comparison import Comparison

QUANTILE = 0.96  # estimated from a window, so a little above p95: on the safe side
LATENCIES = 500  # of each version, for its p95
LATENCIES_MIN = 100
COSTS_MIN = 20  # of the stable version, before its usual cost is known
TEXT_CHARS = 32  # longer answers are told apart by their length


class Source(NamedTuple):
    """Where a value comes from: the version, and the groups of its key and of its tenant."""

    candidate: bool
    cluster: int
    group: int


class Collector:
    """The comparisons of one rollout, by metric; those of limits are `METRIC/limit`."""

    # The mutable state is the comparisons, the recent latencies, and the usual cost.

    def __init__(self, plan: RolloutPlan) -> None:
        self.plan = plan
        self.count = 0
        self.agreed = [0.0, 0.0]
        self.comparisons: dict[str, Comparison] = {}
        self._latencies: dict[bool, deque[float]] = {
            candidate: deque(maxlen=LATENCIES) for candidate in (False, True)
        }
        self._slow_s = math.inf
        self._costs: list[int] = []
        self._usual_nano = 0.0
        self._criteria = {one.metric: one for one in plan.criteria}
        for one in plan.criteria:
            for name, comparison in _comparisons(one):
                self.comparisons[name] = comparison

    # -- values

    def request(
        self,
        candidate: bool,
        cluster: int,
        *,
        failed: bool,
        invalid: bool,
        latency_s: float,
        cost_nano: int,
        answer: Any,
        ran: bool = True,
        rejected: bool = False,
        group: int = 0,
    ) -> None:
        """Count a version's reply or failure (10 us).

        `ran`: the call may have cost something. `rejected`: the version says that the client is
        wrong; as clients err with both versions alike, one that says so more often is worse.
        `group`: of the tenant.
        """
        self.count += 1
        source = Source(candidate, cluster, group)
        if rejected:  # no limit counts it: the client may be wrong
            self._observe(INVALID, 1.0, source)
            return
        self._see(ERRORS, float(failed), source)
        if not failed:
            self._see(INVALID, float(invalid), source)
            self._latency(latency_s, source)
            if not invalid and ANSWERS in self._criteria:
                self._answer(bin_of(answer), source)
        if ran:
            self._cost(cost_nano, source)

    def label(
        self,
        candidate: bool,
        cluster: int,
        quality: float,
        *,
        value_usd: float | None = None,
        cost_usd: float = 0.0,
        group: int = 0,
    ) -> None:
        """Count the quality of a version's answer; `value_usd` is that of a correct one."""
        self.count += 1
        source = Source(candidate, cluster, group)
        self._see(QUALITY, 1.0 - quality, source)
        if value_usd and VALUE in self._criteria:
            lacking = (value_usd - (value_usd * quality - cost_usd)) / (2.0 * value_usd)
            self._observe(VALUE, min(max(lacking, 0.0), 1.0), source)

    def agree(self, agreement: float) -> None:
        """Count how far a mirrored request's two answers agree, in [0, 1]."""
        self.agreed[0] += 1.0
        self.agreed[1] += agreement

    def _observe(self, name: str, value: float, source: Source) -> None:
        """Give a value to a comparison, if there is one of this name."""
        comparison = self.comparisons.get(name)
        if comparison is not None:
            candidate, cluster, group = source
            comparison.observe(value, cluster, candidate=candidate, group=group)

    def _see(self, metric: str, value: float, source: Source) -> None:
        """Give a value to a metric's comparison and to that of its limit."""
        self._observe(metric, value, source)
        self._observe(f"{metric}/limit", value, source)

    def _latency(self, latency_s: float, source: Source) -> None:
        criterion = self._criteria.get(LATENCY)
        if criterion is None:
            return
        candidate = source.candidate
        window = self._latencies[candidate]
        for name, over in (
            (LATENCY, criterion.tolerance),
            (f"{LATENCY}/margin", criterion.margin),
        ):
            if self._slow_s < math.inf and over is not None:
                self._observe(name, float(latency_s > self._slow_s * (1.0 + over)), source)
        if candidate and criterion.limit is not None:
            self._observe(f"{LATENCY}/limit", float(latency_s > criterion.limit), source)
        window.append(latency_s)
        if not candidate and len(window) >= LATENCIES_MIN and self.count % 25 < 2:
            self._slow_s = quantile(window, QUANTILE)

    def _cost(self, cost_nano: int, source: Source) -> None:
        if not self._usual_nano:
            if not source.candidate:
                self._costs.append(cost_nano)
            if len(self._costs) < COSTS_MIN:
                return
            self._usual_nano = max(sum(self._costs) / len(self._costs), 1.0)
        self._observe(COST, min(cost_nano / (COST_RANGE * self._usual_nano), 1.0), source)
        most_nano = (self._criteria[COST].limit or 0.0) * 1e9 if COST in self._criteria else 0.0
        if most_nano > 0.0 and source.candidate:  # the claim: half of twice the limit
            self._observe(f"{COST}/limit", min(cost_nano / (2.0 * most_nano), 1.0), source)

    def _answer(self, at: int, source: Source) -> None:
        for number in range(BINS):
            self._observe(f"{ANSWERS}/{number}", float(number == at), source)

    # -- evidence

    def save(self) -> dict[str, Any]:
        """Return the evidence as JSON types."""
        return self.sums().save()

    def sums(self) -> Sums:
        """Return a copy of the evidence, to which that of other processes can be added."""
        return Sums(
            {name: one.copy() for name, one in self.comparisons.items()},
            usual_nano=self._usual_nano,
            agreed=(self.agreed[0], self.agreed[1]),
            p95s_s=(self._p95_s(False), self._p95_s(True)),
        )

    def _p95_s(self, candidate: bool) -> float:
        """Return a version's recent p95; 0 if it has not answered."""
        window = self._latencies[candidate]
        return quantile(window, 0.95) if window else 0.0

    def nothing(self) -> Sums:
        """Return no evidence, to which that of processes can be added."""
        return Sums({name: made for one in self.plan.criteria for name, made in _comparisons(one)})

    def total(self, others: Mapping[str, Mapping[str, Any]]) -> dict[str, Measure]:
        """Return the measures over this process and others' saved evidence."""
        sums = self.sums()
        for saved in others.values():
            sums.add(saved)
        return sums.measures(self.plan)


def _comparisons(one: Criterion) -> list[tuple[str, Comparison]]:
    """Return the comparisons that a criterion needs, by name."""
    metric = one.metric
    if metric == LATENCY:
        made = [(metric, Comparison(SLOW))]
        if one.margin is not None:
            made.append((f"{metric}/margin", Comparison(SLOW)))
        if one.limit is not None:
            made.append((f"{metric}/limit", Comparison(claim=SLOW)))
        return made
    if metric == ANSWERS:
        return [(f"{metric}/{number}", Comparison(one.tolerance)) for number in range(BINS)]
    made = [(metric, Comparison(0.0 if metric == VALUE else one.tolerance / scale_of(metric)))]
    if one.limit is not None and metric != VALUE:
        claim = {QUALITY: 1.0 - one.limit, COST: 0.5}.get(metric, one.limit)
        made.append((f"{metric}/limit", Comparison(claim=claim)))
    return made


def bin_of(answer: Any) -> int:
    """Return the group of an answer: equal short answers are in one, texts by their length."""
    if isinstance(answer, str) and len(answer) > TEXT_CHARS:
        return int(math.log2(len(answer))) % BINS
    if isinstance(answer, float) and not answer.is_integer() and math.isfinite(answer):
        return int(math.log2(abs(answer) + 1e-9)) % BINS
    if isinstance(answer, float) and math.isfinite(answer):
        answer = int(answer)
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer % BINS
    return zlib.crc32(str(answer)[:1024].encode()) % BINS


def quantile(values: deque[float], share: float) -> float:
    """Return a quantile of some values."""
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)]
