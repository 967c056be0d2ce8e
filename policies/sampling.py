"""Turns scores into probabilities, and probabilities into one draw.

Inverse gap weighting (SquareCB: Foster and Rakhlin 2020, arXiv 2002.04926): with b the best of K
arms, p_a = 1 / (K + gamma * (s_b - s_a)) for the others, and b has the rest. The expected extra
spend of the exploration is then capped, so that a dear arm is tried rarely when money is tight.
"""

from collections.abc import Sequence
from random import Random


def inverse_gap(
    scores: Sequence[float], gammas: Sequence[float], p_min: float = 0.0
) -> list[float]:
    """Return probabilities over arms; `gammas` say how greedy to be against each of them.

    `p_min` is the least probability of an arm, at most 1 / K.
    """
    best = max(scores)
    count = len(scores)
    floor = min(p_min, 1.0 / count)
    pmf = [
        max(1.0 / (count + gamma * (best - score)), floor)
        for score, gamma in zip(scores, gammas, strict=True)
    ]
    top = scores.index(best)
    pmf[top] = 0.0
    pmf[top] = 1.0 - sum(pmf)
    return pmf


def cap_extra(pmf: list[float], top: int, costs: Sequence[float], limit: float) -> float:
    """Scale the probabilities of arms dearer than `top` down to an expected extra cost of `limit`.

    Changes `pmf` in place; what is taken goes to `top`. Returns the expected extra cost, net of the
    cap, in the unit of `costs`.
    """
    own = costs[top]
    extra = sum([p * (cost - own) for p, cost in zip(pmf, costs, strict=True) if cost > own])
    if extra <= limit:
        return extra
    scale = limit / extra
    for index, cost in enumerate(costs):
        if cost > own:
            pmf[index] *= scale
    pmf[top] = 0.0
    pmf[top] = 1.0 - sum(pmf)
    return limit


def draw(pmf: Sequence[float], rng: Random) -> int:
    """Return the index of one arm, drawn with these probabilities."""
    left = rng.random()
    for index, p in enumerate(pmf):
        left -= p
        if left < 0.0:
            return index
    # Rounding left a sliver beyond the last: it belongs to the likeliest.
    return max(range(len(pmf)), key=pmf.__getitem__)


def certain(count: int, index: int) -> tuple[float, ...]:
    """Return the probabilities of a choice without chance."""
    return tuple([float(at == index) for at in range(count)])
