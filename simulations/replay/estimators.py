"""Estimates what a policy would have given and cost, from a log that another policy drew.

Theory of operation. A logged outcome r of an arm drawn with probability p stands for pi / p of the
target's outcomes (importance weighting). IPS averages w r, SNIPS divides that by the mean weight.
The default is doubly robust: a model q of outcomes is trusted for every arm, and the weighted error
of the one that was seen corrects it,

    x = sum_a pi_a q_a + w (r - q),       E[x] = the target's value whatever the model says.

The model of a decision has learned from earlier decisions only, so x keeps that mean even where the
logger learned from them too, and intervals (see intervals.py) need no more than bounds. The value
told in their middle divides the sum of weighted errors by the sum of weights, as SNIPS does: less
noise, and a bias that goes with 1 / n.

Weights are clipped at a bound B that is chosen from the probabilities alone, before any outcome is
looked at. What is clipped away, `miss = max(0, pi - p B)`, is mass that the log says too little of:
for the lower end of an interval it is taken to be worth 0, for the upper end 1. So the interval
holds, clipped or not, and an arm that was never explored makes it wide instead of wrong.

Nothing is answered where the weights leave less than ESS_MIN effective decisions, or MISS_MAX of
the target's mass is missing: that is a `Refused`, which says what exploration would have helped.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollway.simulations.replay.intervals import METHODS, Bounds
from tollway.simulations.replay.logs import Floats

ESS_MIN = 50.0  # below, what one or two heavy decisions happened to give is all that is known
MISS_MAX = 0.1  # of the target's probability: the interval is at least this wide


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval; `ips` and `snips` stand beside the doubly robust `value`."""

    value: float
    low: float
    high: float
    ips: float
    snips: float
    ess: float
    missing: float
    decisions: int

    def scaled(self, by: float) -> "Estimate":
        """Return the estimate in other units."""
        values = (self.value, self.low, self.high, self.ips, self.snips)
        value, low, high, ips, snips = (one * by for one in values)
        return Estimate(value, low, high, ips, snips, self.ess, self.missing, self.decisions)


