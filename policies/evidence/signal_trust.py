"""Learns how far the signals of a route can be trusted, and what they say about an answer.

A signal scores an answer in [0, 1] without knowing the truth: a schema is met, a judge approves, a
user asks again. With its sensitivity (the mean score of right answers) and its false passes (the
mean score of wrong ones),

    trust     J = sensitivity - false passes             0: the signal says nothing
    quality   t = (score - false passes) / J             E[t] is the answer's expected quality
    belief    R2 = J^2 m (1 - m) / (v (1 - v))           v = false passes + J m

where m is the quality expected of the arm: R2 is the share of a true label's information that the
score has (Rogan and Gladen, Am. J. Epidemiol. 107, 1978). Signals are combined by their beliefs, so
that the estimate stays unbiased however the signals depend on each other. Single estimates may be
outside [0, 1]; only their mean is a quality.

Both rates are learned from answers that have a true label too, mostly from those of the same arm:
the wrong answers of a good model pass more often. Until then they are declared, and
calibrated on one arm with a declared quality, the anchor: its mean score says how much weaker the
signal is than declared. The mean error on the labels of an arm (its rectifier, as in
prediction-powered inference: Angelopoulos et al., Science 382, 2023) is added to the arm's
estimates, so that a judge who prefers one model is corrected by a few labels. A signal whose trust
the labels do not show moves nothing.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tollway.policies.evidence.signal_labels import TRUSTED, LabelSums, merged
from tollway.record import record

PRIOR_LABELS = 10.0  # labels' worth of each declared rate
OTHERS = 0.25  # weight of the labels of other arms, whose wrong answers may be wrong otherwise
ARM_LABELS = 30.0  # labels' worth of an arm's rectifier being 0
TRUST_MIN = 0.05  # below it, a score divided by the trust is mostly noise
TESTED = 10.0  # labels from which a signal must show its trust
MEAN = (0.05, 0.95)  # bounds of the expected quality: beliefs stay above 0
ESTIMATE = (-3.0, 4.0)  # bounds of a single estimate
BELIEF_MAX = 0.95
CAUTION = 0.1  # belief at which a signal counts half, while its rates are only declared
KEEP = 0.999  # share of the evidence that remains after one label
ANCHOR_MIN = 30.0  # scores on the anchor before it calibrates
ANCHOR_KEEP = 0.998
RARE_MAX = 20.0  # weight of a score on the anchor that was seldom drawn
CHANCE = 0.5  # mean score of a signal that is only noise
STRENGTH = (0.05, 2.0)  # bounds of how strong a signal is, compared with what is declared
RATE = (0.01, 0.99)  # bounds of a rate by the anchor alone: nothing is certain


@record
class SignalPrior:
    """What is declared of a signal; `weight` is how far it may be believed, from 0 to 1."""

    sensitivity: float = 0.85
    specificity: float = 0.85
    weight: float = 1.0


@record
class SignalEstimate:
    """What signals say about an answer.

    `quality`: unbiased, not always in [0, 1]; `belief`: from 0 to 1; `predicted`: the best guess of
    this answer's quality, in [0, 1].
    """

    quality: float
    belief: float
    predicted: float


class _Signal:
    """The evidence about one signal: its scores on labelled answers, and on the anchor."""

    # The mutable state is the weighted counts and sums: of labelled answers by group of senders and
    # arm, of the anchor and of agreements; and those of the groups that count, by arm.

    __slots__ = ("agreed", "anchor", "arms", "groups")

    def __init__(self) -> None:
        self.anchor = [0.0] * 4  # the number, the weight, the sum, the sum of squared weights
        self.groups: dict[str, dict[str, LabelSums]] = {}
        self.arms: dict[str, LabelSums] = {}
        self.agreed = [0.0, 0.0]  # weight, and sum of agreements

    @property
    def count(self) -> float:
        """The number of labels that count."""
        return sum(one.right + one.wrong for one in self.arms.values())

    def label(self, arm: str, score: float, quality: float, group: str) -> None:
        """Count a labelled answer."""
        for own in self.groups.values():
            for sums in own.values():
                sums.fade(KEEP)
        self.groups.setdefault(group, {}).setdefault(arm, LabelSums()).add(score, quality)
        self.arms = merged(self.groups)
        self.agreed[0] = KEEP * self.agreed[0] + 1.0
        self.agreed[1] = KEEP * self.agreed[1] + 1.0 - abs(score - quality)

    def see_anchor(self, score: float, weight: float) -> None:
        """Count a score on the anchor."""
        count, total, scores, squares = self.anchor
        self.anchor = [
            count + 1.0,
            ANCHOR_KEEP * total + weight,
            ANCHOR_KEEP * scores + weight * score,
            ANCHOR_KEEP**2 * squares + weight * weight,
        ]

    @property
    def _sureness(self) -> float:
        """How far the anchor's mean score may be gone by, from 0 to 1.

        Where it is seldom drawn, few scores have most of the weight.
        """
        _, total, _, squares = self.anchor
        effective = total * total / squares if squares else 0.0
        return effective / (effective + ANCHOR_MIN)

    def declared(self, prior: SignalPrior, anchor: float | None) -> tuple[float, float]:
        """Return the (sensitivity, false passes) before any label."""
        sensitivity, passes = prior.sensitivity, 1.0 - prior.specificity
        count, total, scores, _ = self.anchor
        if anchor is None or count < ANCHOR_MIN:
            return sensitivity, passes
        expected = passes + (sensitivity - passes) * anchor
        if expected <= CHANCE:
            return sensitivity, passes
        strength = (scores / total - CHANCE) / (expected - CHANCE)
        strength = min(max(strength, STRENGTH[0]), STRENGTH[1])
        strength = 1.0 + (strength - 1.0) * self._sureness
        high, low = (CHANCE + strength * (rate - CHANCE) for rate in (sensitivity, passes))
        return min(high, max(RATE[1], sensitivity)), max(low, min(RATE[0], passes))

    def rates(
        self, prior: SignalPrior, anchor: float | None, arm: str | None = None
    ) -> tuple[float, float]:
        """Return the (sensitivity, false passes) to go by; equal if it is not to be trusted.

        `arm`: whose answers are scored; None for all alike.
        """
        total = LabelSums.of(self.arms.values())
        if arm is not None:
            total.fade(OTHERS)
            if arm in self.arms:
                own = LabelSums.of([self.arms[arm]])
                own.fade(1.0 - OTHERS)
                total = LabelSums.of([total, own])
        evidence = (total.right, total.passed), (total.wrong, total.passed_wrong)
        sensitivity, passes = (
            (PRIOR_LABELS * rate + passed) / (PRIOR_LABELS + count)
            for rate, (count, passed) in zip(self.declared(prior, anchor), evidence, strict=True)
        )
        trust = sensitivity - passes
        # Before the anchor has calibrated it, a signal that is better than declared would make
        # every arm look better than it is, and the cheapest arm good enough for all requests.
        is_raw = anchor is not None and self.anchor[0] < ANCHOR_MIN and self.count < TESTED
        if is_raw or trust < TRUST_MIN:
            return passes, passes
        if self.count >= TESTED:
            variance = sum(
                rate * (1.0 - rate) / (PRIOR_LABELS + count)
                for rate, count in ((sensitivity, total.right), (passes, total.wrong))
            )
            if trust < math.sqrt(variance):
                return passes, passes
        return sensitivity, passes

    def error(self, arm: str, rates: tuple[float, float]) -> float:
        """Return what to add to estimates of an arm: their mean error on its labels."""
        sums = self.arms.get(arm)
        if sums is None:
            return 0.0
        count = sums.right + sums.wrong
        passed = (sums.passed + sums.passed_wrong) / count
        error = sums.right / count - _clipped((passed - rates[1]) / (rates[0] - rates[1]))
        return min(max(error, -1.0), 1.0) * count / (count + ARM_LABELS)

    def pinned(self, arm: str, rates: tuple[float, float], anchor: float) -> float:
        """Return what to add to estimates of the anchor, so that their mean is what is declared.

        Its labels take over from what is declared.
        """
        count, total, scores, _ = self.anchor
        if count < ANCHOR_MIN:
            return 0.0
        off = anchor - (scores / total - rates[1]) / (rates[0] - rates[1])
        sums = self.arms.get(arm)
        labels = 0.0 if sums is None else sums.right + sums.wrong
        part = self._sureness * ARM_LABELS / (labels + ARM_LABELS)
        return min(max(off, -0.5), 0.5) * part


class SignalTrust:
    """The trust in a route's signals."""

    # The mutable state is the evidence by signal, and the anchor's declared quality.

    def __init__(self) -> None:
        self._signals: dict[str, _Signal] = {}

    def see(
        self,
        scores: Mapping[str, float],
        propensity: float,
        beliefs: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Count the scores of an answer of the anchor, which was drawn with this propensity.

        The weights are inverse propensities: the policy asks the anchor what is hard, and its
        declared quality is for all requests. `beliefs`: in the scores, by signal; 1 if missing.
        """
        weight = min(1.0 / propensity, RARE_MAX)
        for name, score in scores.items():
            if belief := beliefs.get(name, 1.0):
                self._of(name).see_anchor(score, belief * weight)

    def estimate(
        self,
        arm: str,
        scores: Mapping[str, float],
        priors: Mapping[str, SignalPrior],
        mean: float,
        anchor: float | None = None,
        *,
        is_anchor: bool = False,
    ) -> SignalEstimate | None:
        """Return what the scores of an arm's answer say; None if nothing can be learned from them.

        `mean`: the quality expected of the arm; `anchor`: the declared quality of the anchor, which
        this arm may be.
        """
        mean = min(max(mean, MEAN[0]), MEAN[1])
        total = weighted = 0.0
        unknown = 1.0
        for name, score in scores.items():
            prior = priors.get(name)
            if prior is None or not prior.weight:
                continue
            signal = self._of(name)
            rates = signal.rates(prior, anchor, arm)
            quality, belief = _estimated(score, rates, mean)
            if is_anchor and anchor is not None and belief:
                quality += signal.pinned(arm, rates, anchor)
            if not belief:
                continue
            if signal.count < TESTED:
                belief *= belief / (belief + CAUTION)
            belief *= prior.weight
            total += belief
            weighted += belief * (quality + signal.error(arm, rates))
            unknown *= 1.0 - belief
        if total <= 0.0:
            return None
        quality, belief = weighted / total, min(1.0 - unknown, BELIEF_MAX)
        predicted = min(max(mean + belief * (quality - mean), 0.0), 1.0)
        return SignalEstimate(quality, belief, predicted)

    def label(
        self,
        arm: str,
        scores: Mapping[str, float],
        quality: float,
        priors: Mapping[str, SignalPrior],
        group: str = TRUSTED,
    ) -> None:
        """Learn from an answer that has scores and a true label in [0, 1].

        `group`: the group of senders that the label's belongs to; see `signal_labels`.
        """
        for name, score in scores.items():
            if name in priors:
                self._of(name).label(arm, score, quality, group)

    def trust(self, name: str, prior: SignalPrior, anchor: float | None = None) -> float:
        """Return the trust in a signal, from 0 to 1."""
        sensitivity, passes = self._of(name).rates(prior, anchor)
        return sensitivity - passes

    def agreement(self, name: str) -> float | None:
        """Return the recent mean agreement of a signal with true labels; None without labels."""
        count, agreed = self._of(name).agreed
        return agreed / count if count else None

    def _of(self, name: str) -> _Signal:
        signal = self._signals.get(name)
        if signal is None:
            signal = self._signals[name] = _Signal()
        return signal

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {
            name: {
                "anchor": one.anchor,
                "groups": {
                    group: {arm: sums.save() for arm, sums in own.items()}
                    for group, own in one.groups.items()
                },
                "agreed": one.agreed,
            }
            for name, one in self._signals.items()
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Load a saved state; ValueError, TypeError or KeyError, and no change, if damaged."""
        signals = {}
        for name, saved in state.items():
            one = signals[str(name)] = _Signal()
            one.anchor = _numbers(saved["anchor"], 4)
            one.agreed = _numbers(saved["agreed"], 2)
            for group, own in saved["groups"].items():
                one.groups[str(group)] = {
                    str(arm): LabelSums(*_numbers(values, 4)) for arm, values in own.items()
                }
            one.arms = merged(one.groups)
        self._signals = signals


def _estimated(score: float, rates: tuple[float, float], mean: float) -> tuple[float, float]:
    """Return (quality, belief) by one score."""
    sensitivity, passes = rates
    trust = sensitivity - passes
    if trust <= 0.0:
        return 0.0, 0.0
    passed = passes + trust * mean
    # A rate of 0 or 1 would make a single contrary score certain.
    variance = max(passed * (1.0 - passed), trust * trust * mean * (1.0 - mean))
    return _clipped((score - passes) / trust), trust * trust * mean * (1.0 - mean) / variance


def _clipped(estimate: float) -> float:
    return min(max(estimate, ESTIMATE[0]), ESTIMATE[1])


def _numbers(values: Any, count: int) -> list[float]:
    numbers = [float(value) for value in values]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError("a saved state of signals that does not fit")
    return numbers
