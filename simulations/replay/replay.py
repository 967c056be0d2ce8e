"""Estimates from a log the quality and cost of other policies, compared with the logged one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tollway.simulations.replay import bounded, outcome_model
from tollway.simulations.replay.estimators import (
    Estimate,
    Refused,
    Weights,
    estimate,
    refuse,
    weigh,
)
from tollway.simulations.replay.intervals import METHODS, Bounds
from tollway.simulations.replay.logs import BadLog, Floats, Log
from tollway.simulations.replay.support import Support
from tollway.simulations.replay.targets import Target

Answer = Estimate | Refused
LABELS_MIN = 50  # decisions with feedback; with fewer there is no estimate
SUM_ERROR = 1e-3  # of probabilities; logs may round them to a few digits
EXCLUDED_SHARE = 0.01  # share of excluded decisions above which the reader is warned


@dataclass(frozen=True, slots=True)
class Options:
    """How to estimate: `cost_max_usd` bounds a request's cost; None: the highest one logged."""

    alpha: float = 0.05
    method: str = "bernstein"
    p_min: float | None = None
    cost_max_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A policy's estimated figures per request, and their differences from the logged policy."""

    label: str
    quality: Answer
    cost_usd: Answer
    quality_gain: Answer
    cost_gain_usd: Answer
    saving: tuple[float, float, float] | None


