"""Policies that do not learn what a request needs: the bars that a learned one must clear."""

from collections.abc import Callable, Mapping, Sequence
from random import Random

from tollway.policies.evidence.drift import Change
from tollway.policies.sampling import certain, draw
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import Arm, Choice, Context, Notice


class Baseline:
    """The parts of the port that a policy without multipliers leaves empty."""

    kind = "baseline 1"
    version = 0

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Spend is nothing to it."""

    def pace(self, allowance_usd: float | None, scope: str = "") -> None:
        """Nor is the allowance."""

    def reprice(self, arm: str, ratio: float) -> None:
        """Prices are read from the arms, every time."""

    def resolve_due(self) -> bool:
        """Nothing is ever due."""
        return False

    def resolve(self) -> None:
        """Nothing is solved."""

    def learn(
        self,
        context: Context,
        choice: Choice,
        arm: str,
        quality: float,
        weight: float = 1.0,
        *,
        belief: float = 1.0,
    ) -> None:
        """Nothing is learned."""

    def drain(self) -> list[Change | Notice]:
        """Return nothing: nobody watches."""
        return []

    def figures(self) -> dict[str, float]:
        """Return nothing: there is nothing to tell."""
        return {}

    def save(self) -> bytes:
        """Return the empty state."""
        return pack(self.kind, {}, {})

    def load(self, state: bytes) -> None:
        """Take the empty state; ValueError where it is another's."""
        unpack(self.kind, state)

    def adopt(self, state: bytes) -> None:
        """Take what another process has learned."""
        self.load(state)


def _choice(arms: Sequence[Arm], pmf: tuple[float, ...], index: int, reason: str) -> Choice:
    return Choice(
        arms=tuple([arm.name for arm in arms]),
        pmf=pmf,
        index=index,
        quality_hat=tuple([arm.prior_quality or 0.0 for arm in arms]),
        cost_hat_usd=tuple([arm.cost_usd for arm in arms]),
        shadow_price=0.0,
        reason=reason,
        version=0,
    )


class Fixed(Baseline):
    """Always one arm: the one named, or the one that a rule names."""

    kind = "fixed 1"

    def __init__(self, rule: Callable[[Sequence[Arm]], int | None]) -> None:
        """`rule` returns the index of the arm, None where it is not among those offered."""
        self._rule = rule

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Return the arm, or the cheapest there is with reason `unavailable`."""
        index = self._rule(arms)
        reason = "fixed"
        if index is None:
            index, reason = cheapest(arms), "unavailable"
        return _choice(arms, certain(len(arms), index), index, reason)


def named(name: str) -> Callable[[Sequence[Arm]], int | None]:
    """Return the rule that takes the arm of this name."""
    return lambda arms: next((at for at, arm in enumerate(arms) if arm.name == name), None)


def cheapest(arms: Sequence[Arm]) -> int:
    """Return the index of the arm that costs least."""
    return min(range(len(arms)), key=lambda index: arms[index].cost_usd)


def max_price(arms: Sequence[Arm]) -> int:
    """Return the index of the arm that costs most."""
    return max(range(len(arms)), key=lambda index: arms[index].cost_usd)


class MostAccurate(Fixed):
    """The arm with the best mean label; before labels, the best declared, then the dearest."""

    kind = "most_accurate 1"

    def __init__(self) -> None:
        super().__init__(self._best)
        self._sums: dict[str, list[float]] = {}

    def _best(self, arms: Sequence[Arm]) -> int:
        def worth(index: int) -> tuple[float, float]:
            arm = arms[index]
            total, count = self._sums.get(arm.name, (0.0, 0.0))
            # 10: what an operator declares counts as ten labels.
            prior = 0.5 if arm.prior_quality is None else arm.prior_quality
            return (total + 10.0 * prior) / (count + 10.0), arm.cost_usd

        return max(range(len(arms)), key=worth)

    def learn(
        self,
        context: Context,
        choice: Choice,
        arm: str,
        quality: float,
        weight: float = 1.0,
        *,
        belief: float = 1.0,
    ) -> None:
        """Count a label in [0, 1]."""
        if not 0.0 <= quality <= 1.0:
            raise ValueError(f"a quality of {quality}, not in [0, 1]")
        sums = self._sums.setdefault(arm, [0.0, 0.0])
        sums[0] += belief * quality
        sums[1] += belief
        self.version += 1

    def save(self) -> bytes:
        """Return the means, with a checksum."""
        return pack(self.kind, {"sums": self._sums, "version": self.version}, {})

    def load(self, state: bytes) -> None:
        """Take a saved state; see the port."""
        values, _ = unpack(self.kind, state)
        self._sums = {arm: [float(total), float(n)] for arm, (total, n) in values["sums"].items()}
        self.version = int(values["version"])


class Weighted(Baseline):
    """Each arm with a fixed share of the requests, such as 90 and 10 %, whatever they ask."""

    kind = "weighted 1"

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights` by name of arm, none negative; those of the arms offered are scaled to 1."""
        if not weights or not all(0.0 <= weight < 1e9 for weight in weights.values()):
            raise ValueError(f"weights {dict(weights)}: each must be finite and not negative")
        if not sum(weights.values()):
            raise ValueError(f"weights {dict(weights)}: one must be above 0")
        self._weights = dict(weights)

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw an arm by its weight; where none has any, evenly, with reason `unavailable`."""
        shares = [self._weights.get(arm.name, 0.0) for arm in arms]
        total = sum(shares)
        reason = "weighted" if total else "unavailable"
        pmf = [share / total if total else 1.0 / len(arms) for share in shares]
        return _choice(arms, tuple(pmf), draw(pmf, rng), reason)
