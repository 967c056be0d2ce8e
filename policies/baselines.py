"""Baseline policies, which do not learn what a request needs: a learned policy must beat them."""

from collections.abc import Callable, Mapping, Sequence
from random import Random

from tollway.policies.evidence.drift import Change
from tollway.policies.sampling import certain, draw
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import Arm, Choice, Context, Notice


class Baseline:
    """The parts of the `Policy` port that a policy without multipliers leaves empty."""

    kind = "baseline 1"
    version = 0

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Ignore the cost: a baseline does not track spend."""

    def pace(self, allowance_usd: float | None, scope: str = "") -> None:
        """Ignore the allowance."""

    def reprice(self, arm: str, ratio: float) -> None:
        """Do nothing: prices are read from the arms on every request."""

    def resolve_due(self) -> bool:
        """Return False: there is nothing to solve."""
        return False

    def resolve(self) -> None:
        """Do nothing: there are no multipliers."""

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
        """Do nothing: a baseline does not learn."""

    def drain(self) -> list[Change | Notice]:
        """Return an empty list: a baseline detects no changes."""
        return []

    def figures(self) -> dict[str, float]:
        """Return no figures."""
        return {}

    def save(self) -> bytes:
        """Return the empty state."""
        return pack(self.kind, {}, {})

    def load(self, state: bytes) -> None:
        """Check that the saved state is the empty state; ValueError if another policy saved it."""
        unpack(self.kind, state)

    def adopt(self, state: bytes) -> None:
        """Load what another process has learned."""
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
    """Always chooses one arm: a named one, or the one that a rule selects."""

    kind = "fixed 1"

    def __init__(self, rule: Callable[[Sequence[Arm]], int | None]) -> None:
        """`rule` returns the index of the arm, or None if that arm is not offered."""
        self._rule = rule

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Return the arm, or the cheapest one with reason `unavailable`."""
        index = self._rule(arms)
        reason = "fixed"
        if index is None:
            index, reason = cheapest(arms), "unavailable"
        return _choice(arms, certain(len(arms), index), index, reason)


def named(name: str) -> Callable[[Sequence[Arm]], int | None]:
    """Return a rule that selects the arm with this name."""
    return lambda arms: next((at for at, arm in enumerate(arms) if arm.name == name), None)


def cheapest(arms: Sequence[Arm]) -> int:
    """Return the index of the cheapest arm."""
    return min(range(len(arms)), key=lambda index: arms[index].cost_usd)


def max_price(arms: Sequence[Arm]) -> int:
    """Return the index of the most expensive arm."""
    return max(range(len(arms)), key=lambda index: arms[index].cost_usd)


class MostAccurate(Fixed):
    """Chooses the arm with the best mean label.

    Before there are labels, it chooses the arm with the best declared quality, then the most
    expensive.
    """

    kind = "most_accurate 1"

    def __init__(self) -> None:
        super().__init__(self._best)
        self._sums: dict[str, list[float]] = {}

    def _best(self, arms: Sequence[Arm]) -> int:
        def worth(index: int) -> tuple[float, float]:
            arm = arms[index]
            total, count = self._sums.get(arm.name, (0.0, 0.0))
            # 10: an operator's declared quality counts as ten labels.
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
        """Return the mean labels, with a checksum."""
        return pack(self.kind, {"sums": self._sums, "version": self.version}, {})

    def load(self, state: bytes) -> None:
        """Take a saved state; see the port."""
        values, _ = unpack(self.kind, state)
        self._sums = {arm: [float(total), float(n)] for arm, (total, n) in values["sums"].items()}
        self.version = int(values["version"])


class Weighted(Baseline):
    """Gives each arm a fixed share of the requests, such as 90 % and 10 %, whatever they ask."""

    kind = "weighted 1"

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights` by arm name, none negative; the weights of the offered arms are scaled to sum
        to 1.
        """
        if not weights or not all(0.0 <= weight < 1e9 for weight in weights.values()):
            raise ValueError(f"weights {dict(weights)}: each must be finite and not negative")
        if not sum(weights.values()):
            raise ValueError(f"weights {dict(weights)}: one must be above 0")
        self._weights = dict(weights)

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw an arm by weight; if all weights are 0, draw evenly, with reason `unavailable`."""
        shares = [self._weights.get(arm.name, 0.0) for arm in arms]
        total = sum(shares)
        reason = "weighted" if total else "unavailable"
        pmf = [share / total if total else 1.0 / len(arms) for share in shares]
        return _choice(arms, tuple(pmf), draw(pmf, rng), reason)