class Replay:
    """A log with the models of its outcomes; evaluates any number of policies."""

    # No mutable state: the models are learned once, on construction.

    def __init__(self, log: Log, options: Options = Options()) -> None:
        """BadLog if too few decisions have feedback, or if a quality is outside [0, 1]."""
        self.log, self.options = log, options
        self.labelled = np.isfinite(log.quality)
        if self.labelled.sum() < LABELS_MIN:
            raise BadLog(
                f"only {self.labelled.sum()} of {len(log)} decisions have a quality; at least "
                f"{LABELS_MIN} are needed: send feedback to POST /_tollway/feedback"
            )
        if not (
            log.quality[self.labelled].min() >= 0.0 and log.quality[self.labelled].max() <= 1.0
        ):
            raise BadLog("qualities must be in [0, 1]; scale them first")
        if not ((log.propensity > 0.0) & (log.propensity <= 1.0 + 1e-9)).all():
            raise BadLog("propensities must be in (0, 1]; name their column with --propensity")
        _check(options, log)
        if log.whole and (np.abs(log.pmf.sum(axis=1) - 1.0) > SUM_ERROR).any():
            raise BadLog(
                "the probabilities of the arms must sum to 1 in each decision; log those of the "
                "draw, after every mask"
            )
        self.support = None if log.whole else Support(log)
        self.costs = outcome_model.costs(log)
        self.qualities = outcome_model.qualities(log)
        most = max(float(log.cost_usd.max()), float(log.total_usd.max()))
        self.cost_max_usd = options.cost_max_usd or most or 1.0
        if self.cost_max_usd < most:
            raise BadLog(f"a request cost ${most:.6g}; --cost-max-usd must be at least that")
        # Nothing cost anything: there is nothing to estimate, and no uncertainty.
        self.free = log.priced and not (
            most or options.cost_max_usd or np.nan_to_num(log.cost_hat_usd).any()
        )
        self.chances = self._chances()

    def notes(self) -> list[str]:
        """Return notes about the log for readers of the estimates."""
        log, notes = self.log, list(self.log.notes)
        left = sum(log.excluded.values())
        if left:
            why = ", ".join(f"{count} {name}" for name, count in sorted(log.excluded.items()))
            notes.append(f"{left} of {left + len(log)} decisions are left out: {why}")
        if left > EXCLUDED_SHARE * (left + len(log)):
            notes.append("that is above 1 %: the estimates cover the other requests only")
        shares = self._label_shares()
        if not self.labelled.all():
            listed = ", ".join(
                f"{arm} {share:.0%}" for arm, share in zip(log.arms, shares, strict=True)
            )
            notes.append(
                f"{self.labelled.mean():.1%} of the decisions have a quality ({listed}); within "
                "an arm they are assumed to be representative"
            )
        if self.support is not None:
            notes.append(
                f"the log has propensities of the drawn arms only: weights are bounded by "
                f"{1 / (self.options.p_min or float(log.propensity.min())):.4g} (--p-min), and "
                "requests in which it gives an arm no chance go unnoticed up to a share of "
                f"{self.support.overlooked():.0%}"
            )
        return notes

    def _label_shares(self) -> Floats:
        counts = np.bincount(self.log.arm, minlength=len(self.log.arms)).astype(float)
        labelled = np.bincount(self.log.arm, weights=self.labelled, minlength=len(self.log.arms))
        shares: Floats = np.divide(labelled, counts, out=np.zeros_like(labelled), where=counts > 0)
        return shares

    def _chances(self) -> tuple[Floats, Floats]:
        """Return pmf and propensity conditional on feedback, whose rate may differ by arm."""
        pmf, propensity = self.log.pmf, self.log.propensity
        if self.labelled.all():
            return pmf, propensity
        shares = self._label_shares()
        drawn = propensity * shares[self.log.arm]
        if not self.log.whole:
            return pmf, np.maximum(drawn / self.labelled.mean(), 1e-12)
        scale = (pmf * shares).sum(axis=1, keepdims=True)
        scale[scale == 0.0] = 1.0
        return pmf * shares / scale, drawn / scale[:, 0]

    def ask(self, target: Target) -> Outcome:
        """Return a policy's estimated outcome."""
        if target.name == "logged":
            return self.logged()
        return self.outcome(target.label, target.probabilities(self.log, self.costs))

    def outcome(self, label: str, probabilities: Floats) -> Outcome:
        """Return the outcome of drawing arms with these probabilities (n x K)."""
        misfit = self.support.misfit(probabilities) if self.support else None
        if misfit is not None:
            refused = misfit.refused(len(self.log))
            quality = self._bounds(probabilities, refused) if misfit.mean < 1.0 else refused
            cost, cost_gain = self._quoted(probabilities, refused, refused)
            saving = self._saving(cost_gain)
            return Outcome(label, quality, cost, refused, cost_gain, saving)
        quality = self._answer(probabilities, "quality", paired=False)
        cost, cost_gain = self._quoted(
            probabilities,
            self._answer(probabilities, "cost", paired=False),
            self._answer(probabilities, "cost", paired=True),
        )
        return Outcome(
            label,
            quality,
            cost,
            self._answer(probabilities, "quality", paired=True),
            cost_gain,
            self._saving(cost_gain),
        )

    def _bounds(self, probabilities: Floats, refused: Refused) -> Answer:
        """Return bounds from the drawn arms' propensities, which lack some requests."""
        log, rows = self.log, self.labelled
        if not (log.keeping[rows] == 1.0).all():
            return refused  # a cascade's first replies: not known without the probabilities
        drawn = probabilities[rows, log.arm[rows]]
        weights = drawn / self.chances[1][rows]
        mean = float(log.final_quality[rows].mean())
        return bounded.of_drawn(refused, weights, log.quality[rows], mean, self.options.alpha)

    def _quoted(self, probabilities: Floats, cost: Answer, gain: Answer) -> tuple[Answer, Answer]:
        """Return the cost and its difference from the logged one, by quotes if there is none."""
        if not isinstance(cost, Refused):
            return cost, gain
        quoted = bounded.by_quotes(self.log, probabilities)
        if quoted is None:
            return cost, gain
        spent = float(self.log.total_usd.mean())
        value, low, high = (one - spent for one in (quoted.value, quoted.low, quoted.high))
        return quoted, replace(quoted, value=value, low=low, high=high, ips=value, snips=value)

    def _saving(self, gain: Answer) -> tuple[float, float, float] | None:
        spent = float(self.log.total_usd.mean())
        if isinstance(gain, Refused) or spent <= 0.0:
            return None
        return -gain.value / spent, -gain.high / spent, -gain.low / spent

    def _answer(self, probabilities: Floats, what: str, *, paired: bool) -> Answer:
        log, options = self.log, self.options
        if what == "cost" and not log.priced:
            return self._unpriced()
        if what == "cost":
            rows: NDArray[np.bool_] = np.ones(len(log), bool)
            scale, keeping = self.cost_max_usd, np.ones(len(log))
            outcome, model, final = log.cost_usd, self.costs, log.total_usd
            pmf, propensity = log.pmf, log.propensity
        else:
            rows, scale, keeping = self.labelled, 1.0, log.keeping
            outcome, model, final = log.quality, self.qualities, log.final_quality
            pmf, propensity = self.chances
        target = probabilities[rows]
        weights = weigh(target, pmf[rows], log.arm[rows], propensity[rows], p_min=options.p_min)
        weights, unsure, refused = _kept(weights, keeping[rows])
        if refused is not None and what == "cost":
            return refused
        if what == "cost" and self.free:
            nothing = weights.ess, weights.missing_share, int(rows.sum())
            return Estimate(0.0, 0.0, 0.0, 0.0, 0.0, *nothing)
        found = estimate(
            outcome[rows] / scale,
            np.clip(model[rows] / scale, 0.0, 1.0),
            log.arm[rows],
            weights,
            unsure=unsure,
            against=final[rows] / scale if paired else None,
            alpha=options.alpha,
            # A normal interval of a few heavy decisions would be no bound.
            method=options.method if refused is None else "bernstein",
        ).scaled(scale)
        if refused is None:
            return found
        mean = 0.0 if paired else float(final[rows].mean())
        return bounded.of_estimate(refused, found, mean, options.alpha)

    def logged(self) -> Outcome:
        """Return the logged policy's own outcome, with intervals as for any policy."""
        log = self.log
        quality = self._mean(log.final_quality[self.labelled], 1.0)
        nothing = Estimate(0.0, 0.0, 0.0, 0.0, 0.0, float(len(log)), 0.0, len(log))
        cost: Answer = nothing if self.free else self._mean(log.total_usd, self.cost_max_usd)
        if not log.priced:
            cost = self._unpriced()
        return Outcome("logged", quality, cost, nothing, nothing, (0.0, 0.0, 0.0))

    def _unpriced(self) -> Refused:
        return Refused(
            "the log has no costs", 0.0, 1.0, len(self.log), 0.0, 0.0, "log the cost of each call"
        )

    def _mean(self, values: Floats, scale: float) -> Estimate:
        values = values / scale
        method = METHODS[self.options.method]
        low, high = method(values, values, Bounds(0.0, 1.0), self.options.alpha)
        mean, count = float(values.mean()), len(values)
        scaled = Estimate(mean, max(low, 0.0), min(high, 1.0), mean, mean, count, 0.0, count)
        return scaled.scaled(scale)


