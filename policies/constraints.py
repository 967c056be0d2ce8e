"""Decides which arms may be chosen for one request."""

from collections.abc import Sequence


def feasible(
    qualities: Sequence[float],
    costs_usd: Sequence[float],
    floor: float | None = None,
    max_cost_usd: float | None = None,
) -> tuple[list[int], bool]:
    """Return the indices of the arms that are affordable and above a floor, and whether any was.

    The floor never empties the choice: if no affordable arm is expected to reach it, the best
    affordable arm remains. If no arm is affordable, the cheapest remains.
    """
    every = range(len(costs_usd))
    affordable = [at for at in every if max_cost_usd is None or costs_usd[at] <= max_cost_usd]
    if not affordable:
        return [min(every, key=costs_usd.__getitem__)], False
    if floor is None:
        return affordable, True
    above = [at for at in affordable if qualities[at] >= floor]
    if above:
        return above, True
    return [max(affordable, key=lambda at: (qualities[at], -costs_usd[at]))], False
