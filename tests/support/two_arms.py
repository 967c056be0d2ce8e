"""A small world of a cheap and a dear arm, in which the optimum is known."""

from dataclasses import dataclass, field
from random import Random

from tollway.policies.types import Arm, Context, Policy

CHEAP, DEAR = Arm("cheap", 1e-4), Arm("dear", 1e-3)


@dataclass
class World:
    """Half of the requests are easy (both arms right), half hard (only `dear` is right)."""

    policy: Policy
    arms: tuple[Arm, ...] = (CHEAP, DEAR)
    right: dict[tuple[str, bool], float] = field(
        default_factory=lambda: {
            ("cheap", False): 0.95,
            ("cheap", True): 0.3,
            ("dear", False): 0.95,
            ("dear", True): 0.95,
        }
    )
    rng: Random = field(default_factory=lambda: Random(0))

    def run(self, count: int) -> tuple[float, float]:
        """Return (quality, cost) per request."""
        quality = spent = 0.0
        for _ in range(count):
            hard = self.rng.random() < 0.5
            context = Context((float(hard), 1.0 - hard))
            choice = self.policy.choose(context, self.arms, self.rng)
            label = float(self.rng.random() < self.right[choice.arm, hard])
            cost = self.arms[choice.index].cost_usd
            self.policy.learn(context, choice, choice.arm, label)
            self.policy.charge(choice, cost)
            if self.policy.resolve_due():
                self.policy.resolve()
            quality, spent = quality + label, spent + cost
        return quality / count, spent / count
