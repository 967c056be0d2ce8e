"""What a route saves against single backends, and the accuracy that this costs or gains.

The reference is the backend of the route with the highest declared accuracy, in the order of the
route's list where several have it. The configuration alone decides, so it is the same for every
range, report and page. Where no backend has a declared accuracy, the policy's prediction chooses
it, which may change as labels come in; then no points are shown, because a prediction has no
interval.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Points(NamedTuple):
    """A difference of accuracies as shares, and its 95 % interval; positive: the route is better.

    The interval is that of the route's measured accuracy; a declared accuracy counts as exact.
    """

    mean: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The difference in points: `+1.2 points (-0.3 to +2.7)`."""
        mean, low, high = (f"{100 * value:+.1f}" for value in self)
        return f"{mean} points ({low} to {high})"


@dataclass(frozen=True, slots=True)
class FixedBackend:
    """One backend that answers every request: its cost in dollars, and its declared accuracy."""

    name: str
    cost_usd: float
    declared: float | None


def reference(declared: Mapping[str, float | None]) -> str | None:
    """Return the backend with the highest declared accuracy, the first of equals; None if none."""
    known = {name: value for name, value in declared.items() if value is not None}
    return max(known, key=lambda name: known[name]) if known else None


def points(
    accuracy: float | None, interval: tuple[float, float] | None, declared: float | None
) -> Points | None:
    """Return how much more accurate a route was than a backend; None if that is unknown."""
    if accuracy is None or interval is None or declared is None:
        return None
    return Points(accuracy - declared, interval[0] - declared, interval[1] - declared)


def better_fixed(
    backends: Iterable[FixedBackend],
    cost_usd: float,
    accuracy: float | None,
    interval: tuple[float, float] | None,
) -> tuple[FixedBackend, Points] | None:
    """Return the most accurate backend that would have cost no more and been more accurate.

    None unless the interval of the difference excludes zero.
    """
    found = []
    for one in backends:
        difference = points(accuracy, interval, one.declared)
        if difference is not None and difference.high < 0 and one.cost_usd <= cost_usd:
            found.append((one, difference))
    return min(found, key=lambda entry: (entry[1].mean, entry[0].cost_usd)) if found else None


def warning(route: str, one: FixedBackend, difference: Points) -> str:
    """Say that a fixed backend would have done better."""
    lost = Points(-difference.mean, -difference.high, -difference.low)
    return (
        f"Route {route}: always {one.name} would have been more accurate by {lost.text} "
        "and have cost no more"
    )
