"""Compares a candidate's mean with a stable version's, as evidence that is valid at all times.

Values are in [0, 1] and count as harm: an error, 1 minus the quality, a cost as a share of a bound.
The claim to refute is

    candidate's mean <= stable's mean + tolerance

It is tested by bets on blocks of concurrent values, each of m candidate values x and n stable
values y, so that a change that affects both versions refutes nothing. With rates p > p' + tolerance
in mind, a bet pays

    product over x of f(x; p, q) * product over y of f(y; p', q')
    f(x; p, q) = (1 - x) (1 - p) / (1 - q) + x p / q,    q = q' + tolerance

where q' solves m (p - q) / (q (1 - q)) + n (p' - q') / (q' (1 - q')) = 0. The mean of f is linear
in the mean of x, so the logarithm of the mean payout is concave along the boundary of the claim;
its derivative there is 0 at q', where the payout is 1. Hence the bet pays at most 1 in the mean
under the claim, for any values in [0, 1], and the product of bets is a supermartingale: it reaches
1 / alpha with probability at most alpha, however often one looks (Ville 1939). p' is the stable
mean so far, and the alternatives are p' + tolerance + each of EXCESS; their average by WEIGHTS is
the evidence. For rates these are the E-variables of Turner, Ly and Grünwald (Generic E-variables
for exact sequential k-sample tests, 2024, arXiv 2106.02693), which need a third of the values that
bets on the difference of the means need when errors are rare.

The logarithms add up over processes. A client that stays on one version makes values dependent: if
the sums of CLUSTERS groups of keys vary `d` times as much as independent values would (the design
effect of Rao and Scott 1981), there are only 1 / d as many observations, so the logarithms are
divided by d. This is exact for independent values, and approximate for others.

Intervals of the difference are asymptotic confidence sequences (Waudby-Smith, Arbour, Sinha,
Kennedy and Ramdas, Annals of Statistics 52 (6), 2024), with variances by the same groups.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

EXCESS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.6)
"""Alternatives: by how much the candidate may be worse than tolerated."""
WEIGHTS = (0.1, 0.2, 0.3, 0.2, 0.1, 0.1)
"""Their weights in the evidence: most for a twentieth, which is to be found soon."""

CLUSTERS = 64  # groups of keys: variances have 63 degrees of freedom, and a state is 4 KB
CLUSTERS_MIN = 10  # with fewer, each group counts as one observation
BLOCK_MAX = 1000  # values that wait for the other version; more are dropped
EARLY = 20.0  # values for which the first guess of the stable rate stands
FIRST_RATE = 0.02
COARSE = 0.05  # rates from which a thousandth more or less changes no bet by much
USUAL = 500.0  # candidate values at which an interval is narrowest
RATE_MAX = 0.999
PRODUCT_MAX = 30  # factors of one logarithm, each within [1e-3, 1e4]: no overflow
NEWTON_MAX = 60
ROOT_MAX = 1e-12


@dataclass(slots=True)
class Arm:
    """The values of one version: count, sum, sum of squares, and count and sum by group."""

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    counts: list[float] = field(default_factory=lambda: [0.0] * CLUSTERS)
    totals: list[float] = field(default_factory=lambda: [0.0] * CLUSTERS)

    def observe(self, value: float, cluster: int) -> None:
        """Count a value of a group of keys."""
        self.count += 1.0
        self.total += value
        self.squares += value * value
        self.counts[cluster] += 1.0
        self.totals[cluster] += value

    @property
    def mean(self) -> float:
        """The mean; 0 without values."""
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """The variance of single values."""
        return max(self.squares / self.count - self.mean**2, 0.0) if self.count else 0.0

    @property
    def keys(self) -> int:
        """How many groups of keys have values."""
        return sum(1 for count in self.counts if count)

    @property
    def design_effect(self) -> float:
        """How much more the sums of the groups vary than those of independent values; at least 1.

        With few groups, as if the values of each were the same.
        """
        if self.count < 2.0:
            return 1.0
        keys, mean, variance = self.keys, self.mean, self.variance
        effect = 1.0
        if variance > 0.0 and keys > 1:
            spread = sum(
                (total - count * mean) ** 2
                for count, total in zip(self.counts, self.totals, strict=True)
                if count
            )
            effect = max(spread / (self.count * variance) * keys / (keys - 1.0), 1.0)
        return effect if keys >= CLUSTERS_MIN else max(effect, self.count / max(keys, 1))

    def add(self, other: "Arm") -> None:
        """Add another process' values."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.totals = [a + b for a, b in zip(self.totals, other.totals, strict=True)]

    def save(self) -> list[Any]:
        """Return the state as JSON types."""
        return [self.count, self.total, self.squares, self.counts, self.totals]

    @classmethod
    def load(cls, state: Sequence[Any]) -> "Arm":
        """Return a saved state; ValueError if it is of another kind."""
        count, total, squares, counts, totals = state
        if len(counts) != CLUSTERS or len(totals) != CLUSTERS:
            raise ValueError(f"{len(counts)} groups of keys, not {CLUSTERS}")
        return cls(count, total, squares, list(counts), list(totals))


