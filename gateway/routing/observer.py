"""The port through which routing and learning report what happened, for counters and traces.

Observers take no part in a request. A control loop never reads the metrics: it has an observer of
its own.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from tollway.gateway.routing.request_state import Attempt


class Observer(Protocol):
    """Counts attempts."""

    def attempt(
        self, route: str, tenant: str, attempt: Attempt, exemplar: dict[str, str] | None = None
    ) -> None:
        """Count a settled attempt; `exemplar` links it to a trace."""

    def tagged(self, tenant: str, tags: Mapping[str, str], cost_nano: int) -> None:
        """Count the cost charged to a request's tags."""


class LabelObserver(Protocol):
    """Counts feedback and labels."""

    rows_skipped: int

    def feedback(self, route: str, outcome: str) -> None:
        """Count one feedback item."""

    def label(self, route: str, backend: str, quality: float, *, answered: bool) -> None:
        """Count the quality of a reply; `answered`: it is the reply that the client got."""

    def set_aside(self, route: str, tenant: str, part: float) -> None:
        """Count the part of a tenant's label that was not trusted."""


class Uncounted:
    """Counts nothing but damaged rows: for learning outside a gateway."""

    # The mutable state is the number of damaged rows.

    def __init__(self) -> None:
        self.rows_skipped = 0

    def feedback(self, route: str, outcome: str) -> None:
        """Ignore it."""

    def label(self, route: str, backend: str, quality: float, *, answered: bool) -> None:
        """Ignore it."""

    def set_aside(self, route: str, tenant: str, part: float) -> None:
        """Ignore it."""

    def signal(self, route: str, name: str, score: float) -> None:
        """Ignore it."""


class EventSink(Protocol):
    """Receives events for operators."""

    def add(self, kind: str, about: str, text: str, **details: Any) -> None:
        """Record an event of a kind about a route, backend or budget (`about`)."""
