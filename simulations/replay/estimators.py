"""Off-policy estimates: a policy's quality and cost, from a log that another policy drew.

Theory of operation. A logged outcome r of an arm drawn with probability p stands for w = pi / p of
the target's outcomes (importance weighting). IPS averages w r; SNIPS divides that by the mean
weight. The default is doubly robust: a model q predicts the outcome of every arm, and the weighted
error on the observed arm corrects it,

    x = sum_a pi_a q_a + w (r - q),       E[x] = the target's value whatever the model says.

The model for a decision has learned from earlier decisions only. So x keeps that mean even if the
logger learned from them too, and intervals (see intervals.py) need only bounds. The point estimate
divides the sum of weighted errors by the sum of weights, as SNIPS does: it has less noise, and a
bias of order 1 / n.

Weights are clipped at a bound B that is chosen from the probabilities alone, before any outcome is
looked at. The clipped part, `miss = max(0, pi - p B)`, is probability mass for which the log has
too little evidence: the lower end of an interval counts it as 0, the upper end as 1. So the
interval is valid with or without clipping, and an arm that was never explored makes it wide instead
of wrong.

There is no estimate if the weights leave fewer than ESS_MIN effective decisions, or if MISS_MAX of
the target's mass is missing. The result is then a `Refused`, which says how to explore more, or
bounds in its place (see bounded.py).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tollway.simulations.replay.intervals import METHODS, Bounds
from tollway.simulations.replay.logs import Floats

ESS_MIN = 50.0  # with fewer, one or two heavy decisions dominate the estimate
MISS_MAX = 0.1  # of the target's probability: the interval is at least this wide


@dataclass(frozen=True, slots=True)
class Estimate:
    """A doubly robust `value` with its interval; `ips` and `snips` are for comparison.

    `basis` is `draws`, or `quotes` for a cost by the logged quotes alone (see bounded.py).
    """

    value: float
    low: float
    high: float
    ips: float
    snips: float
    ess: float
    missing: float
    decisions: int
    basis: str = "draws"

    def scaled(self, by: float) -> "Estimate":
        """Return the estimate in other units."""
        values = (self.value, self.low, self.high, self.ips, self.snips)
        value, low, high, ips, snips = (one * by for one in values)
        return replace(self, value=value, low=low, high=high, ips=ips, snips=snips)


@dataclass(frozen=True, slots=True)
class Refused:
    """No estimate: the log cannot support one. `p_min` is the probability each arm would need.

    `share` is the share of requests that this would explore, over all arms but the usual one.
    `remedy` says what to do instead of logging with `p_min` or for longer, if those do not help.
    """

    why: str
    ess: float
    missing: float
    decisions: int
    p_min: float
    share: float
    remedy: str = ""

    def __str__(self) -> str:
        """Return the reason and a remedy."""
        explored = f"explores {self.share:.1%} of {self.decisions:,} requests"
        remedy = self.remedy or f"log with p_min = {self.p_min:.2g} ({explored}), or for longer"
        return f"{self.why}; {remedy}"


@dataclass(frozen=True, slots=True)
class Weights:
    """Importance weights: `drawn` per decision, `most` (n x K) the largest possible per arm.

    `missing` is each decision's clipped mass per arm (n x K); `unclipped` is `drawn` without it.
    `undrawn` is the share of the target's choices that the log has no chance of drawing.
    """

    target: Floats
    drawn: Floats
    most: Floats
    missing: Floats
    unclipped: Floats
    undrawn: float = 0.0

    @property
    def ess(self) -> float:
        """The effective sample size: how many evenly weighted decisions are as good (Kish 1965)."""
        squares = float((self.drawn**2).sum())
        return float(self.drawn.sum()) ** 2 / squares if squares else 0.0

    @property
    def missing_share(self) -> float:
        """The mean probability mass of the target that is clipped."""
        return float(self.missing.sum(axis=1).mean())


def weigh(
    target: Floats,
    pmf: Floats,
    arm: NDArray[np.int64],
    propensity: Floats,
    *,
    p_min: float | None = None,
) -> Weights:
    """Return the weights of a target's probabilities (n x K) against the logged ones.

    If `pmf` is only partly known, `p_min` bounds the weights: the least probability with which the
    logger drew any arm (by default the least in the log).
    """
    rows = np.arange(len(arm))
    if np.isfinite(pmf).all():
        ratio = np.divide(target, pmf, out=np.full_like(target, np.inf), where=pmf > 0.0)
        ratio[target == 0.0] = 0.0
        clip = _clip(target, pmf, ratio)
        most = np.minimum(ratio, clip)
        missing = np.maximum(target - np.where(pmf > 0.0, pmf, 0.0) * most, 0.0)
        missing[missing < 1e-12] = 0.0
        undrawn = float((target * (pmf <= 0.0)).sum(axis=1).mean())
        return Weights(target, most[rows, arm], most, missing, ratio[rows, arm], undrawn)
    least = float(propensity.min()) if p_min is None else p_min
    drawn = np.minimum(target[rows, arm] / propensity, 1.0 / least)
    most = target / least
    return Weights(target, drawn, most, np.zeros_like(target), drawn)


def _clip(target: Floats, pmf: Floats, ratio: Floats) -> float:
    """Return the bound on weights that best trades the loss of clipping against variance."""
    count = len(target)
    largest = float(ratio[np.isfinite(ratio)].max(initial=1.0))
    grid = np.unique(np.append(np.geomspace(1.0, max(largest, 1.0), 24), largest))

    def worth(clip: float) -> float:
        most = np.minimum(ratio, clip)
        missing = float(np.maximum(target - pmf * most, 0.0).sum()) / count
        # 1/16: the residual variance of an outcome in [0, 1] that the model predicts well.
        variance = float((pmf * most**2).sum()) / count / 16.0
        return missing + 2.0 * math.sqrt(2.0 * variance / count) + 4.0 * clip / count

    return float(min(grid, key=worth))


def refuse(weights: Weights) -> Refused | None:
    """Return why a target cannot be estimated, None if it can."""
    count, arms = weights.target.shape
    # With every arm at p_min or more, E[w^2] <= 1 / p_min: an ESS of n p_min, twice to be safe.
    p_min = min(1.0 / arms, 2.0 * ESS_MIN / max(count, 1))
    remedy, share = "", p_min * (arms - 1)
    if weights.undrawn > MISS_MAX:
        why = f"the log never draws {weights.undrawn:.0%} of its choices"
        remedy = (
            f"log with p_min = {p_min:.2g} (explores {share:.1%} of {count:,} requests); a longer "
            "log alone does not help"
        )
    elif weights.missing_share > MISS_MAX:
        why = f"the log has no evidence on {weights.missing_share:.0%} of its choices"
    elif weights.ess < ESS_MIN:
        why = f"only {weights.ess:.0f} effective decisions ({ESS_MIN:.0f} are needed)"
    else:
        return None
    return Refused(why, weights.ess, weights.missing_share, count, p_min, share, remedy)


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

    `outcome` (n) and `model` (n x K) lie in [0, 1]. Nothing more is known of an `unsure` outcome,
    and its value is ignored. The weights must not have been refused.
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
    # For the point estimate, unknown outcomes are taken to be as the model predicts.
    observed = outcome if unsure is None else np.where(unsure, predicted, outcome)
    total = float(whole.sum())
    corrected = float((whole * (observed - predicted)).sum()) / total if total else 0.0
    middle = float((weights.target * model).sum(axis=1).mean()) + corrected
    # An outcome's variance about a fair model is some 1/16, that of a coin of 7 %.
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
        ips=float((whole * observed).mean()) - other,
        snips=(float((whole * observed).sum()) / total if total else math.nan) - other,
        ess=weights.ess,
        missing=weights.missing_share,
        decisions=len(arm),
    )
