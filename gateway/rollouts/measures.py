"""Turns evidence on a rollout into measures: of one process, or the sum over several."""

import math
from collections.abc import Mapping
from typing import Any

from tollway.gateway.rollouts.model import (
    ANSWERS,
    COST,
    GOOD,
    LATENCY,
    Criterion,
    Measure,
    RolloutPlan,
)
from tollway.policies.evidence.comparison import Comparison

SLOW = 0.05  # of the stable version's requests are slower than its p95
COST_RANGE = 4.0
BINS = 16


class Sums:
    """Evidence that can be added up: comparisons, the usual cost, agreement and the p95s."""

    # The mutable state is all of it.

    def __init__(
        self,
        comparisons: dict[str, Comparison],
        *,
        usual_nano: float = 0.0,
        agreed: tuple[float, float] = (0.0, 0.0),
        p95s_s: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """`agreed`: answers compared, and the sum of agreement; `p95s_s`: of both versions."""
        self.comparisons = comparisons
        self.usual_nano = usual_nano
        self.agreed = agreed
        self.p95s_s = p95s_s

    def add(self, saved: Mapping[str, Any]) -> bool:
        """Add another process' evidence; False, and nothing is added, if it is of another kind.

        That is evidence of another version of the gateway, or by another configuration.
        """
        try:
            loaded = {n: Comparison.load(one) for n, one in saved["comparisons"].items()}
            usual_nano, (stable_s, candidate_s) = float(saved["usual_nano"]), saved["p95_s"]
            count, agreement = saved["agreed"]
        except (ValueError, KeyError, TypeError):
            return False
        if loaded.keys() != self.comparisons.keys() or any(
            found.claims != self.comparisons[name].claims for name, found in loaded.items()
        ):
            return False
        for name, found in loaded.items():
            self.comparisons[name].add(found)
        self.usual_nano = self.usual_nano or usual_nano
        self.agreed = (self.agreed[0] + count, self.agreed[1] + agreement)
        self.p95s_s = (max(self.p95s_s[0], stable_s), max(self.p95s_s[1], candidate_s))
        return True

    def save(self) -> dict[str, Any]:
        """Return the evidence as JSON types."""
        return {
            "comparisons": {name: one.save() for name, one in self.comparisons.items()},
            "usual_nano": self.usual_nano,
            "agreed": list(self.agreed),
            "p95_s": list(self.p95s_s),
        }

    def measures(self, plan: RolloutPlan) -> dict[str, Measure]:
        """Return the measure of each criterion of which the candidate has values."""
        found = {}
        for one in plan.criteria:
            measure = _measure(one, self, plan)
            if measure is not None:
                found[one.metric] = measure
        return found


def scale_of(metric: str) -> float:
    """Return how much of a criterion's unit a value of 1 is; a cost is relative to the usual."""
    return COST_RANGE if metric == COST else 1.0


def _measure(one: Criterion, of: Sums, plan: RolloutPlan) -> Measure | None:
    """Return a criterion's measure; None without values of the candidate."""
    sums = of.comparisons
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
        stable_s, candidate_s = of.p95s_s
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
    scale = scale_of(one.metric)
    difference, radius = sum_.difference * scale, sum_.radius(plan.alpha) * scale
    stable, candidate = sum_.stable.mean * scale, sum_.candidate.mean * scale
    low, high = difference - radius, difference + radius
    met = one.margin is not None and high <= one.margin
    if one.metric == COST:
        stable, candidate = stable * of.usual_nano / 1e9, candidate * of.usual_nano / 1e9
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
