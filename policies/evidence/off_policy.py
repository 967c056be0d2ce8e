"""Estimates the quality of a policy that did not choose, from one label: with little noise.

This is the doubly robust, propensity-weighted estimate of a policy's quality on one request: the
regressor's expectation, plus the surprise at the arm that was drawn, weighted by how much likelier
the policy would have drawn it. It is unbiased whatever the regressor predicts, if every arm that
the policy could draw had a chance (Dudik, Erhan, Langford and Li, Doubly robust policy evaluation
and optimization, Statistical Science 29 (4), 2014). Each estimate comes with the bounds that were
known before the draw: they limit what a bet on it may risk (`confidence_sequences`).
"""

from collections.abc import Sequence

from tollway.policies.types import Choice

OffPolicyEstimate = tuple[float, float, float]
"""(estimate, least, most): the last two as known before the draw."""


def estimated(choice: Choice, quality: float, wanted: Sequence[float]) -> OffPolicyEstimate:
    """Return the label's estimate of the quality of `wanted`, in place of the choice's own pmf.

    `quality` is that of the choice's arm. `wanted` may also be a difference of two distributions:
    the estimate is of the difference of their qualities.
    """
    expected = dot(wanted, choice.quality_hat)
    least = most = expected
    for mine, drawn, hat in zip(wanted, choice.pmf, choice.quality_hat, strict=True):
        if drawn > 0.0:
            ends = -mine / drawn * hat, mine / drawn * (1.0 - hat)
            least, most = min(least, expected + min(ends)), max(most, expected + max(ends))
    index = choice.index
    weight = wanted[index] / choice.pmf[index]
    return expected + weight * (quality - choice.quality_hat[index]), least, most


def weighted(choice: Choice, quality: float) -> OffPolicyEstimate:
    """Return the label's estimate for the policy that was held back, without a regressor.

    For cascades, where the value of an arm depends on what follows. Losses are weighted, not
    qualities: losses are rarer.
    """
    weight, most = onward(choice)
    return 1.0 - weight * (1.0 - quality), 1.0 - most, 1.0


def onward(choice: Choice) -> tuple[float, float]:
    """Return (how many times likelier the learned policy alone would have come here, its maximum).

    Both are over all stages so far. The first is the request's own weight. The second was known
    before any draw, so it may decide what is staked on the request.
    """
    if not choice.shadow:
        return choice.reached, choice.reached_most
    weights = [
        mine / drawn if drawn > 0.0 else 0.0
        for mine, drawn in zip(choice.shadow, choice.pmf, strict=True)
    ]
    return choice.reached * weights[choice.index], choice.reached_most * max(weights)


def own_part(choice: Choice) -> float:
    """Return the learned policy's own share of requests like this one, at least."""
    return 1.0 / max(onward(choice)[1], 1.0)


def standing_for(weight: float, estimate: OffPolicyEstimate) -> OffPolicyEstimate:
    """Return an estimate that stands for `weight` answers, 1 in the mean: losses are weighted."""
    if weight == 1.0:
        return estimate
    value, least, most = (1.0 - weight * (1.0 - part) for part in estimate)
    return value, least, most


def covered(wanted: Sequence[float], drawn: Sequence[float]) -> bool:
    """Whether every wanted arm had a chance: otherwise `wanted` cannot be estimated."""
    return all(p > 0.0 or mine == 0.0 for mine, p in zip(wanted, drawn, strict=True))


def held_back(pmf: Sequence[float], index: int, share: float) -> list[float]:
    """Return the mix of `share` of `pmf` and, for the rest, one arm for certain."""
    mixed = [share * p for p in pmf]
    mixed[index] += 1.0 - share
    return mixed


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the sum of the products."""
    return sum([a * b for a, b in zip(left, right, strict=True)])
