"""Feedback: turns reports on answers' quality into policy updates.

Feedback refers to a decision by its id. The decision's rows are read back from the journal: the
contexts, the offered arms, and the probabilities at the time of the choice. Feedback may therefore
arrive hours late, out of order, or after a restart. It is applied once; repeated feedback is
answered as a duplicate.

One piece of feedback can update several arms. A true label scores every reply of the request,
including in a cascade the cheap reply that was not accepted. A quality applies to the reply that
the client received.

Feedback is validated, written, marked, and then learned from, in this order. A gateway killed
between any two steps neither loses nor doubles a label: a row that is not yet in a snapshot is
learned from and marked at the next start.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tollway.backends.scoring import Incomparable
from tollway.gateway.learning import readback
from tollway.gateway.learning.feedback_items import PROBABILITY_MIN, BadFeedback, Feedback, parse
from tollway.gateway.learning.importance_weights import Weights
from tollway.gateway.learning.readback import BadRow
from tollway.gateway.learning.signals import SIGNALS, Reporter, SignalLearner
from tollway.gateway.routing.observer import EventSink, LabelObserver
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.request_state import Decision
from tollway.gateway.storage.journal import Journal, is_empty, modified_s, segments
from tollway.gateway.storage.journal_format import Row, rows
from tollway.policies.types import ACCEPT, WARM_UP

__all__ = ["BadFeedback", "Feedback", "FeedbackLearner", "answered", "parse", "qualities", "teach"]

log = logging.getLogger(__name__)

NO_ANSWER = (
    "the reply has no answer to compare with a label; send a quality, or write "
    'no_answer = "wrong" on the route to count such replies as wrong'
)
CATCH_UP_SEGMENTS_MAX = 4  # a gigabyte at the default size: seconds at start, not minutes
BELIEF_MIN = 1e-3  # labels with less belief are not worth the time
UNMARKED_MAX = 10_000  # applied decisions that the disk failed to mark: a megabyte of ids
SKIPS_LOGGED_MAX = 5  # skipped rows logged per start: damaged rows tend to be alike

ADMIN, GATEWAY, LABELLER, TENANT = "admin", "gateway", "labeller", "tenant"
"""Sources of feedback: the admin key, an audit, a tenant with trusted labels (`labeller = true`),
and any other tenant. A journal row also names the tenant: `tenant:acme`."""

ASIDE_EVERY = 100  # labels of a tenant on a route between checks of how many were set aside


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Result of replaying the journal's feedback at start: rows learned from and rows skipped."""

    learned: int
    skipped: int


@dataclass(frozen=True, slots=True)
class ValidatedFeedback:
    """A validated label: `known` is the quality by backend, `reporter` who sent it."""

    route: RoutePlan
    drawn: list[Decision]
    rows: list[Row]
    known: Mapping[str, float]
    reporter: str
    probability: float


