"""A policy that may answer from a cache: it weighs the cached answer against the fresh ones.

The arm `cache:NAME` gives an answer that backend NAME gave to the same request before. It costs
nothing, and its quality is what the policy inside expects of NAME for this request, less the loss
of quality that labels have shown of NAME's cached answers. The loss counts as far as it is
significant: two standard errors are taken off, so that chance turns nobody away from the cache.

    q_cache = q_NAME(x) - max(0, loss - 2 se)
    s_cache = q_cache - lambda 0,  compared with max over the arms drawn of  q_a - lambda c_a

The better side is drawn with probability 1 - `fresh_share`, the other with `fresh_share`: some
cached answers are compared with fresh ones, and a cache that has become right again is noticed. The
policy inside never sees the arm: it learns from fresh answers only, by their probabilities given
that the answer was a fresh one.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from tollway.policies.evidence.drift import Change
from tollway.policies.evidence.signal_trust import SignalEstimate
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import (
    Arm,
    Choice,
    Context,
    LearnsSignals,
    Notice,
    Policy,
)

T = TypeVar("T")
KIND = "cached answers 1"
PREFIX = "cache:"
REASON = "cached"
DECAY = 0.995  # of a loss's evidence with each label: about the last 200 count
SURE = 2.0  # standard errors
LABELS_MIN = 10.0  # fewer show no loss
TIE = 1e-12


class _Loss:
    """The loss of quality of one backend's cached answers; its state is the three sums."""

    __slots__ = ("count", "square", "total")

    def __init__(self, count: float = 0.0, total: float = 0.0, square: float = 0.0) -> None:
        self.count, self.total, self.square = count, total, square

    def add(self, loss: float, belief: float) -> None:
        """Add what one label has shown."""
        self.count = DECAY * self.count + belief
        self.total = DECAY * self.total + belief * loss
        self.square = DECAY * self.square + belief * loss * loss

    @property
    def significant(self) -> float:
        """The part of the mean that chance does not explain, at least 0."""
        if self.count < LABELS_MIN:
            return 0.0
        mean = self.total / self.count
        variance = max(0.0, self.square / self.count - mean * mean)
        return max(0.0, mean - SURE * math.sqrt(variance / self.count))


