"""What one label says of a policy that did not choose: propensity-weighted, and little noisy.

The doubly robust estimate of a policy's quality on one request: what the head expects of it there,
and the surprise at the arm that was drawn, weighted by how much likelier the policy would have
drawn it. Its mean is right whatever the head says, as long as no arm that the policy could draw
had no chance (Dudik, Erhan, Langford and Li, Doubly robust policy evaluation and optimization,
Statistical Science 29 (4), 2014). With each estimate come the bounds that were known before the
draw: what a bet on it may risk (`confidence`).
"""

from collections.abc import Sequence

from tollway.policies.types import Choice

OffPolicyEstimate = tuple[float, float, float]
"""(estimate, least, most): the last two as known before the draw."""


def estimated(choice: Choice, quality: float, wanted: Sequence[float]) -> OffPolicyEstimate:
    """Return what the label says of the quality of `wanted`, in the place of the choice's own pmf.

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
    """Return what the label says of the policy that was held back, without a head.

    For cascades, where what an arm is worth depends on what follows. Losses are weighted, not
    qualities: they are the rarer.
    """
    weight, most = onward(choice)
    return 1.0 - weight * (1.0 - quality), 1.0 - most, 1.0


def onward(choice: Choice) -> tuple[float, float]:
    """Return (times likelier the learned policy alone would have come to this, the most of it).

    Over all stages so far. The first is the request's own weight; the second was known before any
    draw, so it may decide what is staked on the request.
    """
    if not choice.shadow:
        return choice.reached, choice.reached_most
    weights = [
        mine / drawn if drawn > 0.0 else 0.0
        for mine, drawn in zip(choice.shadow, choice.pmf, strict=True)
    ]
    return choice.reached * weights[choice.index], choice.reached_most * max(weights)


def own_part(choice: Choice) -> float:
    """Return the share of requests like this one that is the learned policy's own, at least."""
    return 1.0 / max(onward(choice)[1], 1.0)


def standing_for(weight: float, estimate: OffPolicyEstimate) -> OffPolicyEstimate:
    """Return an estimate that stands for `weight` answers, 1 in the mean: losses are weighted."""
    if weight == 1.0:
        return estimate
    value, least, most = (1.0 - weight * (1.0 - part) for part in estimate)
    return value, least, most


def covered(wanted: Sequence[float], drawn: Sequence[float]) -> bool:
    """Whether every arm that is wanted had a chance: else nothing can be told of `wanted`."""
    return all(p > 0.0 or mine == 0.0 for mine, p in zip(wanted, drawn, strict=True))


def held_back(pmf: Sequence[float], index: int, share: float) -> list[float]:
    """Return the mix of `share` of `pmf` and, for the rest, one arm for certain."""
    mixed = [share * p for p in pmf]
    mixed[index] += 1.0 - share
    return mixed


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the sum of the products."""
    return sum([a * b for a, b in zip(left, right, strict=True)])
