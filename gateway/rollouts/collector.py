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
from typing import Any

from tollway.gateway.rollouts.model import (
    ANSWERS,
    COST,
    ERRORS,
    GOOD,
    INVALID,
    LATENCY,
    QUALITY,
    VALUE,
    Criterion,
    Measure,
    RolloutPlan,
)
from tollway.policies.evidence.comparison import Comparison

SLOW = 0.05  # of the stable version's requests are slower than its p95
QUANTILE = 0.96  # estimated from a window, so a little above p95: on the safe side
LATENCIES = 500  # of each version, for its p95
LATENCIES_MIN = 100
COST_RANGE = 4.0
COSTS_MIN = 20  # of the stable version, before its usual cost is known
BINS = 16
TEXT_CHARS = 32  # longer answers are told apart by their length


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
        self._p95s = {False: 0.0, True: 0.0}
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
    ) -> None:
        """Count a version's reply or failure (20 us).

        `ran`: the call may have cost something. `rejected`: the version says that the client is
        wrong; as clients err with both versions alike, one that says so more often is worse.
        """
        self.count += 1
        if rejected:  # no limit counts it: the client may be wrong
            if (comparison := self.comparisons.get(INVALID)) is not None:
                comparison.observe(1.0, cluster, candidate=candidate)
            return
        self._see(ERRORS, float(failed), cluster, candidate)
        if not failed:
            self._see(INVALID, float(invalid), cluster, candidate)
            self._latency(latency_s, cluster, candidate)
            if not invalid and ANSWERS in self._criteria:
                self._answer(bin_of(answer), cluster, candidate)
        if ran:
            self._cost(cost_nano, cluster, candidate)

    def label(
        self,
        candidate: bool,
        cluster: int,
        quality: float,
        *,
        value_usd: float | None = None,
        cost_usd: float = 0.0,
    ) -> None:
        """Count the quality of a version's answer; `value_usd` is that of a correct one."""
        self.count += 1
        self._see(QUALITY, 1.0 - quality, cluster, candidate)
        limit = self.comparisons.get(f"{QUALITY}/limit")
        if limit is not None:
            limit.observe(1.0 - quality, cluster, candidate=candidate)
        if value_usd and VALUE in self._criteria:
            lacking = (value_usd - (value_usd * quality - cost_usd)) / (2.0 * value_usd)
            self._see(VALUE, min(max(lacking, 0.0), 1.0), cluster, candidate)

    def agree(self, agreement: float) -> None:
        """Count how far a mirrored request's two answers agree, in [0, 1]."""
        self.agreed[0] += 1.0
        self.agreed[1] += agreement

    def _see(self, metric: str, value: float, cluster: int, candidate: bool) -> None:
        comparison = self.comparisons.get(metric)
        if comparison is not None:
            comparison.observe(value, cluster, candidate=candidate)
        if metric in {ERRORS, INVALID} and (limit := self.comparisons.get(f"{metric}/limit")):
            limit.observe(value, cluster, candidate=candidate)

    def _latency(self, latency_s: float, cluster: int, candidate: bool) -> None:
        criterion = self._criteria.get(LATENCY)
        if criterion is None:
            return
        window = self._latencies[candidate]
        for name, over in (
            (LATENCY, criterion.tolerance),
            (f"{LATENCY}/margin", criterion.margin),
        ):
            if self._slow_s < math.inf and over is not None and name in self.comparisons:
                slow = float(latency_s > self._slow_s * (1.0 + over))
                self.comparisons[name].observe(slow, cluster, candidate=candidate)
        if candidate and criterion.limit is not None:
            over_limit = float(latency_s > criterion.limit)
            self.comparisons[f"{LATENCY}/limit"].observe(over_limit, cluster, candidate=True)
        window.append(latency_s)
        if len(window) >= LATENCIES_MIN and self.count % 25 < 2:
            self._p95s[candidate] = quantile(window, 0.95)
            if not candidate:
                self._slow_s = quantile(window, QUANTILE)

    def _cost(self, cost_nano: int, cluster: int, candidate: bool) -> None:
        if not self._usual_nano:
            if not candidate:
                self._costs.append(cost_nano)
            if len(self._costs) < COSTS_MIN:
                return
            self._usual_nano = max(sum(self._costs) / len(self._costs), 1.0)
        share = cost_nano / (COST_RANGE * self._usual_nano)
        self._see(COST, min(share, 1.0), cluster, candidate)
        limit = self.comparisons.get(f"{COST}/limit")
        if limit is not None and candidate:
            most_nano = (self._criteria[COST].limit or 0.0) * 1e9
            if most_nano > 0.0:  # the claim: half of twice the limit
                limit.observe(min(cost_nano / (2.0 * most_nano), 1.0), cluster, candidate=True)

    def _answer(self, at: int, cluster: int, candidate: bool) -> None:
        for number in range(BINS):
            comparison = self.comparisons[f"{ANSWERS}/{number}"]
            comparison.observe(float(number == at), cluster, candidate=candidate)

    # -- evidence

    def save(self) -> dict[str, Any]:
        """Return the evidence as JSON types."""
        return {
            "comparisons": {name: one.save() for name, one in self.comparisons.items()},
            "usual_nano": self._usual_nano,
            "agreed": self.agreed,
            "p95_s": [self._p95s[False], self._p95s[True]],
        }

    def total(self, others: Mapping[str, Mapping[str, Any]]) -> dict[str, Measure]:
        """Return the measures over this process and others' saved evidence.

        Evidence of another kind, such as that of a process with another configuration, is left out.
        """
        sums = {}
        p95s, usual = dict(self._p95s), self._usual_nano
        for name, own in self.comparisons.items():
            sums[name] = Comparison.load(own.save())
        for saved in others.values():
            try:
                loaded = {n: Comparison.load(s) for n, s in saved["comparisons"].items()}
                theirs, (stable_s, candidate_s) = float(saved["usual_nano"]), saved["p95_s"]
            except (ValueError, KeyError, TypeError):
                continue  # of another version of the gateway
            if loaded.keys() != sums.keys() or any(
                found.claims != sums[name].claims for name, found in loaded.items()
            ):
                continue
            for name, found in loaded.items():
                sums[name].add(found)
            usual = usual or theirs
            p95s = {False: max(p95s[False], stable_s), True: max(p95s[True], candidate_s)}
        measures = {}
        for one in self.plan.criteria:
            measure = _measure(one, sums, self.plan, p95s, usual)
            if measure is not None:
                measures[one.metric] = measure
        return measures


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
    made = [(metric, Comparison(0.0 if metric == VALUE else one.tolerance / _scale(metric)))]
    if one.limit is not None and metric != VALUE:
        claim = {QUALITY: 1.0 - one.limit, COST: 0.5}.get(metric, one.limit)
        made.append((f"{metric}/limit", Comparison(claim=claim)))
    return made


