"""Predicts the quality of an arm: its mean, plus what the context adds as far as that is reliable.

A regressor predicts quality from the context, around a prior. How far to trust it for a context is
learned too: as the slope of the labels' deviations from the arm's mean on the regressor's
deviations, each predicted before it was learned from. A regressor that has seen too little, or that
finds no signal, gets a slope near 0, and the arm is judged by its mean. (Stacking: Wolpert 1992;
prequential.)

An arm without labels and without a declared quality is presumed to be a little better than the best
of those that cost the same or less: nobody offers a more expensive arm for the same quality. So
money is spent before there are labels, as the best guess of a mix of fixed arms would be, and a new
arm is tried.

With five arms or more, labels are compared with each other after the part that follows the ease of
their requests was taken off: see `ease`.

Sudden changes are detected long before the regressor has unlearned: see `drift`.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from tollway.policies.evidence.drift import Change, Drift
from tollway.policies.evidence.ease import LABELS_MAX, MANY, NONE, Ease, eases
from tollway.policies.evidence.whole_labels import Whole
from tollway.policies.regressors.types import Matrix, Regressor, Rows, Table
from tollway.policies.state_codec import pack, unpack
from tollway.policies.types import Arm, Context

KIND = "quality 3"
Value = TypeVar("Value", float, Matrix)
PRESUMED = 0.06  # quality per factor of ten in cost, of an arm without labels or declared quality
MEAN_RATE = 0.003  # of an arm's mean: about its last 300 labels
CHANGED = 50.0  # labels that an arm's mean counts for after a change was detected
BELIEF = 0.999  # share of the evidence for the slope that remains after one label
RECOVERED_LABELS = 100  # after an alarm, before the mean can show that it was false
RECOVERED = 0.25  # of the detected fall: a mean that is down by less shows it
SUSPECT = 0  # labels counted for an arm that has become worse: it is tried now and then
NOISE = 0.05  # variance of the labels before there are any, counting for NOISE_LABELS
NOISE_LABELS = 2.0
PRIOR_ERROR = 0.2  # of the presumed quality of an arm without labels, which counts for one label
DOUBT = 0.2  # squared deviations' worth of evidence before the regressor is trusted


class _Arm:
    """The state of one arm: its prior, its mean, the trust in the regressor, its drift."""

    __slots__ = (
        "count",
        "drift",
        "error",
        "fell_below",
        "labels",
        "mean",
        "noise",
        "prior",
        "same",
        "since",
        "slope",
        "square",
        "usual",
        "whole",
    )

    # The mutable state: the mean, the slope with its two sums, the drift detector, the variance of
    # the surprises, how many labels were learned, how many count as evidence, and the error that
    # follows from these; the regressor's mean prediction for recent contexts; since the last alarm
    # of a fall, the number of labels, and the mean above which there was no fall.

    def __init__(self, prior: float) -> None:
        self.prior = prior
        self.mean = 0.0
        self.drift = Drift()
        self.whole = Whole()
        self.labels = self.count = 0.0
        self.noise = NOISE
        self.usual = 0.0
        self.since, self.fell_below = 0, 0.0
        self.doubt()
        self.lean(DOUBT, DOUBT)

    def doubt(self) -> None:
        """Compute the variance of the mean: that of the labels' noise, and of the prior."""
        labels = min(self.labels, 2.0 / MEAN_RATE)
        square = (labels + 1.0) * (labels + 1.0)
        self.error = (labels * self.noise + PRIOR_ERROR * PRIOR_ERROR) / square

    def lean(self, same: float, square: float) -> None:
        """Compute the slope from its sums: how far to follow the regressor away from the mean."""
        self.same, self.square = same, square
        self.slope = min(1.0, max(0.0, same / square))

    def believed(self, value: Value) -> Value:
        """Return the expected quality where the regressor predicts `value`, before any drift."""
        return self.prior + self.mean + self.slope * (value - self.mean)

    def _follow(self, quality: float, value: float, belief: float, ease: float = 0.0) -> None:
        """Move the mean and the slope by a label and the regressor's prediction.

        ease: how much better than usual an average arm is expected to be on this request.
        """
        target, off = quality - self.prior, value - self.mean
        decay = BELIEF if belief == 1.0 else BELIEF**belief
        self.lean(
            decay * self.same + belief * (target - self.mean) * off,
            decay * self.square + belief * off * off,
        )
        self.count += belief
        self.mean += belief * max(MEAN_RATE, 1.0 / (self.count + 1.0)) * (target - ease - self.mean)

    def learn_signal(self, quality: float, value: float, belief: float) -> None:
        """Learn from an estimate that is right in the mean only."""
        self._follow(quality, value, belief)
        if self.labels > SUSPECT or not self.drift.fallen:
            self.labels += belief
        self.doubt()

    def learn(
        self, arm: str, quality: float, value: float, belief: float, ease: float
    ) -> Change | None:
        """Learn from a label and the regressor's prediction; return a change if one is detected."""
        surprise = quality - self.believed(value) - (1.0 - self.slope) * ease
        rate = max(MEAN_RATE, 1.0 / (self.count + 1.0 + NOISE_LABELS))
        self.noise += belief * rate * (surprise * surprise - self.noise)
        self._follow(quality, value, belief, ease)
        change = self.drift.observe(arm, surprise) if self.whole.add(belief) else None
        if change is not None:
            self.count = min(self.count, CHANGED)
        if change is not None and change.amount < 0.0:
            self.since, self.fell_below = 0, self.mean + RECOVERED * change.amount
        self.since += 1
        if self.drift.fallen and self.since > RECOVERED_LABELS and self.mean > self.fell_below:
            self.drift.fallen = False
        self.labels = SUSPECT if self.drift.fallen else self.labels + belief
        self.doubt()
        return change


