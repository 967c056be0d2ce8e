"""Draws one of a few arms in one pass.

Nearly every request has few arms, no floor of its own, and the same best arm at both shadow prices.
For those this does what `Lagrangian._draw` and `Exploration.pmf` do, with the same arithmetic in
the same order, so that the probabilities are equal to the last bit:
`tests/unit/policies/test_few_arms.py` compares them. It saves the values that pass between them.
"""

import math
from collections.abc import Sequence
from random import Random

from tollway.policies.exploration import CUBIC, ERROR_MIN, FAR, GREEDY, LINEAR, Exploration
from tollway.policies.pacing.multiplier import Prices
from tollway.policies.sampling import cap_extra
from tollway.policies.types import Choice

FEW = 8  # with more, building lists costs less than what they hold


def draw_among_few(  # noqa: PLR0912, PLR0915, PLR0917 - calls would take as long
    explore: Exploration,
    names: tuple[str, ...],
    qualities: Sequence[float],
    costs: Sequence[float],
    errors: Sequence[float],
    prices: Prices,
    base_usd: float,
    scopes: tuple[str, ...],
    version: int,
    rng: Random,
) -> tuple[Choice, float] | None:
    """Return the choice, and the expected extra cost of exploration in dollars.

    None, and nothing drawn, if the best arms at the two prices differ. At most `explore.short_list`
    arms, all eligible. `base_usd`: the cost that the exploration budget is a share of.
    """
    count, price = len(qualities), prices.high
    scores, odds, pmf = [0.0] * count, [0.0] * count, [0.0] * count
    best, top = -math.inf, 0
    for at, quality in enumerate(qualities):
        score = scores[at] = quality - price * costs[at]
        if score > best:
            best, top = score, at
    if prices.share != 0.0:
        apart, other, best_at_low = price - prices.low, 0, -math.inf
        for at, score in enumerate(scores):
            at_low = score + apart * costs[at]
            if at_low > best_at_low:
                best_at_low, other = at_low, at
        if other != top:
            return None
    unit, own_error = explore.scale * explore.scale, errors[top] + ERROR_MIN
    total = 0.0
    for at, score in enumerate(scores):
        gap = best - score
        odd = 1.0
        if at != top:
            odd = 0.0
            if gap <= 1.0 - qualities[at]:
                odd = 1.0 / (count + GREEDY * gap)
                square = gap * gap / (unit * (errors[at] + own_error))
                if square < FAR:
                    z = math.sqrt(square)
                    near = math.exp(-z * (LINEAR + CUBIC * square))
                    if near > odd:  # noqa: PLR1730 - without a call
                        odd = near
        odds[at] = odd
        total += odd
    even = 1.0 / count
    least = even if even < explore.p_min else explore.p_min
    rest = (1.0 - count * least) / total
    own = costs[top]
    total, extra = 0.0, 0.0
    for at, odd in enumerate(odds):
        p = pmf[at] = least + rest * odd
        if at == top:
            continue
        total += p
        more = costs[at] - own
        if more > 0.0:
            extra += p * more
    pmf[top] = 1.0 - total
    limit = explore.share * base_usd
    if extra > limit:
        cap_extra(pmf, top, costs, extra=extra, limit=limit)
        extra = limit
    left = rng.random()
    for index, p in enumerate(pmf):  # noqa: B007 - the index is what was drawn
        left -= p
        if left < 0.0:
            break
    else:  # rounding left a remainder after the last arm
        index = max(range(count), key=pmf.__getitem__)
    choice = Choice(
        names,
        tuple(pmf),
        index,
        tuple(qualities),
        tuple(costs),
        price,
        "best" if index == top else "explore",
        version,
        (),
        1.0,
        "",
        scopes,
    )
    return choice, extra
