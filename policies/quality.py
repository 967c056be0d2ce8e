"""What quality to expect of an arm: a head's regression around a prior, and a fast bias.

The head learns slowly what the context says; the bias follows an arm's recent residuals, so that a
sudden change for the worse is felt within a few dozen labels, long before the head has unlearned.
"""

import math
from collections.abc import Sequence
from typing import Any

from policies.heads.types import Head
from policies.packing import pack, unpack
from policies.types import Arm, Context

KIND = "quality 1"


class Quality:
    """Predicts quality in [0, 1] and learns from labels."""

    # The mutable state is, by name of arm: the prior, the bias, the labels seen; and the head's.

    def __init__(self, head: Head, *, default: float, bias_rate: float) -> None:
        """`default`: the prior of an arm that declares none."""
        self._head = head
        self._default = default
        self._bias_rate = bias_rate
        self._priors: dict[str, float] = {}
        self._biases: dict[str, float] = {}
        self.labels: dict[str, int] = {}

    def predict(self, context: Context, arms: Sequence[Arm]) -> list[float]:
        """Return a quality in [0, 1] per arm, in their order."""
        names = [arm.name for arm in arms]
        biases, priors = self._biases, self._priors
        for arm in arms:
            if arm.name not in biases:
                self._meet(arm.name, arm.prior_quality)
        values = self._head.predict(context, names)
        return [
            min(1.0, max(0.0, value + priors[name] + biases[name]))
            for name, value in zip(names, values, strict=True)
        ]

    def learn(self, context: Context, arm: str, quality: float) -> float:
        """Learn a label in [0, 1]; return by how much it was above what was expected."""
        if not 0.0 <= quality <= 1.0:
            raise ValueError(f"a quality of {quality}, not in [0, 1]")
        if arm not in self._biases:
            self._meet(arm, None)
        target = quality - self._priors[arm]
        surprise = target - self._head.predict(context, (arm,))[0]
        self._head.learn(context, arm, target)
        self._biases[arm] += self._bias_rate * (surprise - self._biases[arm])
        self.labels[arm] += 1
        return surprise

    def _meet(self, arm: str, prior: float | None) -> None:
        if prior is not None and not 0.0 <= prior <= 1.0:
            raise ValueError(f"arm {arm!r} declares a quality of {prior}, not in [0, 1]")
        self._priors[arm] = self._default if prior is None else prior
        self._biases[arm] = 0.0
        self.labels[arm] = 0

    def save(self) -> bytes:
        """Return what was learned, with a checksum."""
        values = {"priors": self._priors, "biases": self._biases, "labels": self.labels}
        return pack(KIND, values, {"head": self._head.save()})

    def load(self, state: bytes) -> None:
        """Take a saved state; ValueError, and no change, where it is damaged."""
        values, parts = unpack(KIND, state)
        priors, biases = _numbers(values["priors"]), _numbers(values["biases"])
        labels = {str(name): int(count) for name, count in values["labels"].items()}
        self._head.load(parts["head"])
        self._priors, self._biases, self.labels = priors, biases, labels


def _numbers(table: dict[str, Any]) -> dict[str, float]:
    numbers = {str(name): float(value) for name, value in table.items()}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError("a saved state with numbers that are not finite")
    return numbers
