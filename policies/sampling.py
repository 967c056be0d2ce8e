"""Probabilities: what they may cost, and one draw from them."""

from collections.abc import Sequence
from random import Random


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