def _check(options: Options, log: Log) -> None:
    if not 0.0 < options.alpha < 1.0:
        raise BadLog("--alpha must be between 0 and 1, such as 0.05 for 95 % intervals")
    least = float(log.propensity.min())
    if options.p_min is not None and not 0.0 < options.p_min <= least * (1.0 + 1e-9):
        raise BadLog(
            f"--p-min must be above 0 and at most the least propensity in the log, {least:.4g}"
        )


def _kept(
    weights: Weights, keeping: Floats
) -> tuple[Weights, NDArray[np.bool_] | None, Refused | None]:
    """Weight first replies by the probability of being kept, and flag the unknown ones.

    Also return whether too many are unknown for an estimate.
    """
    if (keeping == 1.0).all():
        return weights, None, refuse(weights)
    unsure = ~np.isfinite(keeping)
    factor = np.where(unsure, 1.0, keeping)
    lost = np.zeros_like(weights.missing)
    lost[:, 0] = weights.drawn * unsure
    counted = replace(
        weights,
        drawn=weights.drawn * factor,
        unclipped=weights.unclipped * factor,
        most=weights.most * max(1.0, float(factor.max())),
    )
    refused = refuse(replace(counted, missing=weights.missing + lost))
    if refused is not None and refuse(counted) is None:
        remedy = "send true labels, which score both replies; a longer log alone does not help"
        why = "too many first replies of the cascade were almost never kept"
        refused = replace(refused, why=why, remedy=remedy)
    return counted, unsure, refused


def fixed(log: Log) -> list[Target]:
    """Return the policies that always use one arm, for each arm that was ever drawn."""
    drawn = np.bincount(log.arm, minlength=len(log.arms)) > 0
    return [
        Target(f"fixed:arm={arm}", "fixed", {"arm": arm})
        for arm, seen in zip(log.arms, drawn, strict=True)
        if seen
    ]


def ask(log: Log, targets: Sequence[Target], options: Options = Options()) -> list[Outcome]:
    """Return each policy's outcome, the logged policy first."""
    replay = Replay(log, options)
    return [replay.logged(), *(replay.ask(one) for one in targets if one.name != "logged")]
