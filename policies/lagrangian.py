"""The policy: two regressors and one shadow price.

    q_a     expected quality of arm a for this request: a regression, learned from labels
    c_a     expected cost of arm a: today's price times usage, estimated by the caller
    lambda  the shadow price, in quality per dollar: by the pacer, the floor, or a declared value
    s_a = q_a - lambda c_a, explored within a budget

Neither regression ever sees lambda: if cost were folded into one learned reward, every old example
would be wrong when lambda moves. The theory: Slivkins, Zhou, Sankararaman and Foster, Contextual
Bandits with Packing and Covering Constraints, JMLR 25 (394), 2024.

Lambda is solved over the recent contexts: every few dozen requests, and at once when a price, an
arm or a budget changes. A budget requires the lowest lambda that is cheap enough, a floor the
highest that is good enough. Where both cannot be met, the floor takes precedence over pacing (the
hard cap is enforced by the ledger, not by lambda).
"""

import math
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

from tollway.policies.constraints import feasible
from tollway.policies.evidence.drift import Change
from tollway.policies.evidence.off_policy import dot, estimated, held_back, standing_for
from tollway.policies.evidence.signal_trust import SignalEstimate
from tollway.policies.evidence.whole_labels import Whole
from tollway.policies.exploration import Exploration, Offer, Uniform
from tollway.policies.few_arms import FEW, draw_among_few
from tollway.policies.floor import Floor
from tollway.policies.pacing.multiplier import FREE, Arms, Market, Prices
from tollway.policies.pacing.pacer import Pacer
from tollway.policies.pacing.scoped import MinPrice, ScopedPacers
from tollway.policies.quality import Quality
from tollway.policies.recent_contexts import RecentContexts
from tollway.policies.sampling import certain, draw
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import (
    ACCEPT,
    WARM_UP,
    Arm,
    Choice,
    Context,
    Notice,
    Objective,
)

KIND = "lagrangian 1"
WINDOW = 400  # contexts: enough to resolve a tenth of a cent, few enough to follow an hour
THIN = 20  # contexts after a restart: with fewer, the saved price is better than a new one
CHANGES_MAX = 100  # changes not drained yet
INFINITE = math.inf
EVERY = 25  # requests: a solution costs about a fifth of a millisecond


