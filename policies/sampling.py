"""Probabilities: caps their expected extra cost, and draws from them."""

from collections.abc import Sequence
from random import Random


def cap_extra(
    pmf: list[float], top: int, costs: Sequence[float], *, extra: float, limit: float
) -> None:
    """Lower the expected extra cost of arms more expensive than `top` from `extra` to `limit`.

    Changes `pmf` in place: the probabilities of those arms are scaled down, and the difference goes
    to `top`.
    """
    own, scale = costs[top], limit / extra
    for index, cost in enumerate(costs):
        if cost > own:
            pmf[index] *= scale
    pmf[top] = 0.0
    pmf[top] = 1.0 - sum(pmf)


def draw(pmf: Sequence[float], rng: Random) -> int:
    """Return the index of one arm, drawn with these probabilities."""
    left = rng.random()
    for index, p in enumerate(pmf):
        left -= p
        if left < 0.0:
            return index
    # Rounding left a remainder after the last arm: assign it to the likeliest.
    return max(range(len(pmf)), key=pmf.__getitem__)


def certain(count: int, index: int) -> tuple[float, ...]:
    """Return the probabilities of a deterministic choice."""
    return tuple([float(at == index) for at in range(count)])
