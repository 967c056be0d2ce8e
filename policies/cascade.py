"""The cascade policy: accepts a cheap reply, or asks a more expensive arm instead.

Each stage is one choice, made with the same regressors and the same shadow price. At a later stage
the context holds features of the current reply, and the arms are ACCEPT and those not asked yet.
The quality of ACCEPT is that of the arm which gave the current reply, given that reply. The value
of an arm before the call includes the continuation value of its reply (`continuation_value`). While
the replies of an arm are unknown, it is assumed to make half of the more expensive calls
unnecessary, so that it is tried first.

Where a floor is held with a baseline, another rule decides: the cheapest arm is asked, and its
reply is accepted from a confidence on that labels have certified (`acceptance`). The regressors
still learn, and take over if labels never score both replies.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from tollway.policies.acceptance import AcceptanceRule
from tollway.policies.continuation_value import HOPE, ContinuationValue, extended
from tollway.policies.evidence.off_policy import dot, own_part, standing_for, weighted
from tollway.policies.evidence.signal_trust import SignalEstimate
from tollway.policies.exploration import Offer
from tollway.policies.floor import Floor
from tollway.policies.lagrangian import Lagrangian, offered
from tollway.policies.pacing.multiplier import Arms, Market
from tollway.policies.pacing.scoped import MinPrice
from tollway.policies.recent_contexts import RecentContexts
from tollway.policies.regressors.types import Matrix, Rows, Table
from tollway.policies.sampling import draw
from tollway.policies.types import ACCEPT, WARM_UP, Arm, Choice, Context

CHEAP_ENOUGH = 0.5  # of the baseline's cost: asking both must not cost more than half again
REVALUED = 200  # recent replies of each arm: half a millisecond


class Stages:
    """The market of multi-stage requests: what follows a reply also depends on the price."""

    def __init__(self, window: RecentContexts, options: ContinuationValue, least: MinPrice) -> None:
        """`least`: the minimum price of each context, where other budgets set one."""
        self._window = window
        self._options = options
        self._least = least
        self.max_cost_usd = float(window.tables()[1].max(initial=0.0))

    def _at(self, price: float) -> Arms:
        return Arms(*extended(self._window, self._options.after(price)), self._least)

    def quality(self, price: float) -> float:
        """Return the mean quality of the choices made at a price."""
        return self._at(price).quality(price)

    def cost(self, price: float) -> float:
        """Return the mean cost in dollars of the choices made at a price."""
        return self._at(price).cost(price)


class Cascade(Lagrangian):
    """The lagrangian policy over several stages; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._quality.ease = None  # later stages have other contexts, of fewer arms
        self._options = ContinuationValue(self._quality.table)
        self._after: dict[str, tuple[float, float]] = {}
        self._rule: AcceptanceRule | None = None
        # The label of the reply that a choice could have accepted, until that of its own arm comes.
        self._half: tuple[Choice, float] | None = None

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw one of `arms`; ACCEPT is among them once there is a reply."""
        rule = self._rule_for(context, arms, floor)
        names, costs = offered(arms)
        answering = [replace(arm, name=context.held) if arm.name == ACCEPT else arm for arm in arms]
        called = [arm.name for arm in answering]
        qualities, errors = self._quality.expect(context, answering, called)
        plain = Offer(names, qualities, costs, errors, context.scopes)
        if context.held:
            self._options.observe(context, names, qualities, costs)
        else:
            self._see(context, plain)
        if rule is not None:
            return self._ruled(rule, context, plain, rng)
        choice = self._draw(self._foreseen(plain), rng, floor)
        # The logged values are the arm's own: estimates from the journal compare them with labels.
        return replace(
            choice,
            quality_hat=tuple(qualities),
            cost_hat_usd=tuple(costs),
            reached=context.reached,
            reached_most=context.reached_most,
        )

    def _rule_for(
        self, context: Context, arms: Sequence[Arm], floor: float | None
    ) -> AcceptanceRule | None:
        """Return the rule that decides this request; None if the regressors do."""
        own = self._floor
        if own is None or not self._baseline or self._objective.kind != "min_cost":
            return None
        if floor is not None and floor > own.floor:
            return None  # a client's stricter floor takes precedence
        offered = {arm.name: arm for arm in arms}
        baseline = offered.get(self._baseline)
        rule = self._rule
        if rule is None:
            cheap = min(arms, key=lambda arm: arm.cost_usd)
            if (
                context.held
                or baseline is None
                or cheap.cost_usd > CHEAP_ENOUGH * baseline.cost_usd
            ):
                return None
            rule = self._rule = own.acceptance(cheap.name, self._baseline, baseline.prior_quality)
        if not rule.usable:
            return None
        if context.held:
            held_last = context.held == rule.baseline
            return rule if held_last or (context.held == rule.cheap and baseline) else None
        return rule if baseline is not None and rule.cheap in offered else None

    def _ruled(self, rule: AcceptanceRule, context: Context, plain: Offer, rng: Random) -> Choice:
        """Draw by the acceptance rule."""
        names, costs = plain.names, plain.costs_usd
        likely, other = rule.cheap, rule.baseline
        reason = "best"
        if not context.held:
            p = rule.asks_both(costs[names.index(likely)], costs[names.index(other)])
        elif context.held == rule.baseline:
            likely = other = ACCEPT
            p = 1.0
        else:
            confidence = context.reply[0] if context.reply else 0.0
            rule.see(confidence)
            likely = ACCEPT
            p = rule.accepts(confidence)
        pmf = [0.0] * len(names)
        pmf[names.index(other)] = 1.0 - p
        pmf[names.index(likely)] += p
        index = draw(pmf, rng)
        if names[index] == rule.baseline and not rule.released:
            reason = "baseline"
        elif pmf[index] < 0.5:
            reason = "explore"
        return Choice(
            names,
            tuple(pmf),
            index,
            tuple(plain.qualities),
            tuple(costs),
            self.prices.high,
            reason,
            self.version,
            reached=context.reached,
            reached_most=context.reached_most,
            scopes=plain.scopes,
        )

    def _foreseen(self, plain: Offer) -> Offer:
        """Return the offer with each arm's continuation value added."""
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
        """Return the assumed continuation value of an arm whose replies are still unknown."""
        quality, cost = plain.qualities[index], plain.costs_usd[index]
        price = self.prices.high
        candidates = [at for at, other in enumerate(plain.costs_usd) if other > cost]
        if not candidates:
            return 0.0, 0.0
        best = max(candidates, key=lambda at: plain.qualities[at] - price * plain.costs_usd[at])
        gain, more = plain.qualities[best] - quality, HOPE * plain.costs_usd[best]
        # Asking on is optional: a continuation that is not worth its cost has the value 0.
        return (gain, more) if gain > price * more else (0.0, 0.0)

    def _revalue(self) -> None:
        """Recompute the expected qualities of the recent contexts of every stage."""
        super()._revalue()
        newest = min(REVALUED, self._quality.revalued)
        for held, window in self._options.windows.items():
            window.revalue(partial(self._rethink, held), newest)

    def _rethink(self, held: str, table: Table, rows: Rows, arms: Sequence[str]) -> Matrix:
        """Recompute the expected qualities after an arm's replies; ACCEPT has its own quality."""
        asked = [held if arm == ACCEPT else arm for arm in arms]
        return self._quality.rethink(table, rows, asked)

    def resolve(self) -> None:
        """Solve the prices again, and the later stages at those prices."""
        super().resolve()
        self._after = self._options.after(self.prices.high)
        if self._rule is not None and self._floor is not None and self._rule.decide():
            self._note(self._floor.released(self._rule.lower_bound))

    def _market(self, least: MinPrice = None) -> Market:
        """Return the expected quality and cost of the recent requests over all their stages."""
        return Stages(self._window, self._options, least)

    def reprice(self, arm: str, ratio: float) -> None:
        """Apply an arm's new price at once; ratio = new / old."""
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
        """Learn the quality of an arm's reply, or of the current reply (ACCEPT)."""
        held = context.held if arm == ACCEPT else arm
        self._note(self._quality.learn(context, held, quality, belief))
        self.version += 1
        if self._rule is not None and belief == 1.0:
            self._pair(self._rule, context, choice, arm, quality)
        if (
            self._floor is not None
            and arm == choice.arm
            and choice.reason != WARM_UP
            and _is_last(choice)
            and self._whole.add(belief)
        ):
            self._judge(self._floor, choice, quality, weight)

    def _predict(self, choice: Choice, estimate: SignalEstimate, weight: float) -> None:
        """Aim by what signals say of the answer that a client got.

        They certify nothing here: a cascade's floor is shown by pairs of labels, or by whole
        answers.
        """
        if self._floor is not None and _is_last(choice):
            value, _, _ = standing_for(weight, weighted(choice, estimate.quality))
            self._floor.follow(value, estimate.belief, credit=0.0)

    def rectify(
        self, choice: Choice, arm: str, quality: float, predicted: float, weight: float = 1.0
    ) -> None:
        """Do nothing, as `_predict`."""

    def _pair(
        self, rule: AcceptanceRule, context: Context, choice: Choice, arm: str, quality: float
    ) -> None:
        """Pair the labels of the two replies to a request, which come one after the other."""
        if arm == choice.arm and (arm in {ACCEPT, rule.baseline}):
            rule.answered(quality)
            if arm == rule.baseline and not context.held and rule.drew(choice.arms, choice.pmf):
                rule.alone(quality)
        if context.held != rule.cheap or ACCEPT not in choice.arms:
            return
        half, self._half = self._half, None
        confidence = context.reply[0] if context.reply else 0.0
        if arm == ACCEPT == choice.arm:
            rule.accepted(confidence, quality)
        elif arm == ACCEPT:
            self._half = (choice, quality)
        elif arm == choice.arm == rule.baseline:
            if half is not None and half[0] is choice:
                rule.compare(confidence, half[1], quality)
            else:
                rule.unpaired += 1

    def _judge(self, floor: Floor, choice: Choice, quality: float, weight: float) -> None:
        """Update the floor with a request's last choice, weighted by how likely that stage was."""
        estimate = standing_for(weight, weighted(choice, quality))
        notice = floor.observe(quality, *estimate, part=own_part(choice))
        if self._rule is not None and self._rule.usable:
            if notice is None or notice.kind != "floor_refuted" or not self._rule.released:
                return  # what the floor's own bound shows is not what decides
            self._rule.restart()
        self._note(notice)

    def figures(self) -> dict[str, float]:
        """Return the policy's figures; see the port."""
        figures = super().figures()
        if self._rule is not None and self._rule.usable:
            figures["floor_guarded"] = float(not self._rule.released)
            figures["floor_lower_bound"] = self._rule.lower_bound
            figures["floor_share"] = 1.0 - self._rule.measured
        return figures

    def _state(self) -> dict[str, Any]:
        state = super()._state()
        return state if self._rule is None else {**state, "rule": self._rule.save()}

    def _take_floor(self, values: dict[str, Any]) -> None:
        super()._take_floor(values)
        # Snapshots that predate rules have none.
        if self._floor is None or "rule" not in values:
            return
        cheap, baseline, declared = values["rule"]["arms"]
        if baseline == self._baseline:
            rule = self._floor.acceptance(str(cheap), baseline, float(declared))
            rule.load(values["rule"])
            self._rule = rule

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Count the cost of a choice; the first choice of a request also counts the request."""
        expected_usd = dot(choice.pmf, choice.cost_hat_usd)
        if ACCEPT in choice.arms:
            self._pacer.add(cost_usd, expected_usd)
            self._scoped.add(choice.scopes, cost_usd)
        else:
            self._pacer.spend(cost_usd, expected_usd)
            self._scoped.spend(choice.scopes, cost_usd)
        self._event |= self._pacer.strayed


def _is_last(choice: Choice) -> bool:
    """Whether the client gets the reply to this choice: no more expensive arm is left to ask."""
    return choice.arm == ACCEPT or choice.cost_hat_usd[choice.index] >= max(choice.cost_hat_usd)
