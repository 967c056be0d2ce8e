"""Which arms may be chosen at all for one request."""

from collections.abc import Sequence

from policies.types import Arm


def feasible(
    arms: Sequence[Arm],
    qualities: Sequence[float],
    floor: float | None = None,
    max_cost_usd: float | None = None,
) -> tuple[list[int], bool]:
    """Return the indices of the arms that are affordable and above a floor, and whether any was.

    A floor degrades and never empties the choice: where no affordable arm is expected to reach it,
    the best affordable one is left. Where no arm is affordable, the cheapest is.
    """
    affordable = [
        index
        for index, arm in enumerate(arms)
        if max_cost_usd is None or arm.cost_usd <= max_cost_usd
    ]
    if not affordable:
        return [min(range(len(arms)), key=lambda index: arms[index].cost_usd)], False
    if floor is None:
        return affordable, True
    above = [index for index in affordable if qualities[index] >= floor]
    if above:
        return above, True
    return [max(affordable, key=lambda index: (qualities[index], -arms[index].cost_usd))], False