class FeedbackLearner:
    """Applies feedback to the policies of its routes."""

    # The mutable state is the labels' weights, the decisions that could not be marked, and the
    # number of labels, in total and set aside, per tenant and route since the last check.

    def __init__(
        self,
        journal: Journal,
        routes: Mapping[str, RoutePlan],
        metrics: LabelObserver,
        wall: Callable[[], float],
        *,
        patience_s: float = 0.0,
        events: EventSink | None = None,
        signals: SignalLearner | None = None,
    ) -> None:
        """Set up the learner.

        `patience_s`: how long after a reply another worker may still be writing its rows. `events`
        receives an event for each tenant with mostly set-aside labels. `signals` learns from scores
        that are no labels.
        """
        self._signals = signals
        self._events = events
        self._aside: dict[tuple[str, str], list[float]] = {}
        self._patience_s = patience_s
        self._journal = journal
        self._routes = routes
        self._metrics = metrics
        self._wall = wall
        self._weights = Weights()
        self._unmarked: set[str] = set()
        self.on_label: Callable[[ValidatedFeedback, Mapping[str, float], Feedback], None] | None = (
            None
        )

    async def teach(
        self, items: list[Any], tenant: str | None, by: str = ADMIN
    ) -> list[dict[str, str]]:
        """Learn from each document of feedback in order; return their results.

        Yields to the event loop after each one, so a large batch delays other requests no longer
        than a single document does.
        """
        results = []
        for document in items:
            results.append(await self._taught(document, tenant, by))
            await asyncio.sleep(0)
        return results

    async def _taught(self, document: Any, tenant: str | None, by: str) -> dict[str, str]:
        decision = document.get("decision") if isinstance(document, dict) else None
        least = readback.PROBABILITY_MIN if by == GATEWAY else PROBABILITY_MIN
        try:
            if by == SIGNALS:
                await self.found(str(decision))
                result = {"result": self._scored(document)}
            else:
                feedback = parse(document, probability_min=least)
                await self.found(feedback.decision)
                result = {"result": self.take(feedback, tenant, by)}
        except BadFeedback as exc:
            result = {"result": "refused", "detail": str(exc)}
        if result["result"] == "unknown":
            result["detail"] = self.absence(str(decision))
        elif result["result"] == "unwritten":
            result["detail"] = "the journal cannot be written; send it again later"
        return {"decision": str(decision)[:64], **result}

    def _scored(self, document: Any) -> str:
        if self._signals is None:
            raise BadFeedback("this gateway does not learn from signals")
        return self._signals.take(document)

    def absence(self, decision: str) -> str:
        """Return why a decision is not found."""
        if self._journal.lacks_segment(decision):
            return (
                "the journal has no segment of this id; old ones are removed after "
                "journal.keep_days or above journal.keep_gb"
            )
        return "the journal has no decision with this id"

    async def found(self, decision: str) -> list[Row]:
        """Return a decision's rows, waiting for rows that another worker is still writing."""
        rows = self._journal.find(decision)
        if not rows and self._patience_s:
            await asyncio.sleep(self._patience_s)
            rows = self._journal.find(decision)
        return rows

    async def looked_up(self, decision: str) -> list[Row]:
        """Return a decision's own rows, read in a thread; as `found` otherwise."""
        for wait_s in (0.0, self._patience_s):
            if wait_s:
                await asyncio.sleep(wait_s)
            self._journal.flush()
            if rows := await asyncio.to_thread(self._journal.read, decision):
                return rows
        return []

    async def followed(self, rows: list[Row]) -> list[Row]:
        """Return a found decision's later rows: audits, feedback."""
        return await asyncio.to_thread(self._journal.follow, rows)

    def take(self, feedback: Feedback, tenant: str | None, by: str = ADMIN) -> str:
        """Learn from one piece of feedback; return `learned`, `duplicate`, `unknown`, `unwritten`.

        A `tenant` may only report on its own requests or on none, depending on the route; None may
        report on all. `by` is the kind of source. Raises BadFeedback if nothing can be learned.
        """
        rows = self._journal.find(feedback.decision)
        route = self._routes.get(rows[0].get("route", "")) if rows else None
        if route is None or not _may_know(route, rows, tenant, by):
            self._metrics.feedback("", "unknown")
            return "unknown"
        if route.labellers_only and by == TENANT:
            raise BadFeedback(
                f"route {route.name!r} accepts labels only from tenants with labeller = true"
            )
        reporter = f"{by}:{tenant}" if tenant is not None else by
        try:
            drawn = readback.draws(rows)
            known = qualities(route, rows, feedback)
        except BadRow as exc:
            raise BadFeedback(f"the journal's rows of this decision are damaged: {exc}") from exc
        validated = ValidatedFeedback(route, drawn, rows, known, reporter, feedback.probability)
        result = self._written(validated, feedback)
        if result == "learned":
            beliefs = self._learn(validated, feedback.decision)
            warm = is_warm_up(rows)  # no client got these answers
            if self.on_label is not None and not warm:
                self.on_label(validated, beliefs, feedback)
            if feedback.probability == 1.0 and not warm:  # audits favour doubtful answers
                answer = answered(rows)
                for backend, quality in known.items():
                    if beliefs.get(backend, 1.0) == 1.0:
                        mine = backend == answer
                        self._metrics.label(route.name, backend, quality, answered=mine)
        self._metrics.feedback(route.name, result)
        return result

    def _written(self, validated: ValidatedFeedback, feedback: Feedback) -> str:
        """Journal a piece of feedback and mark its decision; `learned` means: learn from it now."""
        decision = feedback.decision
        try:
            if decision in self._unmarked or self._journal.marked(decision):
                return "duplicate"
        except OSError:
            return "unwritten"
        if len(self._unmarked) >= UNMARKED_MAX or not self._journal.put(
            {
                "kind": "feedback",
                "id": decision,
                "time": round(self._wall(), 6),
                "route": validated.route.name,
                "tenant": validated.rows[0]["tenant"],
                "by": validated.reporter,
                "quality": validated.known.get(answered(validated.rows)),
                "known": validated.known,
                "label": feedback.label,
                "source": feedback.source,
                "probability": feedback.probability,
            }
        ):
            return "unwritten"
        self._mark(decision)
        return "learned"

    def _mark(self, decision: str) -> None:
        try:
            self._journal.mark(decision)
        except OSError:  # the row is written; the next start marks it, and until then this set does
            self._unmarked.add(decision)

    def _learn(self, validated: ValidatedFeedback, decision: str) -> dict[str, float]:
        """Learn in proportion to the belief in the source; return the belief by backend."""
        route, reporter = validated.route, validated.reporter
        kind, _, tenant = reporter.partition(":")
        share = route.traffic.share(tenant) if kind == TENANT else 1.0
        known = {backend: q for backend, q in validated.known.items() if backend in route.arms}
        expected = {
            arm: quality
            for draw in validated.drawn
            for arm, quality in zip(draw.choice.arms, draw.choice.quality_hat, strict=True)
        }
        beliefs = route.influence.believe(reporter, share, known, expected)
        weight = self._weights.weigh(route.name, reporter, validated.probability)
        teach(route, validated.drawn, validated.rows, known, weight, beliefs)
        if self._signals is not None and route.signals:
            whole = {arm: q for arm, q in known.items() if beliefs.get(arm, 1.0) == 1.0}
            by = Reporter(reporter, share)
            self._signals.label(route, decision, validated.drawn, whole, by, weight)
        if kind == TENANT and beliefs:
            self._count_aside(route.name, tenant, 1.0 - min(beliefs.values()))
        return beliefs

    def _count_aside(self, route: str, tenant: str, part: float) -> None:
        """Count a label's set-aside part; send an event if most of a tenant's labels are."""
        self._metrics.set_aside(route, tenant, part)
        counts = self._aside.setdefault((route, tenant), [0.0, 0.0])
        counts[0] += 1.0
        counts[1] += part
        if counts[0] < ASIDE_EVERY:
            return
        del self._aside[route, tenant]
        if counts[1] > ASIDE_EVERY / 2.0 and self._events is not None:
            text = (
                f"{counts[1]:.0f} of {tenant}'s last {ASIDE_EVERY} labels were ignored, because "
                "they contradict other tenants' labels or exceed its share of the traffic; if they "
                "are correct, set labeller = true on the tenant or give it a separate route"
            )
            self._events.add("labels_set_aside", route, text, tenant=tenant)

    def catch_up(
        self, folder: Path, since: Mapping[str, float], most: int = CATCH_UP_SEGMENTS_MAX
    ) -> CaughtUp:
        """Replay journalled feedback that is newer than the routes' snapshots.

        A route without a snapshot learns from everything in the newest segments, of which at most
        `most` are read. A row that cannot be learned from is skipped and counted; it never prevents
        a start.
        """
        seen: set[str] = set()
        learned = skipped = 0

        def skip(why: object = "its checksum is wrong") -> None:
            nonlocal skipped
            skipped += 1
            if skipped <= SKIPS_LOGGED_MAX:
                log.warning("skipped a journal row: %s", why)

        oldest = min(since.values(), default=0.0)
        # Each start makes a segment: those without a row must not push out others.
        recent = [
            path for path in segments(folder) if modified_s(path) >= oldest and not is_empty(path)
        ]
        for path in recent[-most:]:
            # Most rows are attempts, of which nothing is learned here: to parse them took as long
            # as all else where there are few labels.
            for row in rows(path, skip, without=("attempt", "settlement")):
                if row.get("kind") in {"feedback", "decision", "signal"}:
                    try:
                        if row["kind"] == "decision":
                            self.recount(row, since)
                        elif row["kind"] == "signal":
                            learned += self._rescored(row, since)
                        else:
                            learned += self.relearn(row, since, seen)
                    except (BadRow, KeyError, TypeError, ValueError, ArithmeticError) as exc:
                        skip(exc)
        self._metrics.rows_skipped += skipped
        return CaughtUp(learned, skipped)

    def recount(self, row: Row, since: Mapping[str, float]) -> None:
        """Count a request's first decision as traffic. Raises BadRow if the row is damaged."""
        name = readback.text(row, "route")
        route = self._routes.get(name)
        if route is None or row.get("stage") != 0 or row.get("redrawn"):
            return
        if readback.time_s(row) > since.get(name, 0.0):
            route.traffic.count(readback.text(row, "tenant"))

    def relearn(self, row: Row, since: Mapping[str, float], seen: set[str]) -> bool:
        """Learn from a feedback row unless already done. Raises BadRow if the row is damaged."""
        name, decision = readback.text(row, "route"), readback.text(row, "id")
        if readback.time_s(row) <= since.get(name, 0.0) or decision in seen:
            return False
        route, rows = self._routes.get(name), self._journal.find(decision)
        if route is None or not rows:
            return False
        known, probability = readback.known(row), readback.probability(row)
        drawn = readback.draws(rows)
        reporter = row.get("by")
        if reporter not in {ADMIN, GATEWAY} and ":" not in str(reporter):  # an older version's
            reporter = f"{TENANT}:{readback.text(row, 'tenant')}"
        seen.add(decision)
        self._mark(decision)
        validated = ValidatedFeedback(route, drawn, rows, known, str(reporter), probability)
        self._learn(validated, decision)
        return True

    def _rescored(self, row: Row, since: Mapping[str, float]) -> bool:
        """Learn from a signal row unless already done. Raises BadRow if the row is damaged."""
        if self._signals is None:
            return False
        newer = readback.time_s(row) > since.get(readback.text(row, "route"), 0.0)
        return self._signals.relearn(row, teaches=newer) and newer


