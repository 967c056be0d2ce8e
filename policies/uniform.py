"""Exploration that ignores gaps and costs: every arm has the same small probability."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Uniform:
    """Epsilon-greedy exploration, a replacement for `Exploration`."""

    epsilon: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon {self.epsilon}, not in [0, 1]")

    def pmf(
        self,
        scores: Sequence[float],
        costs_usd: Sequence[float],
        labels: Sequence[float],
        hopeless: Sequence[bool],
        base_usd: float,
    ) -> tuple[list[float], float]:
        """Return the probabilities of the arms, and their expected extra cost in dollars."""
        count = len(scores)
        pmf = [self.epsilon / count] * count
        top = scores.index(max(scores))
        pmf[top] = 0.0
        pmf[top] = 1.0 - sum(pmf)
        own = costs_usd[top]
        extra = sum([p * max(cost - own, 0.0) for p, cost in zip(pmf, costs_usd, strict=True)])
        return pmf, extra