class Comparison:
    """The evidence of one process on one metric, or the sum over several."""

    # The mutable state is both versions' values, the log payouts, and the open block.

    def __init__(self, tolerance: float = 0.0, claim: float | None = None) -> None:
        """`claim`: compare the candidate with this fixed mean, not with the stable version."""
        self.stable, self.candidate = Arm(), Arm()
        self.logs = [0.0] * len(EXCESS)
        self._tolerance = tolerance
        self._claim = claim
        self._block: tuple[list[float], list[float]] = ([], [])

    def observe(self, value: float, cluster: int, *, candidate: bool) -> None:
        """Count a value in [0, 1] of the group `cluster` in [0, CLUSTERS)."""
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a value of {value}, not in [0, 1]")
        if self._claim is not None:
            if candidate:
                self._bet([value], [])
        else:
            xs, ys = self._block
            side, other = (xs, ys) if candidate else (ys, xs)
            side.append(value)
            if len(side) > BLOCK_MAX:
                side.clear()
            elif other:
                # The block ends before this version's next value, whatever that is.
                self._bet(xs, ys)
                xs.clear()
                ys.clear()
        (self.candidate if candidate else self.stable).observe(value, cluster)

    def _bet(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Bet on a block; the bets are fixed by the values before it."""
        if self._claim is None:
            stable = self.stable
            rate = (stable.total + EARLY * FIRST_RATE) / (stable.count + EARLY)
        else:
            rate = self._claim
        rate = round(rate, 4 if rate < COARSE else 3)  # so that most bets have been computed
        bets = _bets(rate, len(xs), len(ys), self._tolerance, self._claim)
        ones, zeros, parts = _sorted(xs)
        others, nulls, halves = _sorted(ys)
        logs = self.logs
        for at, bet in enumerate(bets):
            paid = ones * bet.log_one + zeros * bet.log_zero
            paid += others * bet.log_stable_one + nulls * bet.log_stable_zero
            if parts:
                paid += _log_product(parts, bet.zero, bet.one)
            if halves:
                paid += _log_product(halves, bet.stable_zero, bet.stable_one)
            logs[at] += paid

    def add(self, other: "Comparison") -> None:
        """Add another process' evidence."""
        self.stable.add(other.stable)
        self.candidate.add(other.candidate)
        self.logs = [a + b for a, b in zip(self.logs, other.logs, strict=True)]

    @property
    def claims(self) -> tuple[float, float | None]:
        """What it tests: the tolerance and the fixed mean. Only evidence of one claim adds up."""
        return self._tolerance, self._claim

    @property
    def log_evidence(self) -> float:
        """The logarithm of the evidence against the claim."""
        effect = self.candidate.design_effect
        if self._claim is None:
            effect = self._effect()
        logs = [log / effect for log in self.logs]
        most = max(logs)
        parts = [weight * math.exp(log - most) for weight, log in zip(WEIGHTS, logs, strict=True)]
        return most + math.log(sum(parts))

    def _effect(self) -> float:
        """Return the design effect of the difference of the means."""
        noise = mass = 0.0
        for arm in (self.stable, self.candidate):
            if arm.count:
                part = max(arm.variance, 1e-12) / arm.count
                noise += part * arm.design_effect
                mass += part
        return noise / mass if mass else 1.0

    @property
    def difference(self) -> float:
        """Candidate minus stable, or minus the claim."""
        if self._claim is not None:
            return self.candidate.mean - self._claim
        return self.candidate.mean - self.stable.mean

    def radius(self, alpha: float) -> float:
        """Return the half-width of the difference's interval, which holds at all times together."""
        count = self.candidate.count
        if not count or not (self.stable.count or self._claim is not None):
            return 1.0
        square = 0.0
        for arm in (self.stable, self.candidate):
            if arm.count and not (arm is self.stable and self._claim is not None):
                square += arm.variance * arm.design_effect / arm.count
        tuned = -2.0 * math.log(alpha)
        rho = count * (tuned + math.log(tuned) + 1.0) / USUAL
        radius = math.sqrt(square * (rho + 1.0) / rho * math.log((rho + 1.0) / alpha**2))
        # Without any harm seen the variance is 0: the bound of a rate is then that of Poisson's.
        least = -math.log(alpha / 2.0) * self.candidate.design_effect / count
        return min(max(radius, least), 1.0)

    def save(self) -> dict[str, Any]:
        """Return the state as JSON types; the open block, at most a few values, is left out."""
        return {
            "logs": self.logs,
            "stable": self.stable.save(),
            "candidate": self.candidate.save(),
            "tolerance": self._tolerance,
            "claim": self._claim,
        }

    @classmethod
    def load(cls, state: dict[str, Any]) -> "Comparison":
        """Return a saved state; ValueError or KeyError if it is of another kind."""
        loaded = cls(state["tolerance"], state["claim"])
        logs = [float(log) for log in state["logs"]]
        if len(logs) != len(EXCESS) or not all(map(math.isfinite, logs)):
            raise ValueError("a saved comparison whose bets do not fit")
        loaded.logs = logs
        loaded.stable, loaded.candidate = Arm.load(state["stable"]), Arm.load(state["candidate"])
        return loaded


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
