"""Returns: what a route's money brought, and what it would have cost without routing.

The bars are backends that answer everything: always the most accurate, and the best fixed one (the
cheapest that is as accurate as the route was, or that holds its floor). What they would have cost
is what each request was expected to cost there when it was routed. How accurate they are is what
the configuration declares, else what the policy thought over all requests once it had seen enough
labels: never the mean of a backend's own labels, for it is asked what it is thought good for.
Audits and exploration are part of what the route has cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tollway.gateway.budgets.model import NANO
from tollway.gateway.control_plane.dashboard_data import KNOWN_LABELS
from tollway.reports.totals import Totals


@dataclass(frozen=True, slots=True)
class Terms:
    """What a configuration says of a route: the worth of a right answer, its floor, its backends'
    accuracies."""

    value_per_correct_usd: float | None = None
    floor: float | None = None
    declared: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A backend that would have answered everything."""

    backend: str
    would_nano: int
    accuracy: float | None

    def saved_nano(self, totals: Totals) -> int:
        """What was saved against it."""
        return self.would_nano - totals.cost_nano

    def saved_share(self, totals: Totals) -> float | None:
        """The same as a share of what it would have cost."""
        return self.saved_nano(totals) / self.would_nano if self.would_nano else None


def fixed(totals: Totals, terms: Terms) -> list[Fixed]:
    """Return each backend as one that answers all that was answered."""
    found = []
    for backend, offers in sorted(totals.offers.items()):
        accuracy = terms.declared.get(backend)
        if accuracy is None and totals.version >= KNOWN_LABELS:
            accuracy = offers.accuracy
        would_nano = round(offers.each_usd * totals.answered * NANO)
        found.append(Fixed(backend, would_nano, accuracy))
    return found


def most_accurate(backends: list[Fixed]) -> Fixed | None:
    """Return the most accurate backend, the cheaper of two that are alike."""
    known = [(one.accuracy, -one.would_nano, one) for one in backends if one.accuracy is not None]
    return max(known, key=lambda told: told[:2])[2] if known else None


def best_fixed(backends: list[Fixed], totals: Totals, terms: Terms) -> Fixed | None:
    """Return the cheapest backend that is good enough; None where nothing tells what is."""
    bar = terms.floor if terms.floor is not None else totals.accuracy
    if bar is None:
        return None
    enough = [one for one in backends if one.accuracy is not None and one.accuracy >= bar]
    return min(enough, key=lambda one: one.would_nano) if enough else None


def value_nano(totals: Totals, terms: Terms) -> int | None:
    """Return what the right answers were worth, as declared; None where that is not known."""
    if terms.value_per_correct_usd is None or totals.correct is None:
        return None
    return round(terms.value_per_correct_usd * totals.correct * NANO)
