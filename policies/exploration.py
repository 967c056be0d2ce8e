"""Decides how often to try arms that do not look best, within an exploration budget.

Exploration is frequent while little is known. It uses inverse gap weighting (SquareCB: Foster and
Rakhlin 2020, arXiv 2002.04926): with b the best of K arms, p_a = 1 / (K + gamma_a * (s_b - s_a))
for the others, and b has the rest. Gamma is the greediness against an arm. It rises with the number
of labels of that arm, so that a new arm is tried and an arm known to be bad is rarely drawn. The
expected extra spend is at most a share of the allowance; where no budget binds, it is at most a
share of the recent mean cost of a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tollway.policies.sampling import cap_extra


@dataclass(frozen=True, slots=True)
class Exploration:
    """The settings of exploration.

    gamma:       greediness against an arm that has `labels` labels or more.
    gamma_first: greediness against an arm without labels.
    share:       maximum share of the allowance expected to be spent on more expensive arms.
    p_min:       minimum probability of every arm, within that share; 0 unless replay is wanted.
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
        labels: Sequence[float],
        hopeless: Sequence[bool],
        base_usd: float,
    ) -> tuple[list[float], float]:
        """Return the probabilities of the arms, and their expected extra cost in dollars.

        labels: the number of labels of each arm. hopeless: the arms that would not be best even if
        they were always right, so that trying them now gains nothing.
        """
        rise = (self.gamma - self.gamma_first) / self.labels
        best, count = max(scores), len(scores)
        top, least = scores.index(best), min(self.p_min, 1.0 / count)
        pmf = []
        for score, known, in_vain in zip(scores, labels, hopeless, strict=True):
            if in_vain:
                pmf.append(least)
            else:
                gamma = min(self.gamma_first + rise * known, self.gamma)
                pmf.append(max(1.0 / (count + gamma * (best - score)), least))
        pmf[top] = 0.0
        pmf[top] = 1.0 - sum(pmf)
        return pmf, cap_extra(pmf, top, costs_usd, self.share * base_usd)
