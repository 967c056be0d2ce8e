"""How much to try arms that do not look best: more while little is known, never beyond its budget.

Gamma is how greedy the inverse gap weighting is against an arm; it rises with the labels seen of
that arm, so that a newcomer is tried and a well-known loser is left alone. The expected extra spend
is at most a share of the allowance; where no budget binds, of what requests cost lately.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from policies.sampling import cap_extra, inverse_gap


@dataclass(frozen=True, slots=True)
class Exploration:
    """The settings of exploration.

    gamma:       greediness against an arm of which `labels` labels are known, and beyond.
    gamma_first: greediness against an arm never seen.
    share:       the most of the allowance that may be expected to go into trying dearer arms.
    p_min:       the least probability of every arm, within that share; 0 unless replay is wanted.
    """

    gamma: float = 10_000.0
    gamma_first: float = 100.0
    labels: float = 30.0
    share: float = 0.05
    p_min: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.gamma_first <= self.gamma and self.labels > 0):
            raise ValueError(f"gamma_first {self.gamma_first}, gamma {self.gamma}")
        if not (0 <= self.share <= 1 and 0 <= self.p_min <= 1):
            raise ValueError(f"share {self.share}, p_min {self.p_min}: not in [0, 1]")

    def pmf(
        self,
        scores: Sequence[float],
        costs_usd: Sequence[float],
        labels: Sequence[int],
        hopeless: Sequence[bool],
        base_usd: float,
    ) -> tuple[list[float], float]:
        """Return the probabilities of the arms, and their expected extra cost in dollars.

        labels: how many are known of each arm. hopeless: which arms would not be best even if they
        were always right, so that nothing can be gained by trying them now.
        """
        rise = (self.gamma - self.gamma_first) / self.labels
        gammas = [min(self.gamma_first + rise * known, self.gamma) for known in labels]
        pmf = inverse_gap(scores, gammas, self.p_min)
        top = scores.index(max(scores))
        if True in hopeless:
            for index, in_vain in enumerate(hopeless):
                if in_vain and pmf[index] > self.p_min:
                    pmf[top] += pmf[index] - self.p_min
                    pmf[index] = self.p_min
        return pmf, cap_extra(pmf, top, costs_usd, self.share * base_usd)