class CachedAnswers:
    """A policy around another; see the module."""

    # The mutable state is the inner policy, the losses, the latest quality expected of each
    # backend, and the number of labels of cached answers.

    def __init__(
        self, inner: Policy, *, fresh_share: float = 0.01, is_cascade: bool = False
    ) -> None:
        """`is_cascade`: answers were accepted with a quality of their own, which their arms say."""
        if not 0.0 <= fresh_share <= 0.5:
            raise ValueError(f"a fresh share of {fresh_share}, not from 0 to 0.5")
        self.inner = inner
        self.fresh_share = fresh_share
        self.is_cascade = is_cascade
        self._losses: dict[str, _Loss] = {}
        self._expected: dict[str, float] = {}
        self._labels = 0
        self.version = inner.version

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw one of `arms`; see the port. A cached answer is usually the last of them."""
        found = arms[-1] if arms[-1].name.startswith(PREFIX) else kept(arms)
        if found is None:
            return self.inner.choose(context, arms, rng, floor)
        cached = found.name
        origin = cached[len(PREFIX) :]
        if len(arms) == 1:
            quality = self._less(origin, self._usual(found, origin))
            return Choice(
                (cached,),
                (1.0,),
                0,
                (quality,),
                (0.0,),
                0.0,
                REASON,
                self.version,
                scopes=context.scopes,
            )
        others = [arm for arm in arms if arm is not found]
        wanted = self.inner.choose(context, others, rng, floor)
        if origin in wanted.arms:
            self._expected[origin] = wanted.quality_hat[wanted.arms.index(origin)]
        quality = self._less(origin, self._usual(found, origin))
        share = self._share(wanted, quality, floor)
        is_cached = not context.fresh and rng.random() < share
        rest = 1.0 - share
        return replace(
            wanted,
            arms=(*wanted.arms, cached),
            pmf=(*[rest * p for p in wanted.pmf], share),
            index=len(wanted.arms) if is_cached else wanted.index,
            quality_hat=(*wanted.quality_hat, quality),
            cost_hat_usd=(*wanted.cost_hat_usd, 0.0),
            reason=REASON if is_cached else wanted.reason,
            version=self.version,
            shadow=(*[rest * p for p in wanted.shadow], share) if wanted.shadow else (),
        )

    def _usual(self, found: Arm, origin: str) -> float:
        """Return the quality of an answer if its being cached does no harm."""
        if self.is_cascade and found.prior_quality is not None:
            return found.prior_quality
        return self._expected.get(origin, 1.0)

    def _less(self, origin: str, quality: float) -> float:
        loss = self._losses.get(origin)
        return quality if loss is None else max(0.0, quality - loss.significant)

    def _share(self, wanted: Choice, quality: float, floor: float | None) -> float:
        """Return the probability of the cached answer."""
        if floor is not None and quality < floor:
            return 0.0  # the client's own floor
        price = wanted.shadow_price
        best = max(
            [
                q - price * cost
                for q, cost, p in zip(
                    wanted.quality_hat, wanted.cost_hat_usd, wanted.pmf, strict=True
                )
                if p > 0.0
            ]
        )
        return 1.0 - self.fresh_share if quality >= best - TIE else self.fresh_share

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
        """Learn the quality of an answer; that of a cached one is compared with a fresh one's."""
        if arm.startswith(PREFIX):
            self._learn_loss(choice, arm[len(PREFIX) :], quality, belief)
        elif belief == 1.0:
            self.inner.learn(context, fresh(choice), arm, quality, weight)
        else:
            self.inner.learn(context, fresh(choice), arm, quality, weight, belief=belief)
        self.version = self.inner.version + self._labels

    def learn_signal(
        self,
        context: Context,
        choice: Choice,
        arm: str,
        estimate: SignalEstimate,
        weight: float = 1.0,
    ) -> None:
        """Learn what signals say of a fresh answer; only labels judge a cached one."""
        if not arm.startswith(PREFIX) and isinstance(self.inner, LearnsSignals):
            self.inner.learn_signal(context, fresh(choice), arm, estimate, weight)
            self.version = self.inner.version + self._labels

    def rectify(
        self, choice: Choice, arm: str, quality: float, predicted: float, weight: float = 1.0
    ) -> None:
        """Use the true quality of a fresh answer; see the port."""
        if not arm.startswith(PREFIX) and isinstance(self.inner, LearnsSignals):
            self.inner.rectify(fresh(choice), arm, quality, predicted, weight)

    def _learn_loss(self, choice: Choice, origin: str, quality: float, belief: float) -> None:
        if self.is_cascade and (cached := PREFIX + origin) in choice.arms:
            known = self._losses.get(origin)  # what was taken off
            expected = choice.quality_hat[choice.arms.index(cached)]
            expected = min(1.0, expected + (0.0 if known is None else known.significant))
        elif origin in choice.arms:
            expected = choice.quality_hat[choice.arms.index(origin)]
        else:  # it was the only arm
            expected = self._expected.get(origin, choice.quality_hat[-1])
        self._losses.setdefault(origin, _Loss()).add(expected - quality, belief)
        self._labels += 1

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Record the final cost of a choice, against what was expected of it."""
        self.inner.charge(choice, cost_usd)

    def pace(self, allowance_usd: float | None, scope: str = "") -> None:
        """Set what the budgets allow per request from now on."""
        self.inner.pace(allowance_usd, scope)

    def reprice(self, arm: str, ratio: float) -> None:
        """Apply an arm's new price at once; ratio = new / old."""
        self.inner.reprice(arm, ratio)

    def resolve_due(self) -> bool:
        """Return whether the multipliers should be solved again."""
        return self.inner.resolve_due()

    def resolve(self) -> None:
        """Solve the multipliers again."""
        self.inner.resolve()

    def drain(self) -> list[Change | Notice]:
        """Return the changes and notices since the last call."""
        return self.inner.drain()

    def figures(self) -> dict[str, float]:
        """Return the figures of the policy inside, and the greatest loss of cached answers."""
        losses = [loss.significant for loss in self._losses.values()]
        return {**self.inner.figures(), "cache_loss": max(losses, default=0.0)}

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""
        losses = {name: [one.count, one.total, one.square] for name, one in self._losses.items()}
        values = {"losses": losses, "expected": self._expected, "labels": self._labels}
        return pack(KIND, values, {"inner": self.inner.save()})

    def load(self, state: bytes) -> None:
        """Load a saved state, also one of the policy inside alone; see the port."""
        self._take(state, adopts=False)

    def adopt(self, state: bytes) -> None:
        """Load what another process has learned; see the port."""
        self._take(state, adopts=True)

    def _take(self, state: bytes, *, adopts: bool) -> None:
        take = self.inner.adopt if adopts else self.inner.load
        if not is_saved(state):
            take(state)
            self.version = self.inner.version + self._labels
            return
        values, parts = unpack(KIND, state)
        losses = {str(name): _Loss(*map(float, sums)) for name, sums in values["losses"].items()}
        expected = {str(name): float(quality) for name, quality in values["expected"].items()}
        numbers = [*expected.values(), *_sums(losses)]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a saved state with numbers that are not finite")
        labels = int(values["labels"])
        take(parts["inner"])
        self._losses, self._expected, self._labels = losses, expected, labels
        self.version = self.inner.version + labels


def _sums(losses: dict[str, _Loss]) -> list[Any]:
    return [number for one in losses.values() for number in (one.count, one.total, one.square)]


def is_saved(state: bytes) -> bool:
    """Return whether saved bytes are those of this policy rather than of the one inside."""
    return f'"kind": "{KIND}"'.encode() in state.partition(b"\n")[0][:200]


def inside(state: bytes) -> bytes:
    """Return the state of the policy inside, from bytes that may be either's."""
    return unpack(KIND, state)[1]["inner"] if is_saved(state) else state


def kept(arms: Sequence[Arm]) -> Arm | None:
    """Return the arm of a cached answer; None if there is none."""
    return next((arm for arm in arms if arm.name.startswith(PREFIX)), None)


def fresh(choice: Choice) -> Choice:
    """Return a choice given that the answer was a fresh one."""
    at = next((n for n, arm in enumerate(choice.arms) if arm.startswith(PREFIX)), None)
    if at is None or choice.index == at:
        return choice
    rest = 1.0 - choice.pmf[at]
    if rest <= 0.0:
        return choice

    def without(values: tuple[T, ...]) -> tuple[T, ...]:
        return (*values[:at], *values[at + 1 :])

    return replace(
        choice,
        arms=without(choice.arms),
        pmf=tuple([p / rest for p in without(choice.pmf)]),
        index=choice.index - (choice.index > at),
        quality_hat=without(choice.quality_hat),
        cost_hat_usd=without(choice.cost_hat_usd),
        shadow=tuple([p / rest for p in without(choice.shadow)]),
    )