class Lagrangian:
    """Chooses by quality less the shadow price times cost."""

    # The mutable state is that of its parts, the price, and the events since it was solved.

    def __init__(
        self,
        objective: Objective,
        quality: Quality,
        *,
        explore: Exploration | Uniform,
        pacer: Pacer,
        floor: Floor | None,
        window: int = WINDOW,
        every: int = EVERY,
    ) -> None:
        if objective.kind == "min_cost" and floor is None:
            raise ValueError("min_cost needs a floor")
        self.version = 0
        self.changes: deque[Change | Notice] = deque(maxlen=CHANGES_MAX)
        self.explored_usd = (
            0.0  # expected cost of exploration; not saved, because a counter reads it
        )
        self.prices = FREE
        self._objective = objective
        self._baseline = objective.baseline or ""
        self._quality = quality
        self._explore = explore
        self._pacer = pacer
        self._scoped = ScopedPacers(pacer.fresh)
        self._floor = floor
        self._window = RecentContexts(window, quality.table(window))
        self._every = every
        self._since = 0
        self._event = True
        self._solved = False
        self._least = 1
        self._whole = Whole()

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw one of `arms`; see the port. ValueError for values that are not finite."""
        names, costs = offered(arms)
        qualities, errors = self._quality.expect(context, arms, names)
        own = self._floor
        if floor is None and self._solved and (own is None or not own.guarded):
            explore, prices, scopes = self._explore, self.prices, context.scopes
            if scopes and own is None:
                prices = self._scoped.max_price(prices, scopes)
            if type(explore) is Exploration and len(names) <= min(FEW, explore.short_list):
                base_usd = self._pacer.base(costs)
                if scopes:
                    base_usd = self._scoped.least(base_usd, scopes)
                drawn = draw_among_few(
                    explore,
                    names,
                    qualities,
                    costs,
                    errors,
                    prices,
                    base_usd,
                    scopes,
                    self.version,
                    rng,
                )
                if drawn is not None:
                    self._event |= self._window.add(context, names, qualities, costs)
                    self._since += 1
                    self.explored_usd += drawn[1]
                    return drawn[0]
        offer = Offer(names, qualities, costs, errors, context.scopes)
        self._see(context, offer)
        return self._draw(offer, rng, floor)

    def _see(self, context: Context, offer: Offer) -> None:
        """Remember a context; solve at once if no price was ever solved."""
        self._event |= self._window.add(context, offer.names, offer.qualities, offer.costs_usd)
        self._since += 1
        # The first price is solved during the request; until then an expensive arm would seem free.
        if not self._solved:
            self.resolve()

    def _draw(self, offer: Offer, rng: Random, floor: float | None) -> Choice:
        """Draw by quality less the shadow price times cost."""
        names, scopes, own = offer.names, offer.scopes, self._floor
        # A floor takes precedence over all pacing.
        prices = self.prices
        if scopes and own is None:
            prices = self._scoped.max_price(prices, scopes)
        eligible: list[int] | None = None
        met = True
        shadow: tuple[float, ...] = ()
        if floor is not None:
            eligible, met = feasible(offer.qualities, offer.costs_usd, floor)
        held = None
        if own is not None and own.guarded and self._holds_back(names, eligible, own, floor):
            held = own
        if not met and held is None:
            assert eligible is not None
            index, reason = eligible[0], "floor_unmet"
            pmf = certain(len(names), index)
        else:
            spread, tops = self._spread(offer, eligible, prices)
            if held is not None:
                shadow = tuple(spread)
                spread = held_back(spread, names.index(self._baseline), held.share)
            index, pmf = draw(spread, rng), tuple(spread)
            reason = "best" if index in tops else "explore"
            if shadow and names[index] == self._baseline:
                reason = "baseline"
        return Choice(
            names,
            pmf,
            index,
            tuple(offer.qualities),
            tuple(offer.costs_usd),
            prices.high,
            reason,
            self.version,
            shadow,
            scopes=scopes,
        )

    def _spread(
        self, offer: Offer, eligible: list[int] | None, prices: Prices
    ) -> tuple[list[float], tuple[int, ...]]:
        """Return the probabilities of the arms, and the best arms at each of the two prices.

        `eligible`: the arms that may be drawn, as indices; None for all.
        """
        high, costs, base_usd = prices.high, offer.costs_usd, self._base_usd(offer)
        scores = [q - high * c for q, c in zip(offer.qualities, costs, strict=True)]
        if eligible is not None:
            scores = [s if index in eligible else -math.inf for index, s in enumerate(scores)]
        top, pmf, extra_usd = self._explore.pmf(scores, offer, base_usd)
        self.explored_usd += extra_usd
        if prices.share == 0.0:
            return pmf, (top,)
        at_low = [s + (high - prices.low) * c for s, c in zip(scores, costs, strict=True)]
        other = at_low.index(max(at_low))
        if other == top:
            return pmf, (top,)
        # The price is at a step for this context: choose the low or the high price at random.
        _, more, extra_usd = self._explore.pmf(at_low, offer, base_usd)
        self.explored_usd += extra_usd
        mixed = [p + prices.share * (m - p) for p, m in zip(pmf, more, strict=True)]
        return mixed, (top, other)

    def _holds_back(
        self, names: tuple[str, ...], eligible: list[int] | None, own: Floor, floor: float | None
    ) -> bool:
        """Whether a share of requests like this one goes to the baseline: at its first choice only.

        A client's floor that is no stricter than the route's must not lift the guard. A stricter
        one takes precedence over the guard, as far as the regressors can predict.
        """
        if self._baseline not in names or ACCEPT in names:
            return False
        if floor is None or floor <= own.floor or eligible is None:
            return True
        return names.index(self._baseline) in eligible

    def _base_usd(self, offer: Offer) -> float:
        """Return the cost that the exploration budget is a share of."""
        base_usd = self._pacer.base(offer.costs_usd)
        return self._scoped.least(base_usd, offer.scopes) if offer.scopes else base_usd

    @property
    def shadow_price(self) -> float:
        """Quality that one more dollar must buy."""
        return self.prices.high

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
        """Learn the quality of an arm's answer; see the port."""
        self._note(self._quality.learn(context, arm, quality, belief))
        self.version += 1
        own = arm == choice.arm and choice.reason != WARM_UP
        if self._floor is not None and own and self._whole.add(belief):
            self._judge(self._floor, choice, quality, weight)

    def learn_signal(
        self,
        context: Context,
        choice: Choice,
        arm: str,
        estimate: SignalEstimate,
        weight: float = 1.0,
    ) -> None:
        """Learn what signals say of an arm's answer; see `LearnsSignals`."""
        held = context.held if arm == ACCEPT else arm
        self._quality.learn_signal(context, held, estimate.quality, estimate.belief)
        self.version += 1
        if arm == choice.arm:
            self._predict(choice, estimate, weight)

    def _predict(self, choice: Choice, estimate: SignalEstimate, weight: float) -> None:
        """Tell the floor what signals say of an answer."""
        if self._floor is not None:
            wanted = choice.shadow or choice.pmf
            predicted = standing_for(weight, estimated(choice, estimate.predicted, wanted))
            self._floor.predict(*predicted[:2])
            value, _, _ = standing_for(weight, estimated(choice, estimate.quality, wanted))
            self._floor.follow(value, estimate.belief)

    def rectify(
        self, choice: Choice, arm: str, quality: float, predicted: float, weight: float = 1.0
    ) -> None:
        """Tell the floor by how much the label of a predicted answer differs."""
        if self._floor is None or arm != choice.arm:
            return
        wanted = choice.shadow or choice.pmf
        odds = [mine / drawn for mine, drawn in zip(wanted, choice.pmf, strict=True) if drawn]
        stands = weight * wanted[choice.index] / choice.pmf[choice.index]
        self._floor.rectify(stands * (quality - predicted), -weight * max(odds))

    def _note(self, change: Change | Notice | None) -> None:
        """Act on a change at once, and store it for the next `drain`."""
        if change is not None:
            self.changes.append(change)
            self._scoped.invalidate()
            self._event = True

    def _judge(self, floor: Floor, choice: Choice, quality: float, weight: float) -> None:
        estimate = estimated(choice, quality, choice.shadow or choice.pmf)
        self._note(floor.observe(quality, *standing_for(weight, estimate)))

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Count the final cost of a choice."""
        self._pacer.spend(cost_usd, dot(choice.pmf, choice.cost_hat_usd))
        self._scoped.spend(choice.scopes, cost_usd)
        self._event |= self._pacer.strayed

    def pace(self, allowance_usd: float | None, scope: str = "") -> None:
        """Set what the budgets allow per request from now on."""
        if scope:
            self._scoped.pace(scope, allowance_usd)
        else:
            self._event |= self._pacer.pace(allowance_usd)

    def reprice(self, arm: str, ratio: float) -> None:
        """Apply an arm's new price at once; ratio = new / old."""
        if not 0.0 <= ratio < math.inf:
            raise ValueError(f"a price ratio of {ratio}")
        self._window.reprice(arm, ratio)
        self._pacer.restart()
        self._scoped.invalidate()
        self._event = True

    def resolve_due(self) -> bool:
        """Return whether the price should be solved again."""
        if self._event or self._scoped.due or self._since >= self._every:
            return True
        # While the window fills, each additional quarter of contexts can change the solution.
        return self._since > len(self._window) // 4

    def resolve(self) -> None:
        """Solve the shadow price again."""
        self._since = 0
        self._event = False
        if len(self._window) >= self._least:
            self._revalue()
            self.prices = self._solve()
            self._solved = True

    def _revalue(self) -> None:
        """Recompute the qualities of the window's contexts with what was learned since.

        Their costs are the caller's quotes of then, and follow when quotes have changed a lot.
        """
        if self._window.requote():
            self._pacer.restart()
        self._window.revalue(self._quality.rethink, self._quality.revalued)

    def _market(self, least: MinPrice = None) -> Market:
        """Return the expected quality and cost of the recent contexts.

        `least` is the minimum price of each, where other budgets set one.
        """
        return Arms(*self._window.tables(), least)

    def _solve(self) -> Prices:
        market = paced_market = self._market()
        self._scoped.solve(market)
        # Requests with tighter budgets of their own spend less; other requests may spend the rest.
        least = self._scoped.least_prices(self._window.contexts)
        if least is not None:
            paced_market = self._market(least)
        paced = self._pacer.prices(paced_market)
        prices = self._in_force(market, paced)
        self._pacer.plan(paced_market, paced if prices is paced else None)
        return prices

    def _in_force(self, market: Market, paced: Prices) -> Prices:
        """Return the prices to use, given those of the pacer."""
        if self._objective.kind == "value" and self._objective.value_per_correct_usd:
            worth = 1.0 / self._objective.value_per_correct_usd
            paced = max(paced, Prices(worth, worth), key=lambda prices: prices.high)
        if self._floor is None:
            return paced
        held = self._floor.prices(market)
        self._note_floor(self._floor, market, held)
        if self._objective.kind == "min_cost":
            return held
        return min(paced, held, key=lambda prices: prices.high)

    def _note_floor(self, floor: Floor, market: Market, held: Prices) -> None:
        """Report to the floor what the best arms would reach, and what holding the floor costs."""
        notice = floor.reach(market.quality(0.0))
        if notice is not None:
            self.changes.append(notice)
        if self._baseline in self._window.arms:
            own_usd = sum(
                share * market.cost(price)
                for price, share in ((held.high, 1.0 - held.share), (held.low, held.share))
            )
            qualities, costs = self._window.column(self._baseline)
            floor.compare(own_usd, float(costs.mean()), float(qualities.mean()))

    def drain(self) -> list[Change | Notice]:
        """Return the notices since the last call; see the port."""
        noticed = list(self.changes)
        self.changes.clear()
        return noticed

    def figures(self) -> dict[str, float]:
        """Return the policy's figures; see the port."""
        figures = {"shadow_price": self.shadow_price, "explored_usd": self.explored_usd}
        if self._pacer.allowance_usd is not None:
            figures["allowance_usd"] = self._pacer.allowance_usd
        if self._floor is not None:
            figures["accuracy_floor"] = self._floor.floor
            figures["accuracy_estimate"] = self._floor.estimate
            figures["floor_guarded"] = float(self._floor.guarded)
            figures["floor_lower_bound"] = self._floor.lower_bound
            figures["floor_share"] = self._floor.share
        return figures

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""
        return pack(KIND, self._state(), {"quality": self._quality.save()})

    def _state(self) -> dict[str, Any]:
        """Return the state besides that of the regressors."""
        return {
            "version": self.version,
            "prices": [self.prices.high, self.prices.low, self.prices.share],
            "pacer": self._pacer.save(),
            "scoped": self._scoped.save(),
            "floor": self._floor.save() if self._floor else None,
        }

    def load(self, state: bytes) -> None:
        """Take a saved state; see the port."""
        values, parts = unpack(KIND, state)
        self._quality.load(parts["quality"])
        self._take(values)

    def adopt(self, state: bytes) -> None:
        """Load another process's regressors and floor, keep one's own pace; see the port."""
        values, parts = unpack(KIND, state)
        self._quality.load(parts["quality"])
        self.version = int(values["version"])
        self._take_floor(values)
        self._event = True

    def _take(self, values: dict[str, Any]) -> None:
        self._solved, self._event, self._least = True, False, THIN
        self.version = int(values["version"])
        self.prices = Prices(*map(float, values["prices"]))
        self._pacer.load(values["pacer"])
        self._scoped.load(values["scoped"])
        self._take_floor(values)

    def _take_floor(self, values: dict[str, Any]) -> None:
        if self._floor is not None and values["floor"] is not None:
            self._floor.load(values["floor"])


def offered(arms: Sequence[Arm]) -> tuple[tuple[str, ...], list[float]]:
    """Return the names and costs of the arms; ValueError if they are not valid to choose among."""
    costs = [arm.cost_usd for arm in arms]
    # A sum with a value that is not finite is not finite either, and a sum takes no loop.
    if not costs or not (min(costs) >= 0.0 and sum(costs) < INFINITE):
        raise ValueError(f"arms without a cost that is finite and not negative: {list(arms)}")
    return tuple([arm.name for arm in arms]), costs
