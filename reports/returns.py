"""The return on a route's spend, and what it would have cost without routing.

The baselines are single backends that answer every request: the reference, which has the highest
declared accuracy whatever is looked at, and the best fixed one (the cheapest that is as accurate as
the route was, or that holds its floor). The cost of a baseline is what each request was expected to
cost there when it was routed. Its accuracy is what the configuration declares, else the policy's
estimate over all requests once it had seen enough labels. It is never the mean of a backend's own
labels, because a backend receives the requests that it is thought to be good at. Audits and
exploration are part of the route's cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tollway.backends.money import NANO_PER_USD
from tollway.gateway.control_plane import savings
from tollway.gateway.control_plane.dashboard_data import KNOWN_LABELS
from tollway.gateway.control_plane.savings import FixedBackend, Points
from tollway.reports.totals import Totals


@dataclass(frozen=True, slots=True)
class Terms:
    """A route's configured value per right answer, accuracy floor, and backend accuracies."""

    value_per_correct_usd: float | None = None
    floor: float | None = None
    declared: Mapping[str, float] = field(default_factory=dict)  # in the order of its backends


@dataclass(frozen=True, slots=True)
class Fixed:
    """A baseline: one backend that answers every request.

    Its accuracy is `declared`, or else the policy's prediction, which has no interval: it may
    choose a baseline but not stand beside a measured accuracy.
    """

    backend: str
    would_nano: int
    accuracy: float | None
    declared: bool

    def saved_nano(self, totals: Totals) -> int:
        """The amount saved compared with this baseline."""
        return self.would_nano - totals.cost_nano

    def saved_share(self, totals: Totals) -> float | None:
        """The saving as a share of the baseline's cost."""
        return self.saved_nano(totals) / self.would_nano if self.would_nano else None


def fixed(totals: Totals, terms: Terms) -> list[Fixed]:
    """Return each backend as a baseline for all answered requests."""
    rows = []
    for backend, offers in sorted(totals.offers.items()):
        accuracy = terms.declared.get(backend)
        if accuracy is None and totals.version >= KNOWN_LABELS:
            accuracy = offers.accuracy
        would_nano = round(offers.each_usd * totals.answered * NANO_PER_USD)
        rows.append(Fixed(backend, would_nano, accuracy, backend in terms.declared))
    return rows


def reference(backends: list[Fixed], terms: Terms) -> Fixed | None:
    """Return the reference of savings; None if it is unknown or was offered no request.

    It is the dashboard's: the highest declared accuracy, else the highest predicted one.
    """
    name = savings.reference(terms.declared)
    if name is None:
        known = [one for one in backends if one.accuracy is not None]
        return max(known, key=lambda one: (one.accuracy, -one.would_nano), default=None)
    return next((one for one in backends if one.backend == name), None)


def points(one: Fixed, totals: Totals) -> Points | None:
    """Return how much more accurate the route was than a baseline whose accuracy is declared."""
    declared = one.accuracy if one.declared else None
    return savings.points(totals.accuracy, totals.accuracy_interval, declared)


def better_fixed(route: str, totals: Totals, terms: Terms) -> str | None:
    """Return a warning if a fixed backend would have done better at the route's cost."""
    backends = [
        FixedBackend(one.backend, one.would_nano / NANO_PER_USD, one.accuracy)
        for one in fixed(totals, terms)
        if one.declared
    ]
    cost_usd = totals.cost_nano / NANO_PER_USD
    found = savings.better_fixed(backends, cost_usd, totals.accuracy, totals.accuracy_interval)
    return None if found is None else savings.warning(route, *found)


def best_fixed(backends: list[Fixed], totals: Totals, terms: Terms) -> Fixed | None:
    """Return the cheapest backend that is accurate enough; None if that is unknown."""
    bar = terms.floor if terms.floor is not None else totals.accuracy
    if bar is None:
        return None
    enough = [one for one in backends if one.accuracy is not None and one.accuracy >= bar]
    return min(enough, key=lambda one: one.would_nano) if enough else None


def value_nano(totals: Totals, terms: Terms) -> int | None:
    """Return the declared value of the right answers; None if it is unknown."""
    if terms.value_per_correct_usd is None or totals.correct is None:
        return None
    return round(terms.value_per_correct_usd * totals.correct * NANO_PER_USD)
