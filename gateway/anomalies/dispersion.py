"""How far a series strays from its baseline: learned for each series and each time scale.

Some traffic follows its season within a tenth; other traffic, such as clicks or tweets, doubles
several times a day by itself. A fixed ratio would miss much of the first and cry wolf all day on
the second. So the logarithm of spend over baseline is recorded once a minute for each time scale,
and a fading histogram gives its upper quantile. That is what this series does by itself, at this
scale, one time in fifty; an anomaly must exceed a multiple of it.

The multiples are those that give few false alarms on real series: `benchmarks/anomalies.py
--series` prints the curve. They are larger for minutes, which are looked at more often and stray in
bursts.
"""

import math
from typing import Any

QUANTILE = 0.98
MULTIPLES = {
    60: 3.0,
    300: 2.5,
    900: 2.0,
    1800: 1.75,
    3600: 1.6,
    10_800: 1.6,
    21_600: 1.6,
}
"""What an anomaly must exceed, as a multiple of the quantile of its time scale in seconds."""

FADE_MIN = 14 * 24 * 60  # half-life of the history, in samples of a minute
KNOWN_MIN = 2 * 24 * 60  # samples before it is used
STEP = 0.04  # width of a bin: 4 %
BINS = 100  # up to e^4, 55 times the baseline
LEAST = 0.05  # of the mean spend: added to both sides, so that idle hours have a ratio


class Dispersion:
    """The upper quantile of a series' log ratios, by time scale."""

    # The mutable state is the histograms, the weight of the next sample (it grows, which fades
    # those before it), and the number of samples.
    __slots__ = ("_bins", "_samples", "_weight")

    def __init__(self) -> None:
        self._bins = {scale_s: [0.0] * (BINS + 1) for scale_s in MULTIPLES}
        self._weight = 1.0
        self._samples = 0

    @property
    def is_known(self) -> bool:
        """Whether there is enough history."""
        return self._samples >= KNOWN_MIN

    def see(self, logs: dict[int, float]) -> None:
        """Add a minute's log ratios, by time scale."""
        for scale_s, log in logs.items():
            at = 0 if log <= 0 else min(BINS, 1 + int(log / STEP))
            self._bins[scale_s][at] += self._weight
        self._samples += 1
        self._weight *= 2.0 ** (1 / FADE_MIN)
        if self._weight > 1e6:
            for bins in self._bins.values():
                bins[:] = [count / self._weight for count in bins]
            self._weight = 1.0

    def usual(self, scale_s: int) -> float:
        """Return the log ratio that is exceeded one time in fifty; 0 if that is none above 0."""
        bins = self._bins[scale_s]
        rest = (1 - QUANTILE) * sum(bins)
        for at in range(BINS, 0, -1):
            rest -= bins[at]
            if rest < 0:
                return at * STEP
        return 0.0

    def least_log(self, scale_s: int) -> float:
        """Return the log ratio that an anomaly must exceed."""
        return MULTIPLES[scale_s] * self.usual(scale_s)

    def save(self) -> dict[str, Any]:
        """Return the state, for JSON."""
        return {
            "samples": self._samples,
            "bins": {
                str(scale_s): [count / self._weight if count else 0 for count in bins]
                for scale_s, bins in self._bins.items()
            },
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load a saved state. Raises ValueError or KeyError if it is damaged."""
        loaded = {scale_s: [float(n) for n in state["bins"][str(scale_s)]] for scale_s in MULTIPLES}
        if any(len(bins) != BINS + 1 or not min(bins) >= 0 for bins in loaded.values()):
            raise ValueError("the saved dispersion is damaged")
        self._bins, self._samples, self._weight = loaded, int(state["samples"]), 1.0


def log_ratio(usd: float, usual_usd: float, mean_usd: float) -> float:
    """Return the logarithm of spend over baseline; `mean_usd` is the mean of equal periods.

    0 where either is 0 and so is the mean.
    """
    floor = LEAST * mean_usd
    if not min(usd, usual_usd) + floor > 0:
        return 0.0
    return math.log((usd + floor) / (usual_usd + floor))
