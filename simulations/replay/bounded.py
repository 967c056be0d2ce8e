"""Answers where a log lacks evidence: bounds of the quality, and costs by the logged quotes.

Theory of operation. If all probabilities are logged, the choices without evidence are known
(`Weights.missing`): counted as 0 at the lower end and as 1 at the upper end, the interval is valid
however large their share is. If only the propensities of the drawn arms are logged, the requests
without a chance are not known, but no estimate needs them: with w = pi / p and a quality r in
[0, 1],

    E[w r] <= quality          and          E[w (1 - r)] <= 1 - quality,

because a request without a chance has w = 0, and every term is at least 0. So a lower bound of
each mean gives both ends. They hold for propensities that are too large, too; not for too small
ones.
"""

import math
from dataclasses import dataclass, fields

import numpy as np

from tollway.simulations.replay.estimators import Estimate, Refused
from tollway.simulations.replay.intervals import METHODS, Bounds
from tollway.simulations.replay.logs import Floats, Log

GAP_MIN = 0.01  # to tell policies apart that are closer than a point is not worth the exploration


@dataclass(frozen=True, slots=True)
class Bounded(Refused):
    """No estimate, but bounds: the true mean lies between `low` and `high` (95 % by default).

    `unseen` is the share of the policy's choices without evidence. `logged` is the logged policy's
    own mean. `more` is about how many explored requests would tell them apart; 0 if the bounds do.
    """

    low: float = 0.0
    high: float = 1.0
    unseen: float = 1.0
    logged: float = 0.0
    more: int = 0

    def __str__(self) -> str:
        """Return the bounds, what they decide, the reason and a remedy."""
        base = str(Refused(**{one.name: getattr(self, one.name) for one in fields(Refused)}))
        if self._unseen and self.why.startswith("the log "):  # says the same of the same choices
            base = base.removeprefix(f"{self.why}; ")
        return f"{self.between}; {self.decides}; {base}"

    @property
    def between(self) -> str:
        """The bounds and the share without evidence, in words."""
        return f"between {self.low:.4f} and {self.high:.4f}{self._unseen}"

    @property
    def _unseen(self) -> str:
        return f"; {self.unseen:.0%} of requests never tried it" if self.unseen >= 0.005 else ""

    @property
    def decides(self) -> str:
        """Whether the bounds tell the policy from the logged one, in words."""
        if self.low > self.logged:
            return f"above the logged policy's {self.logged:.4f}"
        if self.high < self.logged:
            return f"below the logged policy's {self.logged:.4f}"
        return (
            f"too wide to decide against the logged policy's {self.logged:.4f}; about "
            f"{self.more:,} more explored requests would decide"
        )


def of_estimate(refused: Refused, found: Estimate, logged: float, alpha: float) -> Bounded:
    """Return the bounds of an estimate that was refused; its interval is valid all the same."""
    return _bounded(refused, (found.value, found.low, found.high), found.missing, logged, alpha)


def of_drawn(
    refused: Refused, weights: Floats, quality: Floats, logged: float, alpha: float
) -> Bounded:
    """Return bounds from the weights (n) and qualities (n, in [0, 1]) of drawn arms alone."""
    most = max(float(weights.max(initial=0.0)), 1.0)
    right, wrong = weights * quality, weights * (1.0 - quality)
    low, lost = (_mean_above(values, most, alpha) for values in (right, wrong))
    total = float(weights.sum())
    value = float(right.sum()) / total if total else 0.5
    unseen = max(0.0, 1.0 - total / len(weights))
    return _bounded(refused, (value, low, 1.0 - lost), unseen, logged, alpha)


def _mean_above(values: Floats, most: float, alpha: float) -> float:
    """Return a lower bound of a mean in [0, 1], with half the error probability."""
    guess = Bounds(0.0, most, variance=float(most) / 16.0)
    low, _ = METHODS["bernstein"](values, values, guess, alpha)
    return min(max(low, 0.0), 1.0)


def _bounded(
    refused: Refused, found: tuple[float, float, float], unseen: float, logged: float, alpha: float
) -> Bounded:
    """Return the bounds from (value, low, high)."""
    value, low, high = found
    base = {one.name: getattr(refused, one.name) for one in fields(Refused)}
    decided = not low <= logged <= high
    more = 0 if decided else _more(abs(value - logged), high - low, unseen, alpha)
    return Bounded(**base, low=low, high=high, unseen=unseen, logged=logged, more=more)


def _more(gap: float, width: float, unseen: float, alpha: float) -> int:
    """Return about how many explored requests narrow the bounds to a gap to either side.

    By Hoeffding's inequality. They may be limited to the unseen requests if the seen ones are known
    to half the gap.
    """
    gap = max(gap, GAP_MIN)
    seen, share = max(width - unseen, 0.0) / 2.0, 1.0
    if seen <= gap / 2.0:
        gap, share = gap - seen, unseen
    count = max(share**2 * math.log(2.0 / alpha) / (2.0 * gap**2), 1.0)
    digits = int(10.0 ** max(0, math.floor(math.log10(count)) - 1))  # two that count
    return math.ceil(count / digits) * digits


def by_quotes(log: Log, probabilities: Floats) -> Estimate | None:
    """Return a policy's mean cost by the quotes of every request, None if one is missing.

    Its ends are the quotes as they are, and corrected by what each arm's drawn calls cost for each
    dollar quoted: no confidence interval.
    """
    wanted = probabilities > 0.0
    if not log.priced or not np.isfinite(log.cost_hat_usd[wanted]).all():
        return None
    by_arm = np.where(wanted, probabilities * np.nan_to_num(log.cost_hat_usd), 0.0).sum(axis=0)
    rows = np.arange(len(log))
    quoted = np.nan_to_num(log.cost_hat_usd[rows, log.arm])
    arms = len(log.arms)
    said = np.bincount(log.arm, weights=quoted, minlength=arms)
    cost = np.bincount(log.arm, weights=log.cost_usd, minlength=arms)
    ratio = np.divide(cost, said, out=np.ones(arms), where=said > 0.0)
    value, corrected = (float(total) / len(log) for total in (by_arm.sum(), (by_arm * ratio).sum()))
    low, high = min(value, corrected), max(value, corrected)
    return Estimate(value, low, high, value, value, 0.0, 0.0, len(log), basis="quotes")
