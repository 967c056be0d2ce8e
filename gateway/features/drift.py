"""Input drift: how far a route's recent requests differ from its first ones.

Each feature is measured by the population stability index (Siddiqi 2006) over bins at the
reference's deciles:

    PSI = sum over bins of (p - q) ln(p / q)    p, q: shares of recent and reference requests

A value below 0.1 means no drift; a value above 0.25 is a shift that should be investigated. Without
drift the index is about (bins - 1) * 2 / REQUESTS, at most 0.04 here. The features are the numbers
that the policy sees, with the same scaling. A value equal to an edge has a bin of its own, so the
index also works for categorical values.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

REQUESTS = 1000  # in the reference and in the recent sample
SKIPPED = 100  # first requests, during which the scales of features without a range still move
FEATURES_MAX = 256
DRIFTED, SETTLED = 0.25, 0.1

Matrix = NDArray[np.float64]


class InputDrift:
    """Input drift of one route."""

    # The mutable state is the number of skipped requests, the reference, the recent requests, and
    # the last result.

    def __init__(self) -> None:
        self._skipped = 0
        self._reference: list[tuple[float, ...]] = []
        self._recent: deque[tuple[float, ...]] = deque(maxlen=REQUESTS)
        self.psi: tuple[float, ...] = ()
        self.drifted: frozenset[int] = frozenset()

    def see(self, dense: tuple[float, ...]) -> None:
        """Record a request's features (0.2 us)."""
        if len(self._reference) == REQUESTS:
            self._recent.append(dense)
        elif self._skipped < SKIPPED:
            self._skipped += 1
        else:
            self._reference.append(dense)

    def sample(self) -> tuple[Matrix, Matrix] | None:
        """Return (reference, recent) with one row per request; None while there are too few."""
        if len(self._recent) < REQUESTS or not self._reference[0]:
            return None
        width = min(FEATURES_MAX, len(self._reference[0]), *map(len, self._recent))
        return _matrix(self._reference, width), _matrix(self._recent, width)

    def found(self, psi: Sequence[float]) -> list[int]:
        """Apply the result of `stability` for a sample; return the newly drifted features."""
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
    # An empty bin counts half a request: it does not prove that no request ever falls into it.
    shares: Matrix = np.maximum(counts, 0.5) / len(values)
    return shares
