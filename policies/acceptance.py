"""Decides which replies of a cheap arm may be accepted, by asking the baseline as well.

Where a floor has a baseline, a cheap reply costs a fraction of the baseline's. So until it is known
which cheap replies are good enough, both arms are asked, and the client gets the baseline's reply.
A true label then scores both: nothing is weighted by propensities, and the value of *every* rule

    accept the cheap reply if its confidence is at least t

is known on every request. Only the difference to the baseline is estimated, which is 0 on the many
requests where both are right or both wrong. Confidences are divided into intervals: with P the
share of the replies in an interval (known without labels) and g the mean difference in it,

    D(t) = sum of P g over the intervals above t

Given an interval it is random which accepted replies are measured as well, so no weights are needed
later either. The quality of what clients would get is known as well, and from more labels: with c
the cheap replies' mean quality in an interval and b the baseline's,

    Q(t) = sum of P c over the intervals above t + sum of P b over the others

where the labels of accepted replies count for c, and those above t need no reply of the baseline.
A rule is used if Q(t) is expected to keep the floor, and if a lower bound shows that at most the
slack is lost: either D(t), relative to the baseline, or Q(t), relative to the floor, each with half
of alpha. The first is tight where both replies are mostly alike, the second goes on tightening
while few replies are measured. Of a loss in D(t), only the baseline's lower bound above the floor
is excused, not its mean: after 300 pairs that has a standard error of about the slack. The bounds
are asymptotic confidence sequences: they hold at all times together, for means of many labels
(Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory and asymptotic
confidence sequences, Annals of Statistics 52 (6), 2024; arXiv 2103.06476). Rules are tested from
the strictest on, and no rule is used unless all stricter ones pass, so one alpha is enough for all
of them (fixed-sequence testing).

The baseline's declared quality counts for 50 labels, and labels overrule it, also those of requests
that it answered alone. Relative to a baseline below the floor there is no room for any loss.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
INTERVALS = 24
FIRST = 60  # replies before the intervals are set to their quantiles
PAIRS_MIN, PAIRS_ENOUGH = 300, 400  # pairs before a rule is used: see `_release`
NEARLY = 0.9  # of what would be accepted without the bound: certified that far, a rule is used
MEASURED = 0.03  # share of accepted replies that are measured as well
MEMORY = 400.0  # pairs of an interval that are remembered, and cheap replies: a model may change
ALONE = 3000.0  # labels of the baseline's other replies that are remembered
NOISE = 0.2  # variance of right-or-wrong labels of which few are known
DECLARED = 50.0  # labels that the declared quality of the baseline counts for
PSEUDO = 1.0  # pairs of the usual variance in each interval, before any was seen
SCALE = 150.0  # pairs at which the bound is tightest
HORIZON, DEBT = 1000.0, 50.0  # labels over which a shortfall is made good; its limit in labels
UNPAIRED_MAX = 100  # labels of one reply only, after which none are expected to score both
UNLABELLED_MAX = 3000  # replies without labels after which both are asked only now and then
MEASURED_MAX = 0.5  # of the replies in one interval
VAIN = 0.1  # share of requests that are still measured if nothing can be saved


class AcceptanceRule:
    """Which replies of the arm `cheap` are accepted in place of the arm `baseline`'s."""

    # The mutable state: the intervals' limits (or the first confidences), and per interval the
    # replies seen, the pairs, the sums of the differences, of their squares and of the baseline's
    # qualities, and the labels of cheap replies with their sum; the labels of the baseline alone
    # with their sum; the threshold in force; the shortfall; and counts of labels. The rest follows.

    def __init__(
        self,
        cheap: str,
        baseline: str,
        *,
        floor: float,
        declared: float,
        margin: float,
        slack: float,
        alpha: float,
    ) -> None:
        """`declared`: the baseline's quality before there are labels. The rest is the floor's."""
        self.cheap, self.baseline = cheap, baseline
        self._floor, self._declared = floor, declared
        self._margin, self._slack, self._alpha = margin, slack, alpha
        self._limits: list[float] = []
        self._first: list[float] = []
        self._size(1)
        self.restart()

    def _size(self, intervals: int) -> None:
        self._replies = np.zeros(intervals)
        self._pairs, self._gain = np.zeros(intervals), np.zeros(intervals)
        self._square, self._base = np.zeros(intervals), np.zeros(intervals)
        self._known, self._cheap = np.zeros(intervals), np.zeros(intervals)

    def restart(self) -> None:
        """Discard the evidence of labels."""
        for sums in self._sums():
            sums[:] = 0.0
        self._alone = self._alone_sum = 0.0
        self.threshold = math.inf
        self.pairs = self.unpaired = self.unlabelled = 0
        self.owed = 0.0
        self.released = False
        self.lower_bound = 0.0
        self._accepted = 0.0
        self._deviation = np.ones(len(self._replies))

    def _sums(self) -> tuple[Vector, ...]:
        """Return the sums over labels, by interval."""
        return self._pairs, self._gain, self._square, self._base, self._known, self._cheap

    @property
    def usable(self) -> bool:
        """Whether labels score both replies, as far as is known."""
        return self.unpaired < UNPAIRED_MAX or self.pairs > self.unpaired // 10

    @property
    def measured(self) -> float:
        """The share of acceptable replies for which the baseline is asked as well."""
        return MEASURED if self.released else 1.0

    def asks_both(self, cheap_usd: float, baseline_usd: float) -> float:
        """Return the probability with which the cheap arm is asked first."""
        if self.released and self._accepted * (1.0 - self.measured) * baseline_usd > cheap_usd:
            return 1.0
        in_vain = self.unlabelled > UNLABELLED_MAX or self.pairs > 2 * PAIRS_ENOUGH
        return VAIN if in_vain else 1.0

    def accepts(self, confidence: float) -> float:
        """Return the probability with which a reply is accepted.

        Replies are measured in proportion to the deviation of the difference in their interval
        (Neyman 1934), so most of all near the threshold.
        """
        if not self.released or confidence < self.threshold:
            return 0.0
        at = bisect_right(self._limits, confidence)
        return 1.0 - min(self.measured * float(self._deviation[at]), MEASURED_MAX)

    def see(self, confidence: float) -> None:
        """Count a reply of the cheap arm."""
        self.unlabelled += 1
        if self._limits:
            self._replies[bisect_right(self._limits, confidence)] += 1.0
            return
        self._first.append(confidence)
        if len(self._first) >= FIRST:
            inner = np.linspace(0.0, 1.0, INTERVALS + 1)[1:-1]
            self._limits = np.unique(np.quantile(self._first, inner)).tolist()
            self._size(len(self._limits) + 1)
            self._deviation = np.ones(len(self._replies))
            for one in self._first:
                self._replies[bisect_right(self._limits, one)] += 1.0
            self._first = []

    def drew(self, arms: Sequence[str], pmf: Sequence[float]) -> bool:
        """Whether a first choice of the baseline was by chance: the cheap arm was in the draw.

        Other requests, such as those that the cheap arm is not offered for or that a client's own
        floor decides, may be easier or harder than those that this rule decides.
        """
        if self.cheap not in arms or self.baseline not in arms:
            return False
        drawn = pmf[arms.index(self.cheap)], pmf[arms.index(self.baseline)]
        return drawn == (VAIN, 1.0 - VAIN)

    def compare(self, confidence: float, cheap: float, baseline: float) -> None:
        """Count a label that scored both replies."""
        self.pairs += 1
        self.unlabelled = 0
        if not self._limits:
            return
        at = bisect_right(self._limits, confidence)
        if self._pairs[at] >= MEMORY:
            for sums in (self._pairs, self._gain, self._square, self._base):
                sums[at] *= 1.0 - 1.0 / MEMORY
        self._pairs[at] += 1.0
        self._gain[at] += cheap - baseline
        self._square[at] += (cheap - baseline) ** 2
        self._base[at] += baseline
        self.accepted(confidence, cheap)

    def accepted(self, confidence: float, quality: float) -> None:
        """Count the label of a cheap reply, such as one that was accepted."""
        self.unlabelled = 0
        if not self._limits:
            return
        at = bisect_right(self._limits, confidence)
        if self._known[at] >= MEMORY:
            self._known[at] *= 1.0 - 1.0 / MEMORY
            self._cheap[at] *= 1.0 - 1.0 / MEMORY
        self._known[at] += 1.0
        self._cheap[at] += quality

    def alone(self, quality: float) -> None:
        """Count the label of a reply of the baseline where the cheap arm was not asked."""
        if self._alone >= ALONE:
            self._alone *= 1.0 - 1.0 / ALONE
            self._alone_sum *= 1.0 - 1.0 / ALONE
        self._alone += 1.0
        self._alone_sum += quality

    def answered(self, quality: float) -> None:
        """Count the label of an answer that a client got."""
        if self.released:
            owed = self.owed + self._floor + self._margin - quality
            self.owed = min(max(owed, -DEBT), DEBT)

    def decide(self) -> bool:
        """Choose the threshold; return whether a rule is used for the first time."""
        if self._pairs.sum() < FIRST:
            return False
        shares = self._replies / self._replies.sum()
        pairs, known = np.maximum(self._pairs, 0.5), np.maximum(self._known, 0.5)
        base = self._base.sum() / self._pairs.sum()
        means = np.where(self._pairs > 0.0, self._base / pairs, base)
        # The baseline's mean quality: by interval, by its other replies, and as declared.
        own, labels = float(shares @ means), float(self._pairs.sum())
        seen = (own * labels + self._alone_sum) / (labels + self._alone)
        weight = self.pairs / (self.pairs + DECLARED)
        quality = weight * seen + (1.0 - weight) * self._declared
        room = max(quality - self._floor, 0.0)
        usual = (self._square.sum() + 1.0) / (self._pairs.sum() + 1.0)
        variance = (self._square + PSEUDO * usual) / (self._pairs + PSEUDO)
        cheap = np.where(self._known > 0.0, self._cheap / known, means)
        cheap_noise = shares**2 * _spread(self._cheap, self._known) / known
        base_noise = shares**2 * _spread(self._base, self._pairs) / pairs
        # Sums over the intervals above each limit, from the highest on.
        gain, spread, noise, accepted, served, left, served_noise, left_noise = (
            np.cumsum(part[::-1])
            for part in (
                shares * self._gain / pairs,
                shares * variance,
                shares**2 * variance / pairs,
                shares,
                shares * cheap,
                shares * means,
                cheap_noise,
                base_noise,
            )
        )
        lower = gain - np.sqrt(noise) * self._width(spread / noise)
        # What clients would get: cheap replies above the limit, the baseline's below. The labels
        # that `left` and `seen` share count once: only a part of `seen` is of pairs.
        expected = served - left + seen
        part = labels / (labels + self._alone)
        deviance = np.array(max(seen * (1.0 - seen), 0.01))
        alone_noise = (1.0 - part) * float(deviance) / (labels + self._alone)
        seen_noise = part**2 * float(base_noise.sum()) + alone_noise
        noise = served_noise + (1.0 - 2.0 * part) * left_noise + seen_noise
        lowest = expected - np.sqrt(noise) * self._width(
            np.maximum(expected * (1.0 - expected), 0.01) / noise
        )
        # `room` is an estimate: of the loss, only what the baseline surely has above the floor is
        # excused. The declared quality counts as labels do, and a baseline holds the floor.
        seen_noise *= weight
        sure = quality - math.sqrt(seen_noise) * float(self._width(deviance / seen_noise))
        least = min(quality, max(sure, self._floor))
        bound = np.maximum(least + lower, lowest)
        needed = self._floor - self._slack
        passed = _prefix((max(sure, self._floor) + lower >= needed) | (lowest >= needed))
        wanted = self._margin - room + self.owed / HORIZON
        hoped = _prefix(expected - seen >= wanted)
        count = min(passed, hoped)
        self._accepted = float(accepted[count - 1]) if count else 0.0
        self.lower_bound = max(0.0, float(bound[count - 1]) if count else least)
        goal = float(accepted[hoped - 1]) if hoped else 0.0
        deviation = np.sqrt(variance)
        taken = slice(len(shares) - count, None)
        usually = float(shares[taken] @ deviation[taken])
        self._deviation = deviation * (self._accepted / usually if usually else 1.0)
        fresh = not self.released and self._release(goal)
        self.released = self.released or fresh
        if self.released:
            self.threshold = self._limit(count)
        return fresh

    def _release(self, goal: float) -> bool:
        """Return whether to begin to use a rule.

        From then on few of the accepted replies are measured, so a rule that begins too soon stays
        too strict for long.
        """
        if not self._accepted:
            return False
        enough = self.pairs >= PAIRS_MIN and self._accepted >= NEARLY * goal
        return enough or self.pairs >= PAIRS_ENOUGH

    def _width(self, pairs: Vector) -> Vector:
        """Return the bound's distance in standard errors, after a number of pairs."""
        size = pairs / SCALE
        log = np.log1p(size) + 2.0 * math.log(2.0 / self._alpha)  # of two bounds
        width: Vector = np.sqrt((1.0 + 1.0 / size) * log)
        return width

    def _limit(self, count: int) -> float:
        """Return the confidence from which on the highest `count` intervals are."""
        if count == 0:
            return math.inf
        at = len(self._limits) - count
        return self._limits[at] if at >= 0 else -math.inf

    def save(self) -> dict[str, Any]:
        """Return the state."""
        tables = (self._replies, *self._sums())
        return {
            "arms": [self.cheap, self.baseline, self._declared],
            "limits": self._limits,
            "first": self._first,
            "tables": [table.tolist() for table in tables],
            "counts": [self.pairs, self.unpaired, self.unlabelled],
            "alone": [self._alone, self._alone_sum],
            "released": self.released,
            "owed": self.owed,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load a saved state; ValueError if it is damaged."""
        limits = [float(limit) for limit in state["limits"]]
        tables = np.array(state["tables"], dtype=float)
        if len(tables) == 5:  # a snapshot that predates the labels of cheap replies
            tables = np.concatenate([tables, tables[1:2], tables[2:3] + tables[4:5]])
        if tables.shape != (7, len(limits) + 1) or not np.isfinite(tables).all():
            raise ValueError("a saved state whose intervals do not fit")
        self._limits, self._first = limits, [float(one) for one in state["first"]]
        self._replies, self._pairs, self._gain, self._square, self._base = tables[:5].copy()
        self._known, self._cheap = tables[5:].copy()
        self._alone, self._alone_sum = map(float, state.get("alone", (0.0, 0.0)))
        self.pairs, self.unpaired, self.unlabelled = map(int, state["counts"])
        self.released, self.owed = bool(state["released"]), float(state["owed"])
        self.threshold = math.inf
        self.decide()


def _spread(total: Vector, labels: Vector) -> Vector:
    """Return the variance of labels in [0, 1] with these sums, by interval."""
    mean = total / np.maximum(labels, 0.5)
    spread: Vector = (total * (1.0 - np.minimum(mean, 1.0)) + PSEUDO * NOISE) / (labels + PSEUDO)
    return spread


def _prefix(holds: NDArray[np.bool_]) -> int:
    """Return how many hold before the first that does not."""
    return len(holds) if holds.all() else int(holds.argmin())