def _may_know(route: RoutePlan, rows: list[Row], tenant: str | None, by: str) -> bool:
    """Return whether a source may learn that a decision exists: its own, or all of the route."""
    if tenant is None or rows[0].get("tenant") == tenant:
        return True
    return route.labellers_only and by == LABELLER


def answered(rows: Iterable[Row]) -> str:
    """Return the backend that answered the client; empty if none did."""
    good = [row["backend"] for row in rows if _replied(row)]
    return good[-1] if good else ""


def _replied(row: Row) -> bool:
    """Return whether a row is an attempt that answered the client; audits never do."""
    return row["kind"] == "attempt" and not row["error"] and not row.get("audit")


def qualities(route: RoutePlan, rows: list[Row], feedback: Feedback) -> dict[str, float]:
    """Return the quality of each backend's reply according to the feedback."""
    if feedback.quality is not None:
        return {answered(rows): feedback.quality}
    if feedback.qualities is not None:
        return _of_several(rows, feedback.qualities)
    known, reasons = {}, {}
    # A stream's answer is known at its end, which has a separate row.
    ends = {row["attempt"]: row for row in rows if row["kind"] == "settlement"}
    for row in rows:
        if row["kind"] != "attempt" or row.get("audit"):
            continue
        end = ends.get(row["attempt"], row)
        if end.get("no_answer"):
            if route.no_answer is None:
                reasons[row["backend"]] = NO_ANSWER
            else:
                known[row["backend"]] = route.no_answer
        elif _replied(row):
            try:
                known[row["backend"]] = route.score.judge(end.get("answer"), feedback.label)
            except Incomparable as exc:
                reasons[row["backend"]] = str(exc)
    # Replies that were not accepted may be incomparable; the client's reply must be comparable.
    if answered(rows) in reasons:
        raise BadFeedback(f"route {route.name!r}: {reasons[answered(rows)]}")
    if not known:
        raise BadFeedback("no backend answered this request, so there is nothing to compare")
    return known