def _scale(metric: str) -> float:
    """Return how much of a criterion's unit a value of 1 is; a cost is relative to the usual."""
    return COST_RANGE if metric == COST else 1.0


def _measure(
    one: Criterion,
    sums: Mapping[str, Comparison],
    plan: RolloutPlan,
    p95s: Mapping[bool, float],
    usual_nano: float,
) -> Measure | None:
    """Return a criterion's measure; None without values of the candidate."""
    if one.metric == ANSWERS:
        return _answers(one, [sums[f"{ANSWERS}/{number}"] for number in range(BINS)])
    sum_ = sums[one.metric]
    if not sum_.candidate.count:
        return None
    limit = sums.get(f"{one.metric}/limit")
    over = 0.0 if limit is None else limit.log_evidence
    counts = (int(sum_.stable.count), int(sum_.candidate.count))
    if one.metric == LATENCY:
        met = False
        if (near := sums.get(f"{LATENCY}/margin")) is not None and near.candidate.count:
            met = near.difference + near.radius(plan.alpha) <= SLOW
        stable_s, candidate_s = p95s[False], p95s[True]
        ratio = candidate_s / stable_s - 1.0 if stable_s else 0.0
        margin = one.margin or 0.0
        return Measure(
            LATENCY,
            stable_s,
            candidate_s,
            *counts,
            ratio,
            ratio,
            min(ratio, margin) if met else max(ratio, margin),
            sum_.log_evidence,
            over,
            sum_.candidate.keys,
            met,
        )
    scale = _scale(one.metric)
    difference, radius = sum_.difference * scale, sum_.radius(plan.alpha) * scale
    stable, candidate = sum_.stable.mean * scale, sum_.candidate.mean * scale
    low, high = difference - radius, difference + radius
    met = one.margin is not None and high <= one.margin
    if one.metric == COST:
        stable, candidate = stable * usual_nano / 1e9, candidate * usual_nano / 1e9
    elif one.metric in GOOD:
        stable, candidate = 1.0 - stable, 1.0 - candidate
        difference, low, high = -difference, -high, -low
    return Measure(
        one.metric,
        stable,
        candidate,
        *counts,
        difference,
        low,
        high,
        sum_.log_evidence,
        over,
        sum_.candidate.keys,
        met,
    )


def _answers(one: Criterion, bins: list[Comparison]) -> Measure | None:
    """Return the distance of the two distributions of answers (total variation)."""
    first = bins[0]
    if not first.candidate.count or not first.stable.count:
        return None
    distance = sum(abs(one.difference) for one in bins) / 2.0
    logs = [one.log_evidence for one in bins]
    most = max(logs)
    evidence = most + math.log(sum(math.exp(log - most) for log in logs) / len(logs))
    # Of two samples of the same distribution, each group's shares differ by about this.
    noise = math.sqrt(BINS / 4.0 * (1.0 / first.candidate.count + 1.0 / first.stable.count))
    return Measure(
        ANSWERS,
        0.0,
        distance,
        int(first.stable.count),
        int(first.candidate.count),
        distance,
        max(distance - noise, 0.0),
        min(distance + noise, 1.0),
        evidence,
        0.0,
        first.candidate.keys,
        one.margin is not None and distance + noise <= one.margin,
    )


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
