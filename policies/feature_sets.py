"""Chooses a route's features by what they are worth for routing: with the embedding, or without.

An embedding helps where words do not tell which model fits, and costs labels where they do. Neither
squared error nor an operator can tell: an ensemble chosen by error gained nothing, because errors
that change no choice do not matter. So two regressors learn every label, one with the embedding and
one without. Where both prefer the same arm, nothing can be compared and nothing is. Where they
differ, the arm is drawn from a mixture of both, with a logged probability, so each such request is
an experiment. With a, b the arms that the two would choose at price l, its label estimates the
difference of their values without bias (doubly robust, see `evidence.off_policy`):

    d = v(b) - v(a) + ([arm = b] / p_b - [arm = a] / p_a) (quality - q(arm)),   v(x) = q(x) - l c(x)

q is the mean of both predictions. The share of the set with the embedding is `LEAST` until its mean
d is `LIKELY` standard errors above 0, then the probability that it is above 0, and beyond doubt
once a bound that holds at all times excludes 0 (asymptotic confidence sequence: Waudby-Smith,
Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory, Annals of Statistics 52 (6),
2024). For the first labels the set without it leads.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from tollway.policies.evidence.signal_trust import SignalEstimate
from tollway.policies.exploration import Offer
from tollway.policies.lagrangian import WINDOW, Lagrangian, offered
from tollway.policies.pacing.multiplier import Arms, Market, Prices
from tollway.policies.pacing.scoped import MinPrice
from tollway.policies.quality import Quality
from tollway.policies.recent_contexts import RecentContexts
from tollway.policies.regressors.ridge import RidgeRegressor
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import EMBEDDING, WARM_UP, Arm, Choice, Context

KIND = "feature sets 1"
LEAST = 0.05  # share of each set while it is in doubt: its experiments go on
LIKELY = 1.0  # standard errors by which the embedding must seem better to get a larger share
SETTLED = 0.02  # share of the worse set once it is not
ALPHA = 0.05
HORIZON = 2000.0  # labels at which the bound is tightest
KEEP = 0.9998  # share of the evidence that remains after a label: some 5,000 labels count
FEW = 100.0  # labels before which neither set is preferred beyond what is presumed
CHANCE_MIN = 0.02  # of either arm: a label of a smaller one would decide everything alone


class WithoutEmbedding(RidgeRegressor):
    """A ridge regressor that does not see the embedding, which comes last in `dense`."""

    def _encode(self, context: Context) -> Any:
        plain = Context(context.dense[:-EMBEDDING], context.sparse, context.reply)
        return super()._encode(plain)


class Evidence:
    """The evidence for the embedding: the mean difference in value, and its bounds."""

    # The mutable state is the discounted sums of d and its square, and their count.

    def __init__(self) -> None:
        self.count = self.total = self.squares = 0.0

    def add(self, difference: float) -> None:
        """Count one label's difference."""
        self.count = KEEP * self.count + 1.0
        self.total = KEEP * self.total + difference
        self.squares = KEEP * self.squares + difference * difference

    @property
    def mean(self) -> float:
        """The mean difference."""
        return self.total / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation of the differences; some experiments are presumed at first."""
        if not self.count:
            return 1.0
        return math.sqrt(max((self.squares + 1.0) / (self.count + 1.0) - self.mean**2, 1e-9))

    @property
    def radius(self) -> float:
        """Half the width of the bounds, which hold at all times with probability 1 - ALPHA."""
        if not self.count:
            return 1.0
        rho = 2.0 * math.log(1.0 / ALPHA) + math.log(2.0 * math.log(1.0 / ALPHA) + 1.0)
        spread = self.count * rho / HORIZON + 1.0
        width = 2.0 * spread / (self.count**2 * rho / HORIZON) * math.log(math.sqrt(spread) / ALPHA)
        return self.deviation * math.sqrt(width)

    @property
    def share(self) -> float:
        """The share of the set with the embedding where the sets differ."""
        if self.count < FEW:
            return LEAST
        if self.mean - self.radius > 0.0:
            return 1.0 - SETTLED
        if self.mean + self.radius < 0.0:
            return SETTLED
        z = self.mean / self.deviation * math.sqrt(self.count)
        if z < LIKELY:
            return LEAST
        chance = 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))
        return min(max(chance, LEAST), 1.0 - LEAST)


class Mixture:
    """The market where a share of the requests is decided by one set, the others by another."""

    def __init__(self, first: Market, second: Market, share: float) -> None:
        """`share`: that of the second."""
        self._first, self._second, self._share = first, second, share
        self.max_cost_usd = max(first.max_cost_usd, second.max_cost_usd)

    def quality(self, price: float) -> float:
        """Return the mean quality of the choices made at a price."""
        first, second = self._first.quality(price), self._second.quality(price)
        return first + self._share * (second - first)

    def cost(self, price: float) -> float:
        """Return the mean cost in dollars of the choices made at a price."""
        first, second = self._first.cost(price), self._second.cost(price)
        return first + self._share * (second - first)


class FeatureSets(Lagrangian):
    """The lagrangian policy over two feature sets; see the module."""

    # The mutable state besides that of the policy: the other regressor, the evidence, and, during a
    # choice, the offer as the set that does not lead sees it.

    def __init__(self, *args: Any, embedded: Quality, **kwargs: Any) -> None:
        """`embedded`: predicts with the embedding; the policy's own predicts without."""
        super().__init__(*args, **kwargs)
        self._sets = (self._quality, embedded)
        self._evidence = Evidence()
        self._other: Offer | None = None
        window = int(kwargs.get("window", WINDOW))
        self._embedded_window = RecentContexts(window, embedded.table(window))

    @property
    def _leads(self) -> int:
        """Return which set leads: 1 for that with the embedding."""
        return int(self._evidence.share >= 0.5)

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw one of `arms`; see the port."""
        names, costs = offered(arms)
        offers = [
            Offer(names, *self._expected(one, context, arms, names, costs), context.scopes)
            for one in self._sets
        ]
        leads, (plain, rich) = self._leads, offers
        self._embedded_window.add(context, names, rich.qualities, costs)
        self._see(context, plain)
        self._other = offers[1 - leads]
        try:
            return self._draw(offers[leads], rng, floor)
        finally:
            self._other = None

    def _expected(
        self,
        quality: Quality,
        context: Context,
        arms: Sequence[Arm],
        names: tuple[str, ...],
        costs: list[float],
    ) -> tuple[list[float], list[float], list[float]]:
        qualities, errors = quality.expect(context, arms, names)
        return qualities, costs, errors

    def _spread(
        self, offer: Offer, eligible: list[int] | None, prices: Prices
    ) -> tuple[list[float], tuple[int, ...]]:
        """Mix the probabilities of both sets where they prefer different arms."""
        pmf, tops = super()._spread(offer, eligible, prices)
        if self._other is None:
            return pmf, tops
        explored_usd = self.explored_usd
        other, others = super()._spread(self._other, eligible, prices)
        self.explored_usd = explored_usd
        if tops == others:
            return pmf, tops
        share = self._evidence.share
        part = 1.0 - share if self._leads else share
        mixed = [p + part * (q - p) for p, q in zip(pmf, other, strict=True)]
        return mixed, (*tops, *others)

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
        """Learn the quality of an arm's answer, in both sets."""
        if arm == choice.arm and choice.reason != WARM_UP and belief == 1.0:
            self._compare(context, choice, quality)
        self._sets[1].learn(context, arm, quality, belief)
        super().learn(context, choice, arm, quality, weight, belief=belief)

    def learn_signal(
        self,
        context: Context,
        choice: Choice,
        arm: str,
        estimate: SignalEstimate,
        weight: float = 1.0,
    ) -> None:
        """Learn what signals say of an arm's answer, in both sets."""
        self._sets[1].learn_signal(context, arm, estimate.quality, estimate.belief)
        super().learn_signal(context, choice, arm, estimate, weight)

    def _compare(self, context: Context, choice: Choice, quality: float) -> None:
        """Count the label's estimate of the difference, before either set learns it."""
        costs, price = choice.cost_hat_usd, choice.shadow_price
        arms = [Arm(name, usd) for name, usd in zip(choice.arms, costs, strict=True)]
        plain, rich = (one.expect(context, arms, choice.arms)[0] for one in self._sets)
        at = [_best(qualities, costs, price) for qualities in (plain, rich)]
        if at[0] == at[1]:
            self._evidence.add(0.0)
            return
        chances = [choice.pmf[one] for one in at]
        if min(chances) < CHANCE_MIN:
            return
        mean = [(p + q) / 2.0 for p, q in zip(plain, rich, strict=True)]
        values = [mean[one] - price * costs[one] for one in at]
        odds = (choice.index == at[1]) / chances[1] - (choice.index == at[0]) / chances[0]
        surprise = quality - mean[choice.index]
        self._evidence.add(values[1] - values[0] + odds * surprise)

    def _revalue(self) -> None:
        """Recompute the qualities of the recent contexts, in both sets."""
        super()._revalue()
        self._embedded_window.requote()
        self._embedded_window.revalue(self._sets[1].rethink, self._sets[1].revalued)

    def _market(self, least: MinPrice = None) -> Market:
        """Return the expected quality and cost of the recent contexts, by the shares of the sets.

        Both decide at one price, so what both will spend together must meet the allowance.
        """
        rich = Arms(*self._embedded_window.tables(), least)
        return Mixture(super()._market(least), rich, self._evidence.share)

    def reprice(self, arm: str, ratio: float) -> None:
        """Apply an arm's new price at once; ratio = new / old."""
        super().reprice(arm, ratio)
        self._embedded_window.reprice(arm, ratio)

    def figures(self) -> dict[str, float]:
        """Return the policy's figures, and those of the embedding."""
        evidence = self._evidence
        return {
            **super().figures(),
            "embedding_share": evidence.share,
            "embedding_gain": evidence.mean,
            "embedding_gain_lower_bound": evidence.mean - evidence.radius,
        }

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""
        values = [self._evidence.count, self._evidence.total, self._evidence.squares]
        parts = {"policy": super().save(), "embedded": self._sets[1].save()}
        return pack(KIND, {"evidence": values}, parts)

    def load(self, state: bytes) -> None:
        """Take a saved state; see the port."""
        super().load(self._unpacked(state))

    def adopt(self, state: bytes) -> None:
        """Load another process's regressors and evidence, keep one's own pace; see the port."""
        super().adopt(self._unpacked(state))

    def _unpacked(self, state: bytes) -> bytes:
        values, parts = unpack(KIND, state)
        self._sets[1].load(parts["embedded"])
        evidence = self._evidence
        evidence.count, evidence.total, evidence.squares = map(float, values["evidence"])
        return parts["policy"]


def _best(qualities: Sequence[float], costs: Sequence[float], price: float) -> int:
    scores = [q - price * c for q, c in zip(qualities, costs, strict=True)]
    return scores.index(max(scores))