def _of_several(rows: list[Row], given: Mapping[str, float]) -> dict[str, float]:
    """Return the qualities of the backends that replied, or that a warm-up has without calls."""
    replied = {row["backend"] for row in rows if _replied(row)}
    if is_warm_up(rows) and not replied:
        replied = {row["arm"] for row in rows if row["kind"] == "decision"}
    known = {backend: quality for backend, quality in given.items() if backend in replied}
    if not known:
        raise BadFeedback(f"none of these backends replied; those that did: {sorted(replied)}")
    return known


def is_warm_up(rows: list[Row]) -> bool:
    """Return whether a decision was made to warm a policy up, rather than for a client."""
    return rows[0].get("reason") == WARM_UP


def teach(  # noqa: PLR0917 - in the order that they are found
    route: RoutePlan,
    drawn: Iterable[Decision],
    rows: list[Row],
    known: Mapping[str, float],
    weight: float = 1.0,
    beliefs: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Update a route's policy with the qualities of a decision's replies, weighted by belief."""
    believed = {backend: beliefs.get(backend, 1.0) for backend in known}
    arms = {arm for arm, part in believed.items() if part > BELIEF_MIN and arm in route.arms}
    fallbacks = {row["backend"] for row in rows if row["kind"] == "attempt" and row["fallback"]}
    for draw in drawn:
        held, arm = draw.context.held, draw.choice.arm
        if held in arms and ACCEPT in draw.choice.arms:
            _teach(route, draw, ACCEPT, known[held], weight, believed[held])
        if arm in arms and arm not in fallbacks:
            _teach(route, draw, arm, known[arm], weight, believed[arm])


def _teach(  # noqa: PLR0917 - the port's own
    route: RoutePlan, draw: Decision, arm: str, quality: float, weight: float, belief: float
) -> None:
    if belief == 1.0:  # the common case, which also works with policies without `belief`
        route.policy.learn(draw.context, draw.choice, arm, quality, weight)
    else:
        route.policy.learn(draw.context, draw.choice, arm, quality, weight, belief=belief)