class Quality:
    """Predicts quality in [0, 1] and learns from labels."""

    # The mutable state is the state of each arm, by its name, the regressor's, and how far labels
    # follow the ease of their requests.

    def __init__(self, head: Regressor, *, default: float) -> None:
        """`default`: the prior of an arm that declares none."""
        self._head = head
        self._default = default
        self.revalued = head.cheap_many
        self._arms: dict[str, _Arm] = {}
        self._names: tuple[str, ...] = ()
        self.ease: Ease | None = Ease()  # None: labels are compared as they are

    def _eases(self, values: Matrix, names: Sequence[str]) -> Matrix:
        """Return the ease for each arm of what the regressor predicts, ... x arms."""
        arms = [self._arms[name] for name in names]
        usual, slopes = [arm.usual for arm in arms], [arm.slope for arm in arms]
        return eases(values, usual, slopes, [arm.labels for arm in arms])

    def _eases_of_one(
        self, values: Sequence[float], names: Sequence[str], share: float
    ) -> list[float]:
        """Return `share` of the ease for each arm of one request, as `_eases`.

        For a dozen values a loop is several times as fast as arrays.
        """
        table, parts, counts = self._arms, [], []
        total = count = 0.0
        for value, name in zip(values, names, strict=True):
            arm = table[name]
            labels = arm.labels if arm.labels < LABELS_MAX else LABELS_MAX
            part = (value - arm.usual) * labels * arm.slope
            parts.append(part)
            counts.append(labels)
            total += part
            count += labels
        count += NONE
        return [
            share * (total - part) / (count - labels)
            for part, labels in zip(parts, counts, strict=True)
        ]

    def expect(
        self, context: Context, arms: Sequence[Arm], names: Sequence[str]
    ) -> tuple[list[float], list[float]]:
        """Return per arm its quality in [0, 1], and the variance of that belief.

        `names` are those of the arms.
        """
        table = self._arms
        for name in names:
            if name not in table:
                self._introduce(arms)
                break
        qualities = self._head.predict(context, names)
        errors = [*qualities]
        extra: list[float] | None = None
        if len(names) >= MANY and self.ease is not None and self.ease.share:
            extra = self._eases_of_one(qualities, names, self.ease.share)
        for index, name in enumerate(names):
            # As `_Arm.believed`; a call takes as long as all of this.
            arm = table[name]
            quality = arm.prior + arm.mean + arm.slope * (qualities[index] - arm.mean)
            if extra is not None:
                quality += (1.0 - arm.slope) * extra[index]
            if arm.drift.active:
                quality += arm.drift.bias
            qualities[index] = 0.0 if quality < 0.0 else 1.0 if quality > 1.0 else quality
            errors[index] = arm.error
        return qualities, errors

    def table(self, rows: int) -> Table:
        """Return a table of contexts to predict repeatedly."""
        return self._head.table(rows)

    def rethink(self, table: Table, rows: Rows, arms: Sequence[str]) -> Matrix:
        """Return what `expect` would return now for some rows, as rows x arms."""
        values = table.predict(rows, arms)
        extra: Matrix | float = 0.0
        if len(arms) >= MANY and self.ease is not None:
            for name, usual in zip(arms, values.mean(axis=0).tolist(), strict=True):
                self._arms[name].usual = usual
            if self.ease.share:
                trusted = np.array([self._arms[name].slope for name in arms])
                extra = self.ease.share * (1.0 - trusted) * self._eases(values, arms)
        for column, name in zip(values.T, arms, strict=True):
            arm = self._arms[name]
            column[:] = arm.believed(column) + arm.drift.bias
        values += extra
        return values.clip(0.0, 1.0)

    def learn(
        self, context: Context, arm: str, quality: float, belief: float = 1.0
    ) -> Change | None:
        """Learn a label in [0, 1]; return the change of the arm if one is detected.

        `belief`: how far to trust the label, from above 0 to 1.
        """
        if not 0.0 < belief <= 1.0:
            raise ValueError(f"a belief of {belief}, not above 0 and up to 1")
        if not 0.0 <= quality <= 1.0:
            raise ValueError(f"a quality of {quality}, not in [0, 1]")
        known = self._arms.get(arm) or self._meet(arm, None)
        target = quality - known.prior
        ease = 0.0
        if len(self._names) >= MANY and self.ease is not None and known.count:
            ease = self._learn_ease(self.ease, context, arm, target - known.mean)
        if belief == 1.0:
            value = self._head.learn(context, arm, target)
        else:
            value = self._head.learn(context, arm, target, belief)
        return known.learn(arm, quality, value, belief, ease)

    def _learn_ease(self, learned: Ease, context: Context, arm: str, rest: float) -> float:
        """Learn how far a label less its arm's mean follows the ease; return that part of it."""
        names = self._names
        values = self._head.predict(context, names)
        ease = self._eases_of_one(values, names, 1.0)[names.index(arm)]
        learned.learn(ease, rest)
        return learned.share * ease

    def learn_signal(self, context: Context, arm: str, quality: float, belief: float) -> None:
        """Learn an estimate of an answer's quality, which is right in the mean only.

        It may be outside [0, 1], and it is no evidence of a change: a signal may itself change.
        `belief`: its share of a label's information, above 0 and below 1.
        """
        if not 0.0 < belief < 1.0:
            raise ValueError(f"a belief of {belief}, not between 0 and 1")
        if not math.isfinite(quality):
            raise ValueError(f"a quality of {quality}")
        known = self._arms.get(arm) or self._meet(arm, None)
        value = self._head.learn(context, arm, quality - known.prior, belief)
        known.learn_signal(quality, value, belief)

    def _introduce(self, arms: Sequence[Arm]) -> None:
        """Add the arms that are new, the cheaper first."""
        best, best_usd = None, 0.0
        for arm in sorted(arms, key=lambda arm: arm.cost_usd):
            known = self._arms.get(arm.name)
            if known is None:
                prior = arm.prior_quality
                if prior is None and best is not None:
                    prior = _presumed(best, best_usd, arm.cost_usd)
                known = self._meet(arm.name, prior)
            quality = min(1.0, max(0.0, known.prior + known.mean))
            if best is None or quality >= best:
                best, best_usd = quality, arm.cost_usd

    def _meet(self, arm: str, prior: float | None) -> _Arm:
        if prior is not None and not 0.0 <= prior <= 1.0:
            raise ValueError(f"arm {arm!r} declares a quality of {prior}, not in [0, 1]")
        known = self._arms[arm] = _Arm(self._default if prior is None else prior)
        self._names = tuple(self._arms)
        return known

    def save(self) -> bytes:
        """Return the learned state, with a checksum."""
        arms = self._arms
        values = {
            "priors": {name: arm.prior for name, arm in arms.items()},
            "means": {name: arm.mean for name, arm in arms.items()},
            "slopes": {name: [arm.same, arm.square] for name, arm in arms.items()},
            "drifts": {name: arm.drift.save() for name, arm in arms.items()},
            "labels": {name: arm.labels for name, arm in arms.items()},
            "falls": {name: [arm.since, arm.fell_below] for name, arm in arms.items()},
            "usuals": {name: arm.usual for name, arm in arms.items()},
            "ease": self.ease.save() if self.ease is not None else None,
            "noises": {name: arm.noise for name, arm in arms.items()},
            "counts": {name: arm.count for name, arm in arms.items()},
        }
        return pack(KIND, values, {"head": self._head.save()})

    def load(self, state: bytes) -> None:
        """Load a saved state; ValueError, and no change, if it is damaged."""
        values, parts = unpack(KIND, state)
        means, arms = _numbers(values["means"]), {}
        for name, prior in _numbers(values["priors"]).items():
            arm = arms[name] = _Arm(prior)
            arm.mean = means[name]
            arm.lean(*map(float, values["slopes"][name]))
            arm.drift.load(values["drifts"][name])
            since, below = values.get("falls", {}).get(name, (0, 0.0))
            arm.since, arm.fell_below = int(since), float(below)
            arm.labels, arm.count = float(values["labels"][name]), float(values["counts"][name])
            # Snapshots that predate these have none.
            arm.noise = float(values.get("noises", {}).get(name, NOISE))
            arm.usual = float(values.get("usuals", {}).get(name, 0.0))
            arm.doubt()
        self._head.load(parts["head"])
        # An arm known here but missing from the saved state stays: recent contexts may hold it.
        self._arms |= arms
        self._names = tuple(self._arms)
        if self.ease is not None and values.get("ease"):
            self.ease.load(values["ease"])


def _presumed(quality: float, cost_usd: float, higher_usd: float) -> float:
    """Return the presumed quality of an unknown arm, given the best of those that cost less.

    It adds at most half of the distance to 1. If either arm is free, nothing can be presumed.
    """
    if cost_usd <= 0.0 or higher_usd <= 0.0:
        return quality
    more = PRESUMED * math.log10(higher_usd / cost_usd)
    return min(quality + more, (quality + 1.0) / 2)


def _numbers(table: dict[str, Any]) -> dict[str, float]:
    numbers = {str(name): float(value) for name, value in table.items()}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError("a saved state with numbers that are not finite")
    return numbers
