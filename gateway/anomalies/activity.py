"""Activity: what each (route, backend, tenant) has called, used and spent, for the detector.

These counts are the detector's own. It reads no metrics, so that a metric can be renamed or take
other labels without an effect on alarms.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tollway.backends.money import to_usd
from tollway.gateway.anomalies.detector import Key, Total
from tollway.gateway.routing.request_state import Attempt

Activities = dict[Key, "Activity"]


@dataclass(slots=True)
class Activity:
    """Calls, device time in seconds, tokens read and written, and cost, since the start."""

    calls: int = 0
    device_s: float = 0.0
    tokens: float = 0.0
    cost_nano: int = 0

    def __add__(self, other: "Activity") -> "Activity":
        return Activity(
            self.calls + other.calls,
            self.device_s + other.device_s,
            self.tokens + other.tokens,
            self.cost_nano + other.cost_nano,
        )

    def total(self) -> Total:
        """Return the totals, with usage in the unit that calls are charged by."""
        usage = self.device_s or self.tokens or self.calls
        return Total(self.calls, usage, to_usd(self.cost_nano))


class ActivityCounter:
    """Counts one worker's activity. It is an `Observer`."""

    # The mutable state is the counts.

    def __init__(self) -> None:
        self.counts: Activities = defaultdict(Activity)

    def declare(self, route: str, backends: Iterable[str], tenants: Iterable[str]) -> None:
        """Initialize the counts of a route, so that a tenant's first spend is an increase.

        Existing counts are kept.
        """
        for backend in backends:
            for tenant in tenants:
                self.counts.setdefault((route, backend, tenant), Activity())

    def attempt(
        self, route: str, tenant: str, attempt: Attempt, exemplar: dict[str, str] | None = None
    ) -> None:
        """Count a settled attempt (1 us)."""
        count, outcome = self.counts[route, attempt.backend, tenant], attempt.outcome
        count.calls += 1
        count.cost_nano += outcome.cost_nano
        if outcome.usage is not None:
            count.device_s += outcome.usage.device_s
            count.tokens += outcome.usage.input_tokens + outcome.usage.output_tokens

    def tagged(self, tenant: str, tags: Mapping[str, str], cost_nano: int) -> None:
        """Ignore it."""


def add(one: Mapping[Key, Activity], other: Mapping[Key, Activity]) -> Activities:
    """Return the sums of two workers' counts."""
    sums = dict(one)
    for key, count in other.items():
        sums[key] = sums[key] + count if key in sums else count
    return sums


def document(counts: Mapping[Key, Activity]) -> list[list[Any]]:
    """Return counts as JSON types, for another worker; those of zero are left out."""
    return [
        [*key, count.calls, count.device_s, count.tokens, count.cost_nano]
        for key, count in counts.items()
        if count.calls
    ]


def read(rows: Iterable[list[Any]]) -> Activities:
    """Parse the counts of a document."""
    return {(route, backend, tenant): Activity(*row) for route, backend, tenant, *row in rows}
