"""Bets against the claim that a candidate's mean is at most a stable version's plus a tolerance.

A bet is on a block of m candidate values x and n stable values y, all in [0, 1]. With rates
p > p' + tolerance in mind, it pays

    product over x of f(x; p, q) * product over y of f(y; p', q')
    f(x; p, q) = (1 - x) (1 - p) / (1 - q) + x p / q,    q = q' + tolerance

where q' solves m (p - q) / (q (1 - q)) + n (p' - q') / (q' (1 - q')) = 0. The mean of f is linear
in the mean of x, so the logarithm of the mean payout is concave along the boundary of the claim;
its derivative there is 0 at q', where the payout is 1. Hence the bet pays at most 1 in the mean
under the claim, for any values in [0, 1]. p' is the stable mean so far, and the alternatives are
p' + tolerance + each of EXCESS. For rates these are the E-variables of Turner, Ly and Grünwald
(Generic E-variables for exact sequential k-sample tests, 2024, arXiv 2106.02693), which need a
third of the values that bets on the difference of the means need when errors are rare.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

EXCESS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.6)
"""Alternatives: by how much the candidate may be worse than tolerated."""

RATE_MAX = 0.999
COARSE = 0.05  # rates from which a thousandth more or less changes no bet by much
PRODUCT_MAX = 30  # factors of one logarithm, each within [1e-3, 1e4]: no overflow
NEWTON_MAX = 60
ROOT_MAX = 1e-12


def log_payouts(
    rate: float,
    xs: Sequence[float],
    ys: Sequence[float],
    tolerance: float,
    claim: float | None = None,
) -> list[float]:
    """Return the logarithm of what a bet pays on a block, for each alternative.

    `rate` is what is known of the stable version before the block; with a `claim`, the candidate is
    compared with that mean instead, and there are no `ys`.
    """
    rate = round(rate, 4 if rate < COARSE else 3)  # so that most bets have been computed
    ones, zeros, parts = _sorted(xs)
    others, nulls, halves = _sorted(ys)
    logs = []
    for bet in _bets(rate, len(xs), len(ys), tolerance, claim):
        paid = ones * bet.log_one + zeros * bet.log_zero
        paid += others * bet.log_stable_one + nulls * bet.log_stable_zero
        if parts:
            paid += _log_product(parts, bet.zero, bet.one)
        if halves:
            paid += _log_product(halves, bet.stable_zero, bet.stable_one)
        logs.append(paid)
    return logs


class Bet:
    """What a bet pays for a value of the candidate and of the stable version, 1 or 0; and logs."""

    __slots__ = (
        *("log_one", "log_stable_one", "log_stable_zero", "log_zero"),
        *("one", "stable_one", "stable_zero", "zero"),
    )

    def __init__(self, one: float, zero: float, stable_one: float, stable_zero: float) -> None:
        self.one, self.zero = one, zero
        self.stable_one, self.stable_zero = stable_one, stable_zero
        self.log_one, self.log_zero = math.log(one), math.log(zero)
        self.log_stable_one, self.log_stable_zero = math.log(stable_one), math.log(stable_zero)


def _sorted(values: Sequence[float]) -> tuple[int, int, Sequence[float]]:
    """Return how many values are 1, how many are 0, and the others: most metrics have none."""
    ones, zeros = values.count(1.0), values.count(0.0)
    if ones + zeros == len(values):
        return ones, zeros, ()
    return ones, zeros, [value for value in values if 0.0 < value < 1.0]


def _log_product(values: Sequence[float], zero: float, one: float) -> float:
    """Return the log of what a bet pays for values between 0 and 1."""
    slope = one - zero
    return sum(
        math.log(math.prod([zero + value * slope for value in values[at : at + PRODUCT_MAX]]))
        for at in range(0, len(values), PRODUCT_MAX)
    )


@lru_cache(maxsize=4096)
def _bets(rate: float, m: int, n: int, tolerance: float, claim: float | None) -> tuple[Bet, ...]:
    return tuple([_of(rate, excess, m, n, tolerance, claim) for excess in EXCESS])


def _of(  # noqa: PLR0917 - the symbols of the module's formula
    rate: float, excess: float, m: int, n: int, tolerance: float, claim: float | None
) -> Bet:
    p_stable = min(max(rate, 1e-4), RATE_MAX)
    if claim is not None:
        q = min(max(claim, 1e-4), RATE_MAX)
        p = min(q + excess, 0.5 * (1.0 + q))
        return Bet(p / q, (1.0 - p) / (1.0 - q), 1.0, 1.0)
    p = min(p_stable + tolerance + excess, RATE_MAX)
    if p <= p_stable + tolerance:
        return Bet(1.0, 1.0, 1.0, 1.0)
    q_stable = _null(p, p_stable, m, n, tolerance)
    q = q_stable + tolerance
    return Bet(
        p / q,
        (1.0 - p) / (1.0 - q),
        p_stable / q_stable,
        (1.0 - p_stable) / (1.0 - q_stable),
    )


def _null(p: float, p_stable: float, m: int, n: int, tolerance: float) -> float:
    """Return q' of the module's formula, by Newton's method within a shrinking bracket."""
    middle = (m * (p - tolerance) + n * p_stable) / (m + n)
    if tolerance == 0.0:
        return middle
    low, high, q_stable = p_stable, p - tolerance, middle
    for _ in range(NEWTON_MAX):
        q = q_stable + tolerance
        # The formula times both denominators: a cubic with the same sign.
        excess, lacking = p - q, p_stable - q_stable
        spread, spread_stable = q * (1.0 - q), q_stable * (1.0 - q_stable)
        height = m * excess * spread_stable + n * lacking * spread
        if height > 0.0:
            low = q_stable
        else:
            high = q_stable
        slope = (
            m * (excess * (1.0 - 2.0 * q_stable) - spread_stable)
            + n * (lacking * (1.0 - 2.0 * q) - spread)
        )  # fmt: skip
        step = height / slope if slope < 0.0 else math.inf
        if abs(step) < ROOT_MAX:
            # Beyond the root by less than matters, on the safe side.
            return min(q_stable - step + ROOT_MAX, p - tolerance)
        q_stable -= step
        if not low < q_stable < high:
            q_stable = 0.5 * (low + high)
    return high
