"""Unlearning: rebuilds a route's policy from the journal without some of the labels.

A regression cannot forget a single label, but the journal holds all labels with the contexts and
probabilities of their decisions. The policy is therefore retrained from an empty state on the
remaining labels, in order. What was learned about costs and features does not come from labels and
is retained.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tollway.gateway.learning.feedback import FeedbackLearner
from tollway.gateway.learning.readback import BadRow, draws
from tollway.gateway.learning.signals import SignalLearner
from tollway.gateway.routing.observer import Uncounted
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.storage.journal import Journal, segments
from tollway.gateway.storage.journal_format import Row, rows
from tollway.policies.types import Arm, Context

SAMPLE = 200  # recent requests on which the policies before and after are compared


@dataclass(frozen=True, slots=True)
class Without:
    """Filter for the labels to remove: those that match every field.

    An empty `tenants`, `sources` or `decisions` matches all. A label's time must be at or after
    `from_s` and before `to_s`.
    """

    tenants: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    decisions: frozenset[str] = frozenset()
    from_s: float = 0.0
    to_s: float = float("inf")

    def __call__(self, row: Row) -> bool:
        """Return whether a feedback row is removed."""
        time_s = row.get("time")
        if not isinstance(time_s, (int, float)) or not self.from_s <= time_s < self.to_s:
            return False
        by = str(row.get("by") or "")
        told_by = by.partition(":")[2] if ":" in by else row.get("tenant")
        return (
            (not self.tenants or told_by in self.tenants)
            and (not self.sources or row.get("source") in self.sources)
            and (not self.decisions or row.get("id") in self.decisions)
        )


class Readable(Journal):
    """A read-only journal: it opens no segment and marks nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def flush(self) -> None:
        """Do nothing: no rows wait."""

    def mark(self, decision: str) -> bool:
        """Leave the marks unchanged: removed labels must not be accepted again."""
        return True


@dataclass(slots=True)
class Relearned:
    """Result of relearning one route."""

    learned: int = 0
    left_out: int = 0
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)


def relearn(
    folder: Path, routes: Mapping[str, RoutePlan], without: Without, wall: Callable[[], float]
) -> tuple[dict[str, Relearned], int]:
    """Train routes with empty policies from the journal.

    Return the result by route and the number of damaged rows that were skipped.
    """
    results = {name: Relearned() for name in routes}
    metrics = Uncounted()
    journal = Readable(folder)
    signals = SignalLearner(journal, routes, metrics, wall)
    learner = FeedbackLearner(journal, routes, metrics, wall, signals=signals)
    rng = Random(0)

    def chosen() -> Iterator[Row]:
        for path in segments(folder):
            yield from rows(path)

    seen: set[str] = set()
    skipped = 0
    for row in chosen():
        name = row.get("route")
        if not isinstance(name, str) or name not in routes:
            continue
        try:
            if row.get("kind") == "decision":
                _meet(routes[name], row, rng)
                learner.recount(row, {})
            elif row.get("kind") in {"feedback", "signal"} and without(row):
                results[name].left_out += 1
            elif row.get("kind") == "feedback":
                results[name].learned += learner.relearn(row, {}, seen)
            elif row.get("kind") == "signal":
                results[name].learned += signals.relearn(row)
        except (BadRow, KeyError, TypeError, ValueError, ArithmeticError):
            skipped += 1
    return results, skipped


def _meet(route: RoutePlan, row: Row, rng: Random) -> None:
    """Show the policy a past request, so that it knows its arms and its traffic."""
    (draw,) = draws([row])
    if draw.stage or draw.redrawn:
        return
    arms = [
        Arm(name, cost_usd, route.backends[name].declared_quality)
        for name, cost_usd in zip(draw.choice.arms, draw.choice.cost_hat_usd, strict=True)
        if name in route.backends
    ]
    if arms:
        route.policy.choose(draw.context, arms, rng)
        if route.policy.resolve_due():
            route.policy.resolve()


def expected(folder: Path, route: RoutePlan) -> dict[str, float]:
    """Return the mean quality that a route's policy expects of each arm over recent requests."""
    sums: dict[str, list[float]] = {}
    for context, arms in _recent(folder, route):
        choice = route.policy.choose(context, arms, Random(0))
        for arm, quality in zip(choice.arms, choice.quality_hat, strict=True):
            sums.setdefault(arm, []).append(quality)
    return {arm: sum(each) / len(each) for arm, each in sums.items()}


def _recent(folder: Path, route: RoutePlan) -> list[tuple[Context, list[Arm]]]:
    offers: list[tuple[Context, list[Arm]]] = []
    for path in segments(folder)[-1:]:
        for row in rows(path):
            if row.get("kind") != "decision" or row.get("route") != route.name:
                continue
            try:
                (draw,) = draws([row])
            except BadRow:
                continue
            arms = [
                Arm(name, cost, route.backends[name].declared_quality)
                for name, cost in zip(draw.choice.arms, draw.choice.cost_hat_usd, strict=True)
                if name in route.backends
            ]
            if arms and not draw.stage:
                offers.append((draw.context, arms))
                del offers[:-SAMPLE]
    return offers
