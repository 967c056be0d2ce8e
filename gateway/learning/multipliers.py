"""Recomputes the policies' multipliers that are due, and reports changes that policies noticed."""

from collections.abc import Mapping

from tollway.gateway.routing.observer import EventSink
from tollway.gateway.routing.plan import RoutePlan
from tollway.policies.types import Notice

RESOLVE_S = 0.02  # multipliers are due every few dozen requests; checking takes a microsecond


def resolve(routes: Mapping[str, RoutePlan], events: EventSink) -> None:
    """Recompute the multipliers that are due."""
    for route in routes.values():
        if route.policy.resolve_due():
            route.policy.resolve()
        for change in route.policy.drain():
            if isinstance(change, Notice):
                events.add(change.kind, route.name, change.text, **change.figures)
                continue
            events.add(
                "quality_changed",
                route.name,
                f"{change.arm}'s quality has changed by {change.amount:+.2f}, "
                f"{change.since} labels ago",
                arm=change.arm,
                amount=change.amount,
                labels_ago=change.since,
            )
