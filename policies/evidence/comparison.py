"""Compares a candidate's mean with a stable version's, as evidence that is valid at all times.

Values are in [0, 1] and count as harm: an error, 1 minus the quality, a cost as a share of a bound.
The claim to refute is

    candidate's mean <= stable's mean + tolerance

It is tested by bets on blocks of concurrent values (`bets`), so that a change that affects both
versions refutes nothing. The product of the bets is a supermartingale under the claim: it reaches
1 / alpha with probability at most alpha, however often one looks (Ville 1939). The alternatives of
a bet are EXCESS; their average by WEIGHTS is the evidence.

A block has values of one group of tenants, so the logarithm of the evidence is a sum over groups.
A tenant that wants a candidate stopped can make its own values as bad as it likes. So with other
tenants that send at least OTHERS_MIN of the values, what one group says counts at most as much as
what all others say together: the evidence is the least of that of all and, for each such group,
twice that without it. That is never more than the evidence of all, so the bound holds.

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
from typing import Any

from tollway.policies.evidence.bets import EXCESS, log_payouts

WEIGHTS = (0.1, 0.2, 0.3, 0.2, 0.1, 0.1)
"""Their weights in the evidence: most for a twentieth, which is to be found soon."""

OTHERS_MIN = 0.25
"""Share of the values that tenants other than a group's must send, for that group to be limited."""

CLUSTERS = 64  # groups of keys: variances have 63 degrees of freedom, and a state is 4 KB
CLUSTERS_MIN = 10  # with fewer, each group counts as one observation
BLOCK_MAX = 1000  # values that wait for the other version; more are dropped
EARLY = 20.0  # values for which the first guess of the stable rate stands
FIRST_RATE = 0.02
USUAL = 500.0  # candidate values at which an interval is narrowest


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

    def copy(self) -> "Arm":
        """Return a copy."""
        return Arm(self.count, self.total, self.squares, list(self.counts), list(self.totals))

    @classmethod
    def load(cls, state: Sequence[Any]) -> "Arm":
        """Return a saved state; ValueError if it is of another kind."""
        count, total, squares, counts, totals = state
        if len(counts) != CLUSTERS or len(totals) != CLUSTERS:
            raise ValueError(f"{len(counts)} groups of keys, not {CLUSTERS}")
        return cls(count, total, squares, list(counts), list(totals))


@dataclass(slots=True)
class Group:
    """The evidence of a group of tenants: values seen, log payouts, and the open block."""

    seen: float = 0.0
    logs: list[float] = field(default_factory=lambda: [0.0] * len(EXCESS))
    xs: list[float] = field(default_factory=list)
    ys: list[float] = field(default_factory=list)


class Comparison:
    """The evidence of one process on one metric, or the sum over several."""

    # The mutable state is both versions' values, and the evidence by group of tenants.

    def __init__(self, tolerance: float = 0.0, claim: float | None = None) -> None:
        """`claim`: compare the candidate with this fixed mean, not with the stable version."""
        self.stable, self.candidate = Arm(), Arm()
        self.groups: dict[int, Group] = {}
        self._tolerance = tolerance
        self._claim = claim

    def observe(self, value: float, cluster: int, *, candidate: bool, group: int = 0) -> None:
        """Count a value in [0, 1] of a group of keys in [0, CLUSTERS), and of tenants."""
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a value of {value}, not in [0, 1]")
        among = self.groups.get(group)
        if among is None:
            among = self.groups[group] = Group()
        among.seen += 1.0
        if self._claim is not None:
            if candidate:
                self._bet(among, [value], [])
        else:
            xs, ys = among.xs, among.ys
            side, other = (xs, ys) if candidate else (ys, xs)
            side.append(value)
            if len(side) > BLOCK_MAX:
                side.clear()
            elif other:
                # The block ends before this version's next value, whatever that is.
                self._bet(among, xs, ys)
                xs.clear()
                ys.clear()
        (self.candidate if candidate else self.stable).observe(value, cluster)

    def _bet(self, among: Group, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Bet on a block; the bets are fixed by the values before it."""
        if self._claim is None:
            stable = self.stable
            rate = (stable.total + EARLY * FIRST_RATE) / (stable.count + EARLY)
        else:
            rate = self._claim
        paid = log_payouts(rate, xs, ys, self._tolerance, self._claim)
        among.logs = [log + one for log, one in zip(among.logs, paid, strict=True)]

    def add(self, other: "Comparison") -> None:
        """Add another process' evidence."""
        self.stable.add(other.stable)
        self.candidate.add(other.candidate)
        for number, theirs in other.groups.items():
            own = self.groups.setdefault(number, Group())
            own.seen += theirs.seen
            own.logs = [a + b for a, b in zip(own.logs, theirs.logs, strict=True)]

    def copy(self) -> "Comparison":
        """Return a copy, without the open blocks."""
        made = Comparison(self._tolerance, self._claim)
        made.groups = {n: Group(one.seen, list(one.logs)) for n, one in self.groups.items()}
        made.stable, made.candidate = self.stable.copy(), self.candidate.copy()
        return made

    @property
    def logs(self) -> list[float]:
        """The log payouts of all groups, for each alternative."""
        return [sum(logs) for logs in zip(*[one.logs for one in self.groups.values()], strict=True)]

    @property
    def claims(self) -> tuple[float, float | None]:
        """What it tests: the tolerance and the fixed mean. Only evidence of one claim adds up."""
        return self._tolerance, self._claim

    @property
    def log_evidence(self) -> float:
        """The logarithm of the evidence against the claim; see the module for groups of tenants."""
        if not self.groups:
            return 0.0
        effect = self.candidate.design_effect if self._claim is not None else self._effect()
        all_logs, all_seen = self.logs, sum(one.seen for one in self.groups.values())
        least = _mixed(all_logs, effect)
        if len(self.groups) == 1:
            return least
        for one in self.groups.values():
            if all_seen - one.seen >= OTHERS_MIN * all_seen:
                others = [a - b for a, b in zip(all_logs, one.logs, strict=True)]
                least = min(least, 2.0 * _mixed(others, effect))
        return least

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
        """Return the state as JSON types; the open blocks, at most a few values, are left out."""
        return {
            "groups": {str(n): [one.seen, one.logs] for n, one in self.groups.items()},
            "stable": self.stable.save(),
            "candidate": self.candidate.save(),
            "tolerance": self._tolerance,
            "claim": self._claim,
        }

    @classmethod
    def load(cls, state: dict[str, Any]) -> "Comparison":
        """Return a saved state; ValueError or KeyError if it is of another kind."""
        loaded = cls(state["tolerance"], state["claim"])
        for number, (seen, saved) in state["groups"].items():
            logs = [float(log) for log in saved]
            if len(logs) != len(EXCESS) or not all(map(math.isfinite, logs)):
                raise ValueError("a saved comparison whose bets do not fit")
            loaded.groups[int(number)] = Group(float(seen), logs)
        loaded.stable, loaded.candidate = Arm.load(state["stable"]), Arm.load(state["candidate"])
        return loaded


def _mixed(logs: Sequence[float], effect: float) -> float:
    """Return the log of the average evidence of the alternatives, of dependent values."""
    parts = [log / effect for log in logs]
    most = max(parts)
    sum_ = sum(weight * math.exp(one - most) for weight, one in zip(WEIGHTS, parts, strict=True))
    return most + math.log(sum_)
