"""The policy where a cheap reply may be accepted or passed over for a dearer one.

One choice per stage, all by the same heads and the same price of money. At a later stage the
context holds what the reply in hand says of itself, and the arms are ACCEPT and those not asked
yet. ACCEPT's quality is that of the arm whose reply is in hand, now that its reply is known, so it
shares what was learned of that arm before the call. An arm's worth before the call includes what
may follow its reply (`options`).
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from policies.lagrangian import Lagrangian, Offer, offered
from policies.options import Options
from policies.types import ACCEPT, Arm, Choice, Context


class Cascade(Lagrangian):
    """The lagrangian policy over stages; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._options = Options()

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw one of `arms`, ACCEPT among them where a reply is in hand."""
        names, costs = offered(arms)
        told = [replace(arm, name=context.held) if arm.name == ACCEPT else arm for arm in arms]
        qualities = self._quality.predict(context, told)
        gains, further = self._beyond(arms)
        total = [cost + more for cost, more in zip(costs, further, strict=True)]
        best = [min(1.0, q + gain) for q, gain in zip(qualities, gains, strict=True)]
        offer = Offer(names, best, total, [self._quality.labels[arm.name] for arm in told])
        if context.held:
            self._weigh(context.held, offer)
        else:
            self._see(context, offer)
        choice = self._draw(offer, rng, floor)
        # What is logged is of the arm itself: estimates from the journal compare it with labels.
        return replace(choice, quality_hat=tuple(qualities), cost_hat_usd=tuple(costs))

    def _beyond(self, arms: Sequence[Arm]) -> tuple[list[float], list[float]]:
        """Return what may follow each arm's reply: nothing after the dearest, or after ACCEPT."""
        dearest = max(arm.cost_usd for arm in arms)
        after = [
            (0.0, 0.0)
            if arm.name == ACCEPT or arm.cost_usd >= dearest
            else self._options.after(arm.name)
            for arm in arms
        ]
        return [gain for gain, _ in after], [cost for _, cost in after]

    def _revalue(self) -> None:
        """Leave the window as it was: its qualities include what later stages add."""

    def _weigh(self, held: str, offer: Offer) -> None:
        """Count what going on after this reply is expected to bring."""
        price = self.prices.high
        scores = [q - price * c for q, c in zip(offer.qualities, offer.costs_usd, strict=True)]
        top = scores.index(max(scores))
        gain = offer.qualities[top] - offer.qualities[offer.names.index(ACCEPT)]
        self._options.observe(held, gain, offer.costs_usd[top])

    def learn(self, context: Context, choice: Choice, arm: str, quality: float) -> None:
        """Learn what an arm's reply, or the one in hand (ACCEPT), was worth."""
        self._note(self._quality.learn(context, context.held if arm == ACCEPT else arm, quality))
        self.version += 1
        if self._floor is not None and arm == choice.arm and _is_last(choice):
            self._judge(self._floor, quality)

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Count what a choice has cost: a request's first counts the request."""
        if ACCEPT in choice.arms:
            self._pacer.add(cost_usd)
        else:
            self._pacer.spend(cost_usd)
        self._event |= self._pacer.strayed


def _is_last(choice: Choice) -> bool:
    """Whether the reply to a choice is the client's: no arm that is dearer is left to ask."""
    return choice.arm == ACCEPT or choice.cost_hat_usd[choice.index] >= max(choice.cost_hat_usd)
