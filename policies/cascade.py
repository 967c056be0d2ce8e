"""The policy where a cheap reply may be accepted or passed over for a dearer one.

One choice per stage, all by the same heads and the same price of money. At a later stage the
context holds what the reply in hand says of itself, and the arms are ACCEPT and those not asked
yet. ACCEPT's quality is that of the arm whose reply is in hand, now that its reply is known. An
arm's worth before the call includes what may follow its reply (`options`); an arm whose replies are
not known yet is hoped to make half of the dearer calls unnecessary, so that it is tried first.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from tollway.policies.continuation_value import HOPE, ContinuationValue, extended
from tollway.policies.evidence.off_policy import own_part, standing_for, weighted
from tollway.policies.floor import Floor
from tollway.policies.lagrangian import Lagrangian, Offer, offered
from tollway.policies.pacing.multiplier import Arms, Market
from tollway.policies.pacing.scoped import MinPrice
from tollway.policies.recent_contexts import RecentContexts
from tollway.policies.regressors.types import Matrix, Rows, Table
from tollway.policies.types import ACCEPT, Arm, Choice, Context

REVALUED = 200  # of each arm's recent replies: half a millisecond


class Stages:
    """The market of requests that may ask on: what follows a reply depends on the price too."""

    def __init__(self, window: RecentContexts, options: ContinuationValue, least: MinPrice) -> None:
        """`least`: the least price of each context, where other budgets set one."""
        self._window = window
        self._options = options
        self._least = least
        self.dearest_usd = float(window.tables()[1].max(initial=0.0))

    def _at(self, price: float) -> Arms:
        return Arms(*extended(self._window, self._options.after(price)), self._least)

    def quality(self, price: float) -> float:
        """Return the mean quality of what is chosen at a price."""
        return self._at(price).quality(price)

    def cost(self, price: float) -> float:
        """Return the mean cost in dollars of what is chosen at a price."""
        return self._at(price).cost(price)


class Cascade(Lagrangian):
    """The lagrangian policy over stages; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._options = ContinuationValue(self._quality.table)
        self._after: dict[str, tuple[float, float]] = {}

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw one of `arms`, ACCEPT among them where a reply is in hand."""
        names, costs = offered(arms)
        told = [replace(arm, name=context.held) if arm.name == ACCEPT else arm for arm in arms]
        qualities = self._quality.predict(context, told)
        labels = self._quality.labels([arm.name for arm in told])
        plain = Offer(names, qualities, costs, labels, context.scopes)
        if context.held:
            self._options.observe(context, names, qualities, costs)
        else:
            self._see(context, plain)
        choice = self._draw(self._foreseen(plain), rng, floor)
        # What is logged is of the arm itself: estimates from the journal compare it with labels.
        return replace(
            choice,
            quality_hat=tuple(qualities),
            cost_hat_usd=tuple(costs),
            reached=context.reached,
            reached_most=context.reached_most,
        )

    def _foreseen(self, plain: Offer) -> Offer:
        """Return an offer with what may follow each arm's reply added."""
        qualities, costs = list(plain.qualities), list(plain.costs_usd)
        for index, name in enumerate(plain.names):
            if name in self._after:
                gain, cost = self._after[name]
            elif name != ACCEPT and not self._options.known(name):
                gain, cost = self._hoped(plain, index)
            else:
                continue
            qualities[index] = min(1.0, qualities[index] + gain)
            costs[index] += cost
        return replace(plain, qualities=qualities, costs_usd=costs)

    def _hoped(self, plain: Offer, index: int) -> tuple[float, float]:
        """Return what is hoped to follow a reply that nobody has seen yet."""
        quality, cost = plain.qualities[index], plain.costs_usd[index]
        price = self.prices.high
        dearer = [at for at, other in enumerate(plain.costs_usd) if other > cost]
        if not dearer:
            return 0.0, 0.0
        best = max(dearer, key=lambda at: plain.qualities[at] - price * plain.costs_usd[at])
        gain, more = plain.qualities[best] - quality, HOPE * plain.costs_usd[best]
        # Nobody has to ask on: what is not worth its cost is not hoped for.
        return (gain, more) if gain > price * more else (0.0, 0.0)

    def _revalue(self) -> None:
        """Think again of the recent contexts of every stage."""
        super()._revalue()
        newest = min(REVALUED, self._quality.revalued)
        for held, window in self._options.windows.items():
            window.revalue(partial(self._rethink, held), newest)

    def _rethink(self, held: str, table: Table, rows: Rows, arms: Sequence[str]) -> Matrix:
        """Think again of replies of an arm: ACCEPT has its quality."""
        asked = [held if arm == ACCEPT else arm for arm in arms]
        return self._quality.rethink(table, rows, asked)

    def resolve(self) -> None:
        """Solve the prices anew, and what they make of the later stages."""
        super().resolve()
        self._after = self._options.after(self.prices.high)

    def _market(self, least: MinPrice = None) -> Market:
        """Return what the recent requests would bring and cost over all their stages."""
        return Stages(self._window, self._options, least)

    def reprice(self, arm: str, ratio: float) -> None:
        """Take over an arm's new price at once; ratio = new / old."""
        super().reprice(arm, ratio)
        self._options.reprice(arm, ratio)

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
        """Learn what an arm's reply, or the one in hand (ACCEPT), was worth."""
        held = context.held if arm == ACCEPT else arm
        self._note(self._quality.learn(context, held, quality, belief))
        self.version += 1
        if (
            self._floor is not None
            and arm == choice.arm
            and _is_last(choice)
            and self._whole.add(belief)
        ):
            self._judge(self._floor, choice, quality, weight)

    def _judge(self, floor: Floor, choice: Choice, quality: float, weight: float) -> None:
        """Judge the floor by a request's last choice, weighted by how it came to it."""
        estimate = standing_for(weight, weighted(choice, quality))
        self._note(floor.observe(quality, *estimate, part=own_part(choice)))

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Count what a choice has cost: a request's first counts the request."""
        if ACCEPT in choice.arms:
            self._pacer.add(cost_usd)
            self._scoped.add(choice.scopes, cost_usd)
        else:
            self._pacer.spend(cost_usd)
            self._scoped.spend(choice.scopes, cost_usd)
        self._event |= self._pacer.strayed


def _is_last(choice: Choice) -> bool:
    """Whether the reply to a choice is the client's: no arm that is dearer is left to ask."""
    return choice.arm == ACCEPT or choice.cost_hat_usd[choice.index] >= max(choice.cost_hat_usd)