@dataclass(frozen=True, slots=True)
class Refused:
    """No estimate: the log cannot support one. `p_min` is what every arm's probability should be.

    `share` is the share of requests that this would explore, over all arms but the usual one.
    """

    why: str
    ess: float
    missing: float
    decisions: int
    p_min: float
    share: float

    def __str__(self) -> str:
        """Say why, and what would help."""
        return (
            f"{self.why}; log with p_min = {self.p_min:.2g} (explores {self.share:.1%} of "
            f"{self.decisions:,} requests), or that much longer"
        )


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each logged outcome counts: `drawn` per decision, `most` (n x K) what it could be.

    `missing` is each decision's clipped mass per arm (n x K); `unclipped` is `drawn` without it.
    """

    target: Floats
    drawn: Floats
    most: Floats
    missing: Floats
    unclipped: Floats

    @property
    def ess(self) -> float:
        """How many evenly weighted decisions are as good (Kish 1965)."""
        squares = float((self.drawn**2).sum())
        return float(self.drawn.sum()) ** 2 / squares if squares else 0.0

    @property
    def missing_share(self) -> float:
        """The mean mass of the target that the log says too little of."""
        return float(self.missing.sum(axis=1).mean())


def weigh(
    target: Floats,
    pmf: Floats,
    arm: NDArray[np.int64],
    propensity: Floats,
    *,
    p_min: float | None = None,
) -> Weights:
    """Return the weights of a target's probabilities (n x K) under those that were drawn from.

    Where `pmf` is not known whole, `p_min` bounds the weights: the least probability with which
    the logger drew any arm (the least that is in the log, where it is not said).
    """
    rows = np.arange(len(arm))
    if np.isfinite(pmf).all():
        ratio = np.divide(target, pmf, out=np.full_like(target, np.inf), where=pmf > 0.0)
        ratio[target == 0.0] = 0.0
        clip = _clip(target, pmf, ratio)
        most = np.minimum(ratio, clip)
        missing = np.maximum(target - np.where(pmf > 0.0, pmf, 0.0) * most, 0.0)
        missing[missing < 1e-12] = 0.0
        return Weights(target, most[rows, arm], most, missing, ratio[rows, arm])
    least = float(propensity.min()) if p_min is None else p_min
    drawn = np.minimum(target[rows, arm] / propensity, 1.0 / least)
    most = target / least
    return Weights(target, drawn, most, np.zeros_like(target), drawn)


def _clip(target: Floats, pmf: Floats, ratio: Floats) -> float:
    """Return the bound on weights: what is lost by clipping against what is lost by not."""
    count = len(target)
    found = float(ratio[np.isfinite(ratio)].max(initial=1.0))
    grid = np.unique(np.append(np.geomspace(1.0, max(found, 1.0), 24), found))

    def worth(clip: float) -> float:
        most = np.minimum(ratio, clip)
        missing = float(np.maximum(target - pmf * most, 0.0).sum()) / count
        # 1/16: the variance of what the model leaves of an outcome in [0, 1] that it knows well.
        variance = float((pmf * most**2).sum()) / count / 16.0
        return missing + 2.0 * math.sqrt(2.0 * variance / count) + 4.0 * clip / count

    return float(min(grid, key=worth))


def refuse(weights: Weights) -> Refused | None:
    """Return why nothing can be said of a target, None where something can."""
    count, arms = weights.target.shape
    # With every arm at p_min or more, E[w^2] <= 1 / p_min: an ESS of n p_min, twice to be safe.
    p_min = min(1.0 / arms, 2.0 * ESS_MIN / max(count, 1))
    if weights.missing_share > MISS_MAX:
        why = f"the log says nothing of {weights.missing_share:.0%} of what it would have done"
    elif weights.ess < ESS_MIN:
        why = f"only {weights.ess:.0f} effective decisions (needs {ESS_MIN:.0f})"
    else:
        return None
    return Refused(why, weights.ess, weights.missing_share, count, p_min, p_min * (arms - 1))


def estimate(
    outcome: Floats,
    model: Floats,
    arm: NDArray[np.int64],
    weights: Weights,
    *,
    unsure: NDArray[np.bool_] | None = None,
    against: Floats | None = None,
    alpha: float = 0.05,
    method: str = "bernstein",
) -> Estimate:
    """Return the target's mean outcome, or its mean difference to `against`, decision by decision.

    `outcome` (n) and `model` (n x K) lie in [0, 1]; of an `unsure` outcome no more is known, and
    its value is not looked at. Weights that were not refused are a premise.
    """
    rows = np.arange(len(arm))
    drawn, predicted = weights.drawn, model[rows, arm]
    missing = weights.missing
    base = ((weights.target - missing) * model).sum(axis=1)
    gap = missing.sum(axis=1)
    if unsure is not None:
        gap = gap + drawn * unsure
        outcome = np.where(unsure, 0.0, outcome)
    low = base + drawn * (outcome - predicted)
    whole = weights.unclipped
    # What nothing is known of is taken to be as the model says, for the one value in the middle.
    told = outcome if unsure is None else np.where(unsure, predicted, outcome)
    total = float(whole.sum())
    corrected = float((whole * (told - predicted)).sum()) / total if total else 0.0
    middle = float((weights.target * model).sum(axis=1).mean()) + corrected
    # An outcome's noise about a fair model is some 1/16 where it is a coin of 7 %.
    variance = float((weights.target * weights.most).sum(axis=1).mean()) / 16.0 + 1e-4
    bounds = Bounds(
        float((base - (weights.most * model).max(axis=1)).min()),
        float((base + missing.sum(axis=1) + (weights.most * (1.0 - model)).max(axis=1)).max()),
        variance=variance,
    )
    least, most, other = 0.0, 1.0, 0.0
    if against is not None:
        low, other = low - against, float(against.mean())
        bounds = Bounds(bounds.low - 1.0, bounds.high, -1.0, 1.0, variance)
        least = -1.0
    ends = METHODS[method](low, low + gap if gap.any() else low, bounds, alpha)
    low_end, high_end = (min(max(end, least), most) for end in ends)
    return Estimate(
        value=min(max(middle - other, low_end), high_end),
        low=low_end,
        high=high_end,
        ips=float((whole * told).mean()) - other,
        snips=(float((whole * told).sum()) / total if total else math.nan) - other,
        ess=weights.ess,
        missing=weights.missing_share,
        decisions=len(arm),
    )
