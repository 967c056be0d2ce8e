"""Tests whether logged propensities are those of the draws, and whether every arm had a chance.

Theory of operation. If arm a is drawn with probability p > 0 in every context, w = 1{drawn} / p has
mean 1, in all contexts and in any part of them that is chosen by the context alone. Where the log
gives the arm no chance, w is 0: the mean falls short of 1 by the share of such contexts, and no
estimate for the arm can see what it lacks. If propensities are too small, the mean exceeds 1. The
same holds for the weights of any policy. Such a log looks sound otherwise: its propensities are
those of the arms drawn.

The tests need no normal approximation and allow a logger that learns. With p >= m, E[w^2] <= 1 / m,
and for the mean of n weights

    P(mean <= 1 - t) <= exp(-n m t^2 / 2)                 (w >= 0: Maurer 2003)
    P(mean >= 1 + t) <= exp(-n m t^2 / (2 + 2 t / 3))     (w <= 1 / m: Freedman 1975).

They are made over the whole log, and over both halves of it by time and by each feature, so that an
arm that is missing in one half of the contexts stands out there. The error probability is divided
among all of them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollway.simulations.replay.estimators import Refused
from tollway.simulations.replay.logs import Floats, Log

ALPHA = 0.001  # the probability that a sound log is refused, for each policy


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a log that is chosen by time or by a feature, never by the draw."""

    name: str  # as in "in ...", empty for the whole log
    packed: NDArray[np.uint8]  # a bit for each row: a log of many features has many parts
    count: int

    @property
    def rows(self) -> NDArray[np.bool_]:
        """Whether each row (n) belongs to it."""
        return np.unpackbits(self.packed, count=self.count).view(bool)


def _part(name: str, rows: NDArray[np.bool_]) -> Part:
    return Part(name, np.packbits(rows), len(rows))


@dataclass(frozen=True, slots=True)
class Misfit:
    """The part of a log in which weights most clearly do not average 1."""

    part: str
    mean: float
    decisions: int

    def refused(self, decisions: int) -> Refused:
        """Return the refusal, with what may be wrong and what to do."""
        place = f"the {self.decisions:,} decisions{self.part}"
        why = f"its importance weights average {self.mean:.2f} instead of 1 over {place}"
        if self.mean > 1.0:
            why += ": the propensities are smaller than those of the draws"
            remedy = "name the column of the probability of each draw with --propensity"
        else:
            why += (
                f": the log gives its choices no chance in some {1.0 - self.mean:.0%} of them, or "
                "the propensities are larger than those of the draws"
            )
            remedy = "give every arm a chance in every request; a longer log alone does not help"
        missing = max(0.0, 1.0 - self.mean)
        return Refused(why, 0.0, missing, decisions, 0.0, 0.0, remedy)


class Support:
    """Tests the weights of policies on a log with the propensities of the drawn arms only."""

    # No mutable state: the parts are chosen once, from time and features.

    def __init__(self, log: Log) -> None:
        self._log = log
        self._parts = list(_parts(log))
        arms = range(len(log.arms))
        self._least = np.array(
            [log.propensity[log.arm == arm].min(initial=1.0) for arm in arms], float
        )

    def misfit(self, target: Floats) -> Misfit | None:
        """Return where the weights of a policy (n x K) do not average 1; None if nowhere."""
        log = self._log
        weights = target[np.arange(len(log)), log.arm] / log.propensity
        least = float(self._least[target.any(axis=0)].min(initial=1.0))
        found, most = None, math.log(2.0 * len(self._parts) / ALPHA)
        for part in self._parts:
            rows = part.rows
            count, mean = int(rows.sum()), float(weights[rows].mean())
            off = abs(mean - 1.0)
            spread = 2.0 if mean < 1.0 else 2.0 + 2.0 * off / 3.0
            evidence = count * least * off**2 / spread
            if evidence > most:
                found, most = Misfit(part.name, mean, count), evidence
        return found

    def overlooked(self) -> float:
        """Return the largest share of requests without a chance that may go unnoticed."""
        enough = math.log(2.0 * len(self._parts) / ALPHA)
        return min(1.0, math.sqrt(2.0 * enough / (len(self._log) * float(self._least.min()))))


def _parts(log: Log) -> Iterator[Part]:
    """Yield the whole log, and its halves by time and by each feature that varies."""
    yield _part("", np.ones(len(log), bool))
    early = np.arange(len(log)) < len(log) // 2
    yield _part(" of the first half", early)
    yield _part(" of the second half", ~early)
    for number, values in enumerate(log.dense()):
        name = log.names[number] if number < len(log.names) else f"feature {number + 1}"
        middle = float(np.median(values))
        above = values > middle
        if not above.any():  # the median is also the largest value
            above, middle = values >= middle, float(values[values < middle].max(initial=-np.inf))
        if above.any() and not above.all():
            yield _part(f" with {name} above {middle:.4g}", above)
            yield _part(f" with {name} up to {middle:.4g}", ~above)
