"""Known events: periods for which an operator has told that more requests will come, as a sale.

An event multiplies the usual demand by its factor; where several overlap, the highest counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownEvent:
    """A period (seconds since 1970) in which demand is `factor` times the usual demand."""

    start_s: float
    end_s: float
    factor: float


def factor_at(events: Sequence[KnownEvent], time_s: float) -> float:
    """Return the multiple of the usual demand at a time; 1 outside of events."""
    if not events:
        return 1.0
    return max([one.factor for one in events if one.start_s <= time_s < one.end_s], default=1.0)


def pieces(
    events: Sequence[KnownEvent], from_s: float, to_s: float
) -> Iterator[tuple[float, float, float]]:
    """Yield (start, end, factor) for each part of a period in which the factor does not change."""
    edges = {edge for one in events for edge in (one.start_s, one.end_s) if from_s < edge < to_s}
    start_s = from_s
    for end_s in (*sorted(edges), to_s):
        yield start_s, end_s, factor_at(events, start_s)
        start_s = end_s


def usual_seconds(events: Sequence[KnownEvent], from_s: float, to_s: float) -> float:
    """Return in how many usual seconds as much demand comes as in a period with its events."""
    return sum(
        (end_s - start_s) * factor for start_s, end_s, factor in pieces(events, from_s, to_s)
    )
