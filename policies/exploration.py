"""Decides how often to try arms that do not look best, within an exploration budget.

Exploration is frequent while little is known. It uses inverse gap weighting (SquareCB: Foster and
Rakhlin 2020, arXiv 2002.04926): with b the best of K arms, p_a = 1 / (K + gamma_a * (s_b - s_a))
for the others, and b has the rest. Gamma is the greediness against an arm. It rises with the number
of labels of that arm, so that a new arm is tried and an arm known to be bad is rarely drawn. The
expected extra spend is at most a share of the allowance; where no budget binds, it is at most a
share of the recent mean cost of a request.

With many arms the choice has two stages. First a short list: those of the highest score among the
arms whose gap to the best is within what their mean may be off by, two standard errors of a mean of
right-or-wrong labels. Then the draw, among the arms on the list alone. So exploration is not spread
over all arms at once, and arms that drop out of the race make room for others.

`Uniform` ignores gaps and costs; it is for comparison.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tollway.policies.sampling import cap_extra
from tollway.record import record


@record
class Offer:
    """The arms of one request as the policy sees them; `labels` are known of each."""

    names: tuple[str, ...]
    qualities: list[float]
    costs_usd: list[float]
    labels: list[float]
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exploration:
    """The settings of exploration.

    gamma:       greediness against an arm that has `labels` labels or more.
    gamma_first: greediness against an arm without labels.
    share:       maximum share of the allowance expected to be spent on more expensive arms.
    p_min:       minimum probability of every arm, within that share; 0 unless replay is wanted.
    short_list:  maximum number of arms that are explored at once.
    reach:       error of an arm's mean after one label, beyond which it is off the short list.
    """

    gamma: float = 10_000.0
    gamma_first: float = 100.0
    labels: float = 30.0
    share: float = 0.05
    p_min: float = 0.0
    short_list: int = 16
    reach: float = 1.0

    def __post_init__(self) -> None:
        if self.short_list < 2:
            raise ValueError(f"a short list of {self.short_list}, not at least 2 arms")
        if not (0 < self.gamma_first <= self.gamma and self.labels > 0):
            raise ValueError(f"gamma_first {self.gamma_first}, gamma {self.gamma}")
        if not (0 <= self.share <= 1 and 0 <= self.p_min <= 1):
            raise ValueError(f"share {self.share}, p_min {self.p_min}: not in [0, 1]")

    def pmf(
        self, scores: Sequence[float], offer: Offer, base_usd: float
    ) -> tuple[int, list[float], float]:
        """Return the best arm, all probabilities, and the expected extra cost in dollars.

        An arm that would not be best even if it were always right is not tried: at this shadow
        price it may not be worth its cost, and trying it now gains nothing.
        """
        qualities, costs_usd, labels = offer.qualities, offer.costs_usd, offer.labels
        first, most = self.gamma_first, self.gamma
        rise = (most - first) / self.labels
        best, count = max(scores), len(scores)
        top, listed = scores.index(best), None
        if count > self.short_list:
            listed = self._listed(scores, best, labels)
        even = 1.0 / count
        least = even if even < self.p_min else self.p_min
        explored, rest = count, 1.0
        if listed is not None:
            explored = len(listed)
            rest -= (count - explored) * least
        own, limit = costs_usd[top], self.share * base_usd
        pmf = [0.0] * count
        total = extra = 0.0
        for index, score in enumerate(scores):  # one loop without calls: 0.1 us an arm
            if index == top:
                continue
            p = least
            if score + (1.0 - qualities[index]) >= best and (listed is None or index in listed):
                gamma = first + rise * labels[index]
                tried = rest / (explored + (most if most < gamma else gamma) * (best - score))
                p = tried if tried > least else least
            pmf[index] = p
            total += p
            more = costs_usd[index] - own
            if more > 0.0:
                extra += p * more
        pmf[top] = 1.0 - total
        if extra <= limit:
            return top, pmf, extra
        cap_extra(pmf, top, costs_usd, extra=extra, limit=limit)
        return top, pmf, limit

    def _listed(
        self, scores: Sequence[float], best: float, labels: Sequence[float]
    ) -> Collection[int]:
        """Return the arms that may be best, at most `short_list`, as indices."""
        reach = self.reach * self.reach
        racing = [
            index
            for index, score in enumerate(scores)
            if (best - score) * (best - score) * (labels[index] + 1.0) <= reach
        ]
        if len(racing) > self.short_list:
            racing = sorted(racing, key=scores.__getitem__, reverse=True)[: self.short_list]
        return frozenset(racing)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Epsilon-greedy exploration, a replacement for `Exploration`."""

    epsilon: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon {self.epsilon}, not in [0, 1]")

    def pmf(
        self, scores: Sequence[float], offer: Offer, base_usd: float
    ) -> tuple[int, list[float], float]:
        """Return the best arm, all probabilities, and the expected extra cost in dollars."""
        costs_usd = offer.costs_usd
        count = len(scores)
        pmf = [self.epsilon / count] * count
        top = scores.index(max(scores))
        pmf[top] = 0.0
        pmf[top] = 1.0 - sum(pmf)
        own = costs_usd[top]
        extra = sum([p * max(cost - own, 0.0) for p, cost in zip(pmf, costs_usd, strict=True)])
        return top, pmf, extra
