"""Splits an arm's requests between two versions of it: the stable one and a candidate.

The policy inside sees one arm, under the stable version's name. It chooses before it is known which
version answers, so both get requests of the same kind, and their results can be compared. If it
draws that arm, the request's key decides the version:

    unit of the key < weight    the candidate
    otherwise                   the stable version

The unit is a hash of the key and of a salt that is drawn for each rollout, uniform in [0, 1). So
over the salts the candidate has the probability `pmf[stable] * weight`, and this is what the choice
records: it can be replayed like any other draw, clustered by key. Raising the weight moves keys to
the candidate only (consistent hashing). A request without a key has a random unit.

The policy inside learns from the answers of both versions, under the one name: what it would get by
drawing the arm is the mixture, in quality and in cost. Hence its estimates, a floor and a guard
hold for what is really served, at every weight, and a promotion needs no relearning.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from tollway.policies.evidence.drift import Change
from tollway.policies.types import Arm, Choice, Context, Notice, Policy

T = TypeVar("T")

CANDIDATE = "candidate"
"""The reason of a choice that drew the candidate."""


class Split:
    """A policy around another; see the module."""

    # The mutable state is the inner policy and the candidate's weight.

    def __init__(self, inner: Policy, stable: str, candidate: str) -> None:
        """`stable` and `candidate` are arms; the weight is 0 until it is set."""
        self.inner = inner
        self.weight = 0.0
        self.stable = stable
        self.candidate = candidate

    @property
    def version(self) -> int:
        """The version of what was learned."""
        return self.inner.version

    @version.setter
    def version(self, version: int) -> None:
        self.inner.version = version

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw one of `arms`; see the port."""
        stable = candidate = None
        for arm in arms:
            if arm.name == self.stable:
                stable = arm
            elif arm.name == self.candidate:
                candidate = arm
        if candidate is None:
            return self.inner.choose(self._seen(context), arms, rng, floor)
        weight = self._share(context, stable)
        others = [arm for arm in arms if arm is not stable and arm is not candidate]
        if weight <= 0.0 and (stable is not None or others):
            used = context.held == self.candidate  # its arm has answered, so neither may again
            shown = [arm for arm in arms if arm is not candidate and not (used and arm is stable)]
            return self.inner.choose(self._seen(context), shown, rng, floor)
        if stable is None or weight >= 1.0:
            weight, only = 1.0, candidate
        else:
            only = stable
        cost_usd = candidate.cost_usd
        if stable is not None:
            cost_usd = weight * candidate.cost_usd + (1.0 - weight) * stable.cost_usd
        merged = Arm(self.stable, cost_usd, (stable or candidate).prior_quality)
        shown = [merged if arm is only else arm for arm in arms if arm in others or arm is only]
        chosen = self.inner.choose(self._seen(context), shown, rng, floor)
        if self.stable not in chosen.arms:
            return chosen
        return self._divided(chosen, candidate, stable, weight, context, rng)

    def _share(self, context: Context, stable: Arm | None) -> float:
        """Return the candidate's weight for a request.

        In a cascade, none if either version has answered already. None if the stable version is
        not offered: the candidate gets its share of what that would have got.
        """
        if context.held and context.held in {self.stable, self.candidate}:
            return 0.0
        return self.weight if stable is not None or self.weight >= 1.0 else 0.0

    def _divided(  # noqa: PLR0917 - the parts of one choice
        self,
        chosen: Choice,
        candidate: Arm,
        stable: Arm | None,
        weight: float,
        context: Context,
        rng: Random,
    ) -> Choice:
        """Return a choice over both versions, from one over the merged arm."""
        at = chosen.arms.index(self.stable)
        if weight >= 1.0:  # the candidate alone
            arms = _put(chosen.arms, at, self.candidate)
            costs = _put(chosen.cost_hat_usd, at, candidate.cost_usd)
            guarded = self.candidate if chosen.guarded_by == self.stable else chosen.guarded_by
            return replace(chosen, arms=arms, cost_hat_usd=costs, guarded_by=guarded)
        assert stable is not None
        drawn = False
        if chosen.index == at:
            drawn = (context.unit if context.unit >= 0.0 else rng.random()) < weight
        mass = chosen.pmf[at]
        pmf = (*_put(chosen.pmf, at, mass * (1.0 - weight)), mass * weight)
        costs = _put(chosen.cost_hat_usd, at, stable.cost_usd)
        shadow = chosen.shadow
        if shadow:
            part = shadow[at]
            shadow = (*_put(shadow, at, part * (1.0 - weight)), part * weight)
        return replace(
            chosen,
            arms=(*chosen.arms, self.candidate),
            pmf=pmf,
            index=len(chosen.arms) if drawn else chosen.index,
            quality_hat=(*chosen.quality_hat, chosen.quality_hat[at]),
            cost_hat_usd=(*costs, candidate.cost_usd),
            reason=CANDIDATE if drawn else chosen.reason,
            shadow=shadow,
        )

    def _seen(self, context: Context) -> Context:
        """Return a context as the inner policy sees it: both versions have one name."""
        if context.held == self.candidate:
            return replace(context, held=self.stable)
        return context

    def _whole(self, choice: Choice) -> Choice:
        """Return the inner policy's choice, with the two versions merged again."""
        if self.candidate not in choice.arms:
            return choice
        arms, at = choice.arms, choice.arms.index(self.candidate)
        guarded = self.stable if choice.guarded_by == self.candidate else choice.guarded_by
        if self.stable not in arms:
            return replace(choice, arms=_put(arms, at, self.stable), guarded_by=guarded)
        to = arms.index(self.stable)
        pmf, costs = choice.pmf, choice.cost_hat_usd
        mass = pmf[to] + pmf[at]
        mean = (pmf[to] * costs[to] + pmf[at] * costs[at]) / mass if mass > 0.0 else costs[to]
        index = to if choice.index == at else choice.index
        shadow = choice.shadow
        if shadow:
            shadow = _without(_put(shadow, to, shadow[to] + shadow[at]), at)
        return replace(
            choice,
            arms=_without(arms, at),
            pmf=_without(_put(pmf, to, mass), at),
            index=index - (index > at),
            quality_hat=_without(choice.quality_hat, at),
            cost_hat_usd=_without(_put(costs, to, mean), at),
            shadow=shadow,
            guarded_by=guarded,
        )

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
        """Learn the quality of an answer; both versions' answers are the one arm's."""
        name = self.stable if arm == self.candidate else arm
        seen, whole = self._seen(context), self._whole(choice)
        self.inner.learn(seen, whole, name, quality, weight, belief=belief)

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Record the final cost of a choice."""
        self.inner.charge(self._whole(choice), cost_usd)

    def pace(self, allowance_usd: float | None, scope: str = "") -> None:
        """Set what the budgets allow per request from now on."""
        self.inner.pace(allowance_usd, scope)

    def reprice(self, arm: str, ratio: float) -> None:
        """Apply a price change in proportion to the version's share of the arm."""
        if arm == self.candidate:
            part = self.weight
        elif arm == self.stable:
            part = 1.0 - self.weight
        else:
            part = 1.0
        if part > 0.0:
            name = self.stable if arm == self.candidate else arm
            self.inner.reprice(name, 1.0 + part * (ratio - 1.0))

    def resolve_due(self) -> bool:
        """Return whether the multipliers should be solved again."""
        return self.inner.resolve_due()

    def resolve(self) -> None:
        """Solve the multipliers again."""
        self.inner.resolve()

    def drain(self) -> list[Change | Notice]:
        """Return the changes and notices since the last call; see the port."""
        return self.inner.drain()

    def figures(self) -> dict[str, float]:
        """Return the inner policy's figures; see the port."""
        return self.inner.figures()

    def save(self) -> bytes:
        """Return the inner policy's state: the weight belongs to the rollout."""
        return self.inner.save()

    def load(self, state: bytes) -> None:
        """Take a saved state; see the port."""
        self.inner.load(state)

    def adopt(self, state: bytes) -> None:
        """Load another process's learned state; see the port."""
        self.inner.adopt(state)


def _put(values: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    return (*values[:at], value, *values[at + 1 :])


def _without(values: tuple[T, ...], at: int) -> tuple[T, ...]:
    return (*values[:at], *values[at + 1 :])
