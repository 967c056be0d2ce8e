"""Drift of inputs: how far the requests of a route are from those it began with.

Per feature the population stability index (Siddiqi 2006) over bins at the reference's deciles,

    PSI = sum over bins of (p - q) ln(p / q)    p, q: shares of recent and reference requests,

below 0.1 nothing, above 0.25 a shift that wants looking at. Without drift it is about (bins - 1) *
2 / REQUESTS, at most 0.04 here. The features are the numbers that the policy sees, scaled as it
sees them. A value that equals an edge has a bin of its own, so kinds are told apart too.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

REQUESTS = 1000  # in the reference and in what is compared to it
SKIPPED = 100  # the first, on which the scales of features that have no range still move
FEATURES_MAX = 256
DRIFTED, SETTLED = 0.25, 0.1

Matrix = NDArray[np.float64]


class InputDrift:
    """One route's."""

    # The mutable state: how many were skipped, the reference, the latest, and what was found.

    def __init__(self) -> None:
        self._skipped = 0
        self._reference: list[tuple[float, ...]] = []
        self._recent: deque[tuple[float, ...]] = deque(maxlen=REQUESTS)
        self.psi: tuple[float, ...] = ()
        self.drifted: frozenset[int] = frozenset()

    def see(self, dense: tuple[float, ...]) -> None:
        """Take note of a request's features (0.2 us)."""
        if len(self._reference) == REQUESTS:
            self._recent.append(dense)
        elif self._skipped < SKIPPED:
            self._skipped += 1
        else:
            self._reference.append(dense)

    def sample(self) -> tuple[Matrix, Matrix] | None:
        """Return (reference, recent), a row a request; None while there are too few."""
        if len(self._recent) < REQUESTS or not self._reference[0]:
            return None
        width = min(FEATURES_MAX, len(self._reference[0]), *map(len, self._recent))
        return _matrix(self._reference, width), _matrix(self._recent, width)

    def found(self, psi: Sequence[float]) -> list[int]:
        """Take what `stability` says of a sample; return the features that newly drifted."""
        self.psi = tuple(psi)
        before = self.drifted
        held = {n for n in before if n < len(psi) and psi[n] > SETTLED}
        self.drifted = frozenset(held | {n for n, value in enumerate(psi) if value > DRIFTED})
        return sorted(self.drifted - before)


def stability(reference: Matrix, recent: Matrix) -> list[float]:
    """Return each feature's population stability index."""
    return [_psi(reference[:, n], recent[:, n]) for n in range(reference.shape[1])]


def _matrix(rows: Sequence[tuple[float, ...]] | deque[tuple[float, ...]], width: int) -> Matrix:
    return np.array([row[:width] for row in rows], dtype=np.float64)


def _psi(reference: Matrix, recent: Matrix) -> float:
    edges = np.unique(np.quantile(reference, np.arange(0.1, 1.0, 0.1), method="nearest"))
    p, q = _shares(recent, edges), _shares(reference, edges)
    return float(np.sum((p - q) * np.log(p / q)))


def _shares(values: Matrix, edges: Matrix) -> Matrix:
    bins = np.searchsorted(edges, values, "left") + np.searchsorted(edges, values, "right")
    counts = np.bincount(bins, minlength=2 * len(edges) + 1).astype(np.float64)
    # Half a request where there is none: an empty bin is no proof that none ever come.
    shares: Matrix = np.maximum(counts, 0.5) / len(values)
    return shares
