"""Input drift: how far a route's recent requests differ from its first ones.

Each feature is measured by the population stability index (Siddiqi 2006) over bins at the
reference's deciles:

    PSI = sum over bins of (p - q) ln(p / q)    p, q: shares of recent and reference requests

A value below 0.1 means no drift; a value above 0.25 is a shift that should be investigated. Without
drift the index is about (bins - 1) * 2 / REQUESTS, at most 0.04 here (0.08 after a tenant has
come). The features are the numbers that the policy sees, with the same scaling. A value equal to an
edge has a bin of its own, so the index also works for categorical values. Tenants have equal shares
of both samples, so a flood of one neither becomes the reference of others nor hides their drift.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

REQUESTS = 1000  # in the reference and in the recent sample
SKIPPED = 100  # first requests, during which the scales of features without a range still move
FEATURES_MAX = 256
TENANTS_MAX = 64  # with rows of their own; further ones are one
IDLE = 20 * REQUESTS  # requests, after which a tenant's rows say nothing of what comes now
DRIFTED, SETTLED = 0.25, 0.1

Matrix = NDArray[np.float64]


class InputDrift:
    """Input drift of one route."""

    # The mutable state is the number of requests, the reference, the recent requests, when each
    # tenant was seen last, whose part of the reference is complete, and the last result.

    def __init__(self) -> None:
        self._count = 0
        self._reference = _Rows(keeps_first=True)
        self._recent = _Rows(keeps_first=False)
        self._seen: dict[str, int] = {}
        self._settled: set[str] = set()  # tenants whose part of the reference is complete
        self.psi: tuple[float, ...] = ()
        self.drifted: frozenset[int] = frozenset()

    def see(self, dense: tuple[float, ...], tenant: str = "") -> None:
        """Record a request's features (0.7 us)."""
        count = self._count = self._count + 1
        if count <= SKIPPED:
            return
        if tenant not in self._seen:
            if len(self._seen) < TENANTS_MAX:
                self._settled.clear()  # the parts become smaller
            else:
                tenant = ""
        self._seen[tenant] = count
        if tenant in self._settled:
            self._recent.add(tenant, dense)
        elif not self._reference.add(tenant, dense):
            self._settled.add(tenant)
            self._recent.add(tenant, dense)
        if not count % REQUESTS:
            self._forget(count - IDLE)

    def _forget(self, before: int) -> None:
        """Drop the rows of tenants that were last seen before a request."""
        for tenant in [one for one, seen in self._seen.items() if seen < before]:
            del self._seen[tenant]
            self._settled.clear()  # the parts of the others become larger
            self._reference.drop(tenant)
            self._recent.drop(tenant)

    def sample(self) -> tuple[Matrix, Matrix] | None:
        """Return (reference, recent) with one row per request; None while there are too few.

        Each has equally many rows of a tenant.
        """
        if self._recent.count < REQUESTS:
            return None
        reference: list[tuple[float, ...]] = []
        recent: list[tuple[float, ...]] = []
        for tenant, rows in self._recent.by_tenant.items():
            first = self._reference.by_tenant.get(tenant, ())
            count = min(len(first), len(rows))
            reference += list(first)[:count]
            recent += list(rows)[len(rows) - count :]
        if len(recent) < REQUESTS // 2 or not reference[0]:
            return None
        width = min(FEATURES_MAX, len(reference[0]), *map(len, recent))
        return _matrix(reference, width), _matrix(recent, width)

    def found(self, psi: Sequence[float]) -> list[int]:
        """Apply the result of `stability` for a sample; return the newly drifted features."""
        self.psi = tuple(psi)
        before = self.drifted
        held = {n for n in before if n < len(psi) and psi[n] > SETTLED}
        self.drifted = frozenset(held | {n for n, value in enumerate(psi) if value > DRIFTED})
        return sorted(self.drifted - before)


class _Rows:
    """A sample of REQUESTS rows, in which each tenant that has many has equally many."""

    # The mutable state is the rows by tenant, and their number.
    def __init__(self, *, keeps_first: bool) -> None:
        """`keeps_first`: keep a tenant's first rows, rather than its latest."""
        self._keeps_first = keeps_first
        self.by_tenant: dict[str, deque[tuple[float, ...]]] = {}
        self.count = 0

    def add(self, tenant: str, row: tuple[float, ...]) -> bool:
        """Add a row, in the place of one of the tenant with most rows; return whether it fits."""
        own = self.by_tenant.get(tenant)
        if own is None:
            own = self.by_tenant[tenant] = deque()
        if self.count < REQUESTS:
            self.count += 1
        else:
            share = REQUESTS // len(self.by_tenant)
            if len(own) >= share:
                if self._keeps_first:
                    return False
                own.popleft()
            elif self._keeps_first:
                max(self.by_tenant.values(), key=len).pop()
            else:
                max(self.by_tenant.values(), key=len).popleft()
        own.append(row)
        return True

    def drop(self, tenant: str) -> None:
        """Drop a tenant's rows."""
        self.count -= len(self.by_tenant.pop(tenant, ()))


def stability(reference: Matrix, recent: Matrix) -> list[float]:
    """Return each feature's population stability index."""
    return [_psi(reference[:, n], recent[:, n]) for n in range(reference.shape[1])]


def _matrix(rows: Sequence[tuple[float, ...]], width: int) -> Matrix:
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
