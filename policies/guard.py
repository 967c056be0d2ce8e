"""Keeps a learned policy in the shadow of a fixed arm until it is shown to be worth more.

In the shadow one arm answers: the declared baseline, or else the best fixed arm at today's shadow
price. The learned policy still chooses, and the distribution it would have drawn from is logged. A
random share of the requests follows the learned policy: without them there would be no evidence on
the arms that differ from the fixed one. Every label is a bet on the gain (`confidence_sequences`,
`off_policy`)

    gain = value of the learned policy - value of the fixed arm
    value = quality - shadow price x expected cost

When the lower bound of the gain, valid at all times, exceeds 0, the learned policy takes over. The
fixed arm then keeps a share, so that the savings continue to be measured against it. When a
detector then finds that the gain is below 0, the fixed arm answers again, and the evidence is
reset.

`observe` is the same without the random share and without taking over: the fixed arm answers every
request, and nothing is claimed about the gain.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from tollway.policies.evidence.confidence_sequences import Detector, LowerBound
from tollway.policies.evidence.drift import Change
from tollway.policies.evidence.off_policy import covered, dot, estimated, held_back
from tollway.policies.evidence.signal_trust import SignalEstimate
from tollway.policies.evidence.whole_labels import Whole
from tollway.policies.sampling import draw
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import Arm, Choice, Context, LearnsSignals, Notice, Policy

KIND = "guard 1"
TRIAL = 0.1  # of the requests: the learned policy's in the shadow, the fixed arm's afterwards
# Part of the trial is drawn evenly among arms that cost no more than the fixed one: a policy that
# explores a tenth of what it would alone keeps its first impressions too long.
TRIES = 0.2
GAIN_MAX = 1.0  # quality: maximum effect of one request's costs, in either direction
MEAN_RATE = 0.005  # of an arm's mean quality and cost
LEAD = 0.01  # quality by which another fixed arm must be better to replace the present one
NOTICES_MAX = 100  # notices not drained yet
TEXTS = {
    "guard_took_over": "the learned policy is shown to be worth more than {arm} alone; it acts now",
    "guard_handed_back": "the learned policy is worth less than {arm} alone; {arm} answers again",
}


class Guard:
    """A policy around another; see the module."""

    # The mutable state is the inner policy, whether it acts, the bets on its gain, the mean quality
    # and cost of each arm, the fixed arm, and the notices not drained yet.

    def __init__(
        self,
        inner: Policy,
        *,
        baseline: str | None = None,
        trial: float = TRIAL,
        alpha: float = 0.05,
        alarm: float = 0.01,
        observe: bool = False,
    ) -> None:
        if not 0.0 < trial <= 0.5:
            raise ValueError(f"a trial share of {trial}, not above 0 and up to 0.5")
        self.version = inner.version
        self.active = False
        self._inner = inner
        self._baseline = baseline
        self._trial = 0.0 if observe else trial
        self._observe = observe
        self._gain = LowerBound(low=-1.0, high=1.0, alpha=alpha)
        self._losing = Detector(0.0, alpha=alarm)
        self._means: dict[str, list[float]] = {}
        self._fixed = baseline or ""
        self._whole = Whole()
        self._notices: deque[Notice] = deque(maxlen=NOTICES_MAX)

    def choose(
        self, context: Context, arms: Sequence[Arm], rng: Random, floor: float | None = None
    ) -> Choice:
        """Draw one of `arms`; see the port. `shadow` is the learned policy's own distribution."""
        wanted = self._inner.choose(context, arms, rng, floor)
        if wanted.reason == "floor_unmet":
            return wanted  # a client's own floor takes precedence over the guard
        for arm, quality, cost_usd in zip(
            wanted.arms, wanted.quality_hat, wanted.cost_hat_usd, strict=True
        ):
            self._see(arm, quality, cost_usd)
        at = self._fixed_arm(wanted)
        if floor is not None and wanted.quality_hat[at] < floor:
            return wanted  # ... here too: the fixed arm is not expected to meet it
        pmf = self._mix(wanted, at)
        index = draw(pmf, rng)
        return replace(
            wanted,
            pmf=tuple(pmf),
            index=index,
            reason=wanted.reason if self.active or index != at else "guarded",
            shadow=wanted.shadow or wanted.pmf,
            guarded_by=wanted.arms[at],
        )

    def _see(self, arm: str, quality: float, cost_usd: float) -> None:
        mean = self._means.setdefault(arm, [quality, cost_usd])
        mean[0] += MEAN_RATE * (quality - mean[0])
        mean[1] += MEAN_RATE * (cost_usd - mean[1])

    def _mix(self, wanted: Choice, at: int) -> list[float]:
        """Return the probabilities to draw from; `at` is the index of the fixed arm."""
        if self.active:
            return held_back(wanted.pmf, at, 1.0 - self._trial)
        pmf = held_back(wanted.pmf, at, (1.0 - TRIES) * self._trial)
        costs = wanted.cost_hat_usd
        tried = [a for a, cost in enumerate(costs) if a != at and cost <= costs[at]]
        for arm in tried:
            part = TRIES * self._trial / len(tried)
            pmf[arm] += part
            pmf[at] -= part
        return pmf

    def _fixed_arm(self, wanted: Choice) -> int:
        """Return the index of the fixed arm among those offered."""
        if self._baseline in wanted.arms:
            return wanted.arms.index(self._baseline)
        price = wanted.shadow_price
        worth = [self._means[arm][0] - price * self._means[arm][1] for arm in wanted.arms]
        best = worth.index(max(worth))
        if self._fixed in wanted.arms:
            present = wanted.arms.index(self._fixed)
            if worth[best] <= worth[present] + LEAD:
                return present
        if self._baseline is None:
            self._fixed = wanted.arms[best]
        return best

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
        """Learn the quality of an arm's answer, and its evidence on the learned policy."""
        if belief == 1.0:
            self._inner.learn(context, choice, arm, quality, weight)
        else:
            self._inner.learn(context, choice, arm, quality, weight, belief=belief)
        self.version = self._inner.version
        if arm != choice.arm or not choice.guarded_by:
            return
        if not covered(choice.shadow, choice.pmf) or not self._whole.add(belief):
            return
        gain, least, most = (weight * value for value in self._estimate(choice, quality))
        if self.active:
            if self._losing.observe(-gain, -most):
                self._state("guard_handed_back")
            return
        self._gain.observe(gain, least)
        if self._gain.value > 0.0:
            self._state("guard_took_over")

    def learn_signal(
        self,
        context: Context,
        choice: Choice,
        arm: str,
        estimate: SignalEstimate,
        weight: float = 1.0,
    ) -> None:
        """Learn what signals say of an arm's answer; they prove no gain."""
        if isinstance(self._inner, LearnsSignals):
            self._inner.learn_signal(context, choice, arm, estimate, weight)
            self.version = self._inner.version

    def rectify(
        self, choice: Choice, arm: str, quality: float, predicted: float, weight: float = 1.0
    ) -> None:
        """Do nothing: a guarded policy has no floor."""

    def _estimate(self, choice: Choice, quality: float) -> tuple[float, float, float]:
        """Return (gain, least, most) as one label estimates it."""
        instead = list(choice.shadow)
        instead[choice.arms.index(choice.guarded_by)] -= 1.0
        gain, least, most = estimated(choice, quality, instead)
        saved = -choice.shadow_price * dot(instead, choice.cost_hat_usd)
        saved = min(max(saved, -GAIN_MAX), GAIN_MAX)
        return gain + saved, least + saved, most + saved

    def _state(self, kind: str) -> None:
        figures = {"gain": self.gain, "gain_lower_bound": self._gain.value}
        self.active = kind == "guard_took_over"
        self._notices.append(Notice(kind, TEXTS[kind].format(arm=self._fixed), figures))
        self._losing.reset()
        if not self.active:
            self._gain.reset()

    @property
    def gain(self) -> float:
        """The recent mean gain, according to the labels."""
        return -self._losing.mean if self.active else self._gain.mean

    def charge(self, choice: Choice, cost_usd: float) -> None:
        """Count the final cost of a choice."""
        self._inner.charge(choice, cost_usd)

    def pace(self, allowance_usd: float | None, scope: str = "") -> None:
        """Set what the budgets allow per request from now on."""
        self._inner.pace(allowance_usd, scope)

    def reprice(self, arm: str, ratio: float) -> None:
        """Apply an arm's new price at once; ratio = new / old."""
        self._inner.reprice(arm, ratio)
        if arm in self._means:
            self._means[arm][1] *= ratio

    def resolve_due(self) -> bool:
        """Return whether the multipliers should be solved again."""
        return self._inner.resolve_due()

    def resolve(self) -> None:
        """Solve the multipliers again."""
        self._inner.resolve()

    def drain(self) -> list[Change | Notice]:
        """Return the notices since the last call; see the port."""
        noticed = [*self._inner.drain(), *self._notices]
        self._notices.clear()
        return noticed

    def figures(self) -> dict[str, float]:
        """Return the policy's figures; see the port."""
        figures = {**self._inner.figures(), "guard_active": float(self.active)}
        if not self._observe:
            figures["guard_gain"], figures["guard_gain_lower_bound"] = self.gain, self._gain.value
        return figures

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""
        values = {
            "active": self.active,
            "gain": self._gain.save(),
            "losing": self._losing.save(),
            "means": self._means,
            "fixed": self._fixed,
        }
        return pack(KIND, values, {"inner": self._inner.save()})

    def load(self, state: bytes) -> None:
        """Take a saved state; see the port."""
        self._take(state, self._inner.load)

    def adopt(self, state: bytes) -> None:
        """Load another process's evidence and learned state; see the port."""
        self._take(state, self._inner.adopt)

    def _take(self, state: bytes, take: Callable[[bytes], None]) -> None:
        values, parts = unpack(KIND, state)
        means = {str(arm): [float(q), float(c)] for arm, (q, c) in values["means"].items()}
        if not all(math.isfinite(value) for pair in means.values() for value in pair):
            raise ValueError("a saved state with numbers that are not finite")
        take(parts["inner"])
        self._gain.load(values["gain"])
        self._losing.load(values["losing"])
        self._means, self._fixed = means, str(values["fixed"])
        self.active = bool(values["active"]) and not self._observe
        self.version = self._inner.version
