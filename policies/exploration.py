"""Decides how often to try arms that do not look best, within an exploration budget.

An arm is tried as often as it is believed to be the best one (Thompson 1933; this form: Chapelle
and Li, An Empirical Evaluation of Thompson Sampling, 2011). Beliefs are not drawn but compared, so
that the probabilities are known: with s the scores, b the best arm and e the standard errors of
what is believed of the arms' qualities,

    z_a = (s_b - s_a) / (scale * sqrt(e_a^2 + e_b^2))
    p_a = odds_a / sum of the odds,  odds_a = Phi(-z_a) / Phi(z_a), and 1 for b

which is exact for two arms, and for any number of equal ones. Of K arms none has odds below
1 / (K + GREEDY (s_b - s_a)), as in inverse gap weighting (SquareCB: Foster and Rakhlin 2020, arXiv
2002.04926): beliefs may be wrong by more than their errors, and this costs at most K / GREEDY of
quality. Errors fall with an arm's labels, and rise with the variance of its surprises. So
right-or-wrong labels keep an arm in the race for longer than scores do. A scale below 1 is greedier
than Thompson sampling: a stream is short.

The expected extra spend is at most a share of the allowance, and what the allowance leaves unspent;
without a budget, at most a share of the recent mean cost of a request.

With many arms the choice has two stages. First a short list of the arms with the highest odds. Then
the draw, among the arms on the list alone. So exploration is not spread over all arms at once, and
arms that drop out of the race make room for others.

`Uniform` ignores gaps and costs; it is for comparison.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tollway.policies.sampling import cap_extra
from tollway.record import record

LINEAR, CUBIC = 1.5976, 0.07056  # log odds of a normal variable (Page 1977, to .0002)
ERROR_MIN = 1e-12  # variance: labels that never surprise would leave none
FAR = 16.0  # squared distance beyond which the odds are below 2e-5, less than GREEDY leaves
GREEDY = 10_000.0  # quality: arms whose score is behind by a tenth are drawn once in a thousand


@record
class Offer:
    """The arms of one request as the policy sees them.

    `errors`: the variance of what is believed of each arm's quality.
    """

    names: tuple[str, ...]
    qualities: list[float]
    costs_usd: list[float]
    errors: list[float]
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exploration:
    """The settings of exploration.

    scale:      of the standard errors, by which gaps are measured; 0 would be greedy.
    share:      maximum share of the allowance expected to be spent on more expensive arms.
    p_min:      minimum probability of every arm, within that share; 0 unless replay is wanted.
    short_list: maximum number of arms that are explored at once.
    """

    scale: float = 0.5
    share: float = 0.05
    p_min: float = 0.0
    short_list: int = 16

    def __post_init__(self) -> None:
        if self.short_list < 2:
            raise ValueError(f"a short list of {self.short_list}, not at least 2 arms")
        if not 0.0 < self.scale <= 10.0:
            raise ValueError(f"explore_scale {self.scale}, not above 0 and up to 10")
        if not (0 <= self.share <= 1 and 0 <= self.p_min <= 1):
            raise ValueError(f"share {self.share}, p_min {self.p_min}: not in [0, 1]")

    def pmf(
        self, scores: Sequence[float], offer: Offer, base_usd: float
    ) -> tuple[int, list[float], float]:
        """Return the best arm, all probabilities, and the expected extra cost in dollars.

        An arm that would not be best even if it were always right is not tried: at this shadow
        price it may not be worth its cost, and trying it now gains nothing.
        """
        qualities, costs_usd, errors = offer.qualities, offer.costs_usd, offer.errors
        best, count = max(scores), len(scores)
        top = scores.index(best)
        unit, own_error = self.scale * self.scale, errors[top] + ERROR_MIN
        odds, total = [], 0.0
        for index, score in enumerate(scores):  # one loop without own calls: 0.2 us an arm
            gap = best - score
            odd = 1.0
            if index != top:
                odd = 0.0
                if gap <= 1.0 - qualities[index]:
                    odd = 1.0 / (count + GREEDY * gap)
                    square = gap * gap / (unit * (errors[index] + own_error))
                    if square < FAR:
                        z = math.sqrt(square)
                        odd = max(odd, math.exp(-z * (LINEAR + CUBIC * square)))
            odds.append(odd)
            total += odd
        if count > self.short_list:
            total = self._shorten(odds, top)
        even = 1.0 / count
        least = even if even < self.p_min else self.p_min
        rest = (1.0 - count * least) / total
        own, limit = costs_usd[top], self.share * base_usd
        pmf, total, extra = [], 0.0, 0.0
        for index, odd in enumerate(odds):
            p = least + rest * odd
            pmf.append(p)
            if index == top:
                continue
            total += p
            more = costs_usd[index] - own
            if more > 0.0:
                extra += p * more
        pmf[top] = 1.0 - total
        if extra <= limit:
            return top, pmf, extra
        cap_extra(pmf, top, costs_usd, extra=extra, limit=limit)
        return top, pmf, limit

    def _shorten(self, odds: list[float], top: int) -> float:
        """Set the odds of the arms off the short list to 0; return the sum of the others."""
        racing = [index for index, odd in enumerate(odds) if odd > 0.0 and index != top]
        racing.sort(key=odds.__getitem__, reverse=True)
        listed = {top, *racing[: self.short_list - 1]}
        total = 0.0
        for index, odd in enumerate(odds):
            if index in listed:
                total += odd
            else:
                odds[index] = 0.0
        return total


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
