"""What quality to expect of an arm: its mean, and what the context adds to it as far as that holds.

A head regresses quality on the context, around a prior. How much of what it says of a context may
be believed is learned too: the slope of the labels' deviations from the arm's mean on the head's,
each predicted before it was learned from. A head that has seen too little, or that sees nothing,
gets a slope near 0, and the arm is judged by its mean. (Stacking: Wolpert 1992; prequential.)

An arm that nothing is known of, and that declares nothing, is presumed to be a little better than
the best of those that cost less, or as much: nobody offers a dearer arm for the same. So money is
spent before there are labels, as the best guess of a mix of fixed arms would be, and a newcomer is
tried.
Sudden changes are felt long before the head has unlearned: see `drift`.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from policies.drift import Change, Drift
from policies.heads.types import Head, Matrix
from policies.packing import pack, unpack
from policies.types import Arm, Context

KIND = "quality 3"
Value = TypeVar("Value", float, Matrix)
PRESUMED = 0.06  # quality per factor of ten in cost, of an arm that nothing is known of
MEAN_RATE = 0.01  # of an arm's mean: about its last hundred labels
BELIEF = 0.999  # what one label leaves of the evidence for the slope
SUSPECT = 0  # labels that an arm that has become worse counts for: it is tried now and then
DOUBT = 0.2  # squared deviations' worth of evidence that the head is to be believed


class Quality:
    """Predicts quality in [0, 1] and learns from labels."""

    # The mutable state is, by name of arm: the prior, the mean and the slope's two sums, the watch
    # for drift, the labels that count as evidence; and the head's.

    def __init__(self, head: Head, *, default: float) -> None:
        """`default`: the prior of an arm that declares none."""
        self._head = head
        self._default = default
        self.revalued = head.cheap_many
        self._priors: dict[str, float] = {}
        self._means: dict[str, float] = {}
        self._slopes: dict[str, list[float]] = {}
        self._drifts: dict[str, Drift] = {}
        self._counts: dict[str, int] = {}
        self.labels: dict[str, int] = {}

    def predict(self, context: Context, arms: Sequence[Arm]) -> list[float]:
        """Return a quality in [0, 1] per arm, in their order."""
        names = [arm.name for arm in arms]
        for name in names:
            if name not in self._priors:
                self._introduce(arms)
        values = self._head.predict(context, names)
        return [
            min(1.0, max(0.0, self._believed(name, value) + self._drifts[name].bias))
            for name, value in zip(names, values, strict=True)
        ]

    def predict_many(self, contexts: Sequence[Context], arms: Sequence[str]) -> Matrix:
        """Return the qualities that `predict` would now, as contexts x arms."""
        table = self._head.predict_many(contexts, arms)
        for column, arm in zip(table.T, arms, strict=True):
            column[:] = self._believed(arm, column) + self._drifts[arm].bias
        return table.clip(0.0, 1.0)

    def _believed(self, arm: str, value: Value) -> Value:
        mean = self._means[arm]
        same, square = self._slopes[arm]
        slope = min(1.0, max(0.0, same / square))
        return self._priors[arm] + mean + slope * (value - mean)

    def learn(self, context: Context, arm: str, quality: float) -> Change | None:
        """Learn a label in [0, 1]; return the change of the arm where one is noticed."""
        if not 0.0 <= quality <= 1.0:
            raise ValueError(f"a quality of {quality}, not in [0, 1]")
        if arm not in self._priors:
            self._meet(arm, None)
        target = quality - self._priors[arm]
        value = self._head.learn(context, arm, target)
        surprise = quality - self._believed(arm, value)
        mean, slope = self._means[arm], self._slopes[arm]
        off = value - mean
        slope[0] = BELIEF * slope[0] + (target - mean) * off
        slope[1] = BELIEF * slope[1] + off * off
        self._counts[arm] += 1
        self._means[arm] += max(MEAN_RATE, 1.0 / (self._counts[arm] + 1.0)) * (target - mean)
        change = self._drifts[arm].observe(arm, surprise)
        self.labels[arm] = SUSPECT if self._drifts[arm].fallen else self.labels[arm] + 1
        return change

    def _introduce(self, arms: Sequence[Arm]) -> None:
        """Meet the arms not met before, the cheaper first."""
        best, best_usd = None, 0.0
        for arm in sorted(arms, key=lambda arm: arm.cost_usd):
            if arm.name not in self._priors:
                prior = arm.prior_quality
                if prior is None and best is not None:
                    prior = _presumed(best, best_usd, arm.cost_usd)
                self._meet(arm.name, prior)
            quality = min(1.0, max(0.0, self._priors[arm.name] + self._means[arm.name]))
            if best is None or quality >= best:
                best, best_usd = quality, arm.cost_usd

    def _meet(self, arm: str, prior: float | None) -> None:
        if prior is not None and not 0.0 <= prior <= 1.0:
            raise ValueError(f"arm {arm!r} declares a quality of {prior}, not in [0, 1]")
        self._priors[arm] = self._default if prior is None else prior
        self._means[arm] = 0.0
        self._slopes[arm] = [DOUBT, DOUBT]
        self._drifts[arm] = Drift()
        self.labels[arm] = self._counts[arm] = 0

    def save(self) -> bytes:
        """Return what was learned, with a checksum."""
        values = {
            "priors": self._priors,
            "means": self._means,
            "slopes": self._slopes,
            "drifts": {name: drift.save() for name, drift in self._drifts.items()},
            "labels": self.labels,
            "counts": self._counts,
        }
        return pack(KIND, values, {"head": self._head.save()})

    def load(self, state: bytes) -> None:
        """Take a saved state; ValueError, and no change, where it is damaged."""
        values, parts = unpack(KIND, state)
        priors, means = _numbers(values["priors"]), _numbers(values["means"])
        drifts = {name: Drift() for name in values["drifts"]}
        for name, drift in drifts.items():
            drift.load(values["drifts"][name])
        labels, counts = (
            {str(name): int(count) for name, count in values[key].items()}
            for key in ("labels", "counts")
        )
        slopes = {name: [float(a), float(b)] for name, (a, b) in values["slopes"].items()}
        self._head.load(parts["head"])
        # An arm that was met here and not there stays: the recent contexts may hold it.
        self._priors, self._means = self._priors | priors, self._means | means
        self._drifts, self._slopes = self._drifts | drifts, self._slopes | slopes
        self.labels, self._counts = self.labels | labels, self._counts | counts


def _presumed(quality: float, cost_usd: float, dearer_usd: float) -> float:
    """Return what to expect of an unknown arm, given the best of those that cost less.

    At most half of what is missing to 1. Where either is free, nothing can be said.
    """
    if cost_usd <= 0.0 or dearer_usd <= 0.0:
        return quality
    more = PRESUMED * math.log10(dearer_usd / cost_usd)
    return min(quality + more, (quality + 1.0) / 2)


def _numbers(table: dict[str, Any]) -> dict[str, float]:
    numbers = {str(name): float(value) for name, value in table.items()}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError("a saved state with numbers that are not finite")
    return numbers
