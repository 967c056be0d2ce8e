"""Feedback: what an answer was worth becomes what the policy learns.

Feedback names a decision, whose rows are read back from the journal: the contexts, the arms offered
and the probabilities as they were drawn. So feedback may be hours late, out of order, and from
before a restart. It is learned from once; what comes again is told so.

One feedback may teach several things. A true label scores every reply that the request saw: in a
cascade also the cheap one that was passed over. A quality is that of the reply the client got.

It is checked first, then written, then marked, then learned from. Killed between any two of these,
a gateway neither loses nor doubles a label: a row that is not yet in a snapshot is learned from at
the next start, and marked then.
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
from tollway.gateway.routing.observer import EventSink, LabelObserver
from tollway.gateway.routing.request_state import Decision
from tollway.gateway.routing.route import Route
from tollway.gateway.storage.journal import Journal, segments
from tollway.gateway.storage.journal_format import Row, rows
from tollway.policies.types import ACCEPT

__all__ = ["BadFeedback", "Feedback", "FeedbackLearner", "answered", "parse", "qualities", "teach"]

log = logging.getLogger("tollway.learner")

NO_ANSWER = (
    "the reply held no answer, so a label says nothing about it; send a quality, or write "
    'no_answer = "wrong" on the route to count such replies as wrong'
)
CATCH_UP_SEGMENTS_MAX = 4  # a gigabyte at the default size: seconds at start, not minutes
BELIEF_MIN = 1e-3  # of a label: what is believed less is not worth the time
UNMARKED_MAX = 10_000  # decisions learned from that the disk would not mark: a megabyte of ids
SKIPS_LOGGED_MAX = 5  # of the rows that a start skips: they tend to be damaged alike

ADMIN, GATEWAY, LABELLER, TENANT = "admin", "gateway", "labeller", "tenant"
"""Who says what an answer was worth: the admin key, an audit, a tenant whose labels the operator
trusts, any other. A row names the tenant too: `tenant:acme`."""

ASIDE_EVERY = 100  # labels of a tenant on a route: then it is seen whether most were set aside


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What a start made of the journal's feedback: how many rows it learned from and skipped."""

    learned: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one feedback says of a decision, checked: `known` by backend, as `sync` says."""

    route: Route
    drawn: list[Decision]
    found: list[Row]
    known: Mapping[str, float]
    sync: str
    probability: float


class FeedbackLearner:
    """Takes feedback to the policies of the routes it is about."""

    # The mutable state is the labels' weights, the decisions that could not be marked, and how many
    # labels each tenant has sent on a route since that was last looked at, and of these set aside.

    def __init__(
        self,
        journal: Journal,
        routes: Mapping[str, Route],
        metrics: LabelObserver,
        wall: Callable[[], float],
        *,
        patience_s: float = 0.0,
        events: EventSink | None = None,
    ) -> None:
        """`patience_s`: how long after a reply another worker may still be writing its rows;
        `events` hear of tenants whose labels are mostly set aside.
        """
        self._events = events
        self._aside: dict[tuple[str, str], list[float]] = {}
        self._patience_s = patience_s
        self._journal = journal
        self._routes = routes
        self._metrics = metrics
        self._wall = wall
        self._weights = Weights()
        self._unmarked: set[str] = set()

    async def teach(
        self, told: list[Any], tenant: str | None, by: str = ADMIN
    ) -> list[dict[str, str]]:
        """Learn from feedback as it was sent, one after the other; return what came of each.

        The loop has its turn after each one: a call of many holds nobody up for longer than one.
        """
        results = []
        for document in told:
            results.append(await self._taught(document, tenant, by))
            await asyncio.sleep(0)
        return results

    async def _taught(self, document: Any, tenant: str | None, by: str) -> dict[str, str]:
        decision = document.get("decision") if isinstance(document, dict) else None
        least = readback.PROBABILITY_MIN if by == GATEWAY else PROBABILITY_MIN
        try:
            feedback = parse(document, probability_min=least)
            await self.found(feedback.decision)
            result = {"result": self.take(feedback, tenant, by)}
        except BadFeedback as exc:
            result = {"result": "refused", "detail": str(exc)}
        if result["result"] == "unknown":
            result["detail"] = "no decision of this id is in the journal"
        elif result["result"] == "unwritten":
            result["detail"] = "the disk refuses it; send it again later"
        return {"decision": str(decision)[:64], **result}

    async def found(self, decision: str) -> list[Row]:
        """Return a decision's rows; those that another worker is just writing are waited for."""
        found = self._journal.find(decision)
        if not found and self._patience_s:
            await asyncio.sleep(self._patience_s)
            found = self._journal.find(decision)
        return found

    async def followed(self, found: list[Row]) -> list[Row]:
        """Return the rows of a found decision that came after its own: audits, feedback."""
        return await asyncio.to_thread(self._journal.follow, found)

    def take(self, feedback: Feedback, tenant: str | None, by: str = ADMIN) -> str:
        """Learn from one feedback; return `learned`, `duplicate`, `unknown` or `unwritten`.

        `tenant` may only speak of its own requests, or of none, as the route has it; None may speak
        of all; `by` says what the teller is. BadFeedback where nothing can be learned from it.
        """
        found = self._journal.find(feedback.decision)
        route = self._routes.get(found[0].get("route", "")) if found else None
        if route is None or not _may_know(route, found, tenant, by):
            self._metrics.feedback("", "unknown")
            return "unknown"
        if route.labellers_only and by == TENANT:
            raise BadFeedback(
                f"route {route.name!r} takes labels of tenants with labeller = true only"
            )
        sync = f"{by}:{tenant}" if tenant is not None else by
        try:
            drawn = readback.draws(found)
            known = qualities(route, found, feedback)
        except BadRow as exc:
            raise BadFeedback(f"the journal's rows of this decision are damaged: {exc}") from exc
        lesson = Lesson(route, drawn, found, known, sync, feedback.probability)
        result = self._written(lesson, feedback)
        if result == "learned":
            beliefs = self._learn(lesson)
            if feedback.probability == 1.0:  # audits look where it is doubtful: no mean of them
                answer = answered(found)
                for backend, quality in known.items():
                    if beliefs.get(backend, 1.0) == 1.0:
                        mine = backend == answer
                        self._metrics.label(route.name, backend, quality, answered=mine)
        self._metrics.feedback(route.name, result)
        return result

    def _written(self, lesson: Lesson, feedback: Feedback) -> str:
        """Write a feedback down and mark its decision; return `learned` where it is to be now."""
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
                "route": lesson.route.name,
                "tenant": lesson.found[0]["tenant"],
                "by": lesson.sync,
                "quality": lesson.known.get(answered(lesson.found)),
                "known": lesson.known,
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
        except OSError:  # the row is written: the next start marks it, and until then this does
            self._unmarked.add(decision)

    def _learn(self, lesson: Lesson) -> dict[str, float]:
        """Learn as far as the teller is believed; return how far that is, by backend."""
        route, sync = lesson.route, lesson.sync
        kind, _, tenant = sync.partition(":")
        share = route.traffic.share(tenant) if kind == TENANT else 1.0
        known = {backend: q for backend, q in lesson.known.items() if backend in route.backends}
        expected = {
            arm: quality
            for draw in lesson.drawn
            for arm, quality in zip(draw.choice.arms, draw.choice.quality_hat, strict=True)
        }
        beliefs = route.influence.believe(sync, share, known, expected)
        weight = self._weights.weigh(route.name, sync, lesson.probability)
        teach(route, lesson.drawn, lesson.found, known, weight, beliefs)
        if kind == TENANT and beliefs:
            self._count_aside(route.name, tenant, 1.0 - min(beliefs.values()))
        return beliefs

    def _count_aside(self, route: str, tenant: str, part: float) -> None:
        """Count what was set aside of a label; tell of a tenant of whose labels most are."""
        self._metrics.set_aside(route, tenant, part)
        counts = self._aside.setdefault((route, tenant), [0.0, 0.0])
        counts[0] += 1.0
        counts[1] += part
        if counts[0] < ASIDE_EVERY:
            return
        del self._aside[route, tenant]
        if counts[1] > ASIDE_EVERY / 2.0 and self._events is not None:
            text = (
                f"{counts[1]:.0f} of {tenant}'s last {ASIDE_EVERY} labels were set aside: they "
                "differ from the others', or are more than its share of the traffic; mark it "
                "labeller = true if they are right, or give it a route of its own"
            )
            self._events.add("labels_set_aside", route, text, tenant=tenant)

    def catch_up(
        self, folder: Path, since: Mapping[str, float], most: int = CATCH_UP_SEGMENTS_MAX
    ) -> CaughtUp:
        """Learn again from journalled feedback that is newer than the routes' snapshots.

        A route without a snapshot learns from all that the newest segments hold, of which at most
        `most` are read. A row that cannot be learned from is skipped and counted: it never stops a
        start.
        """
        seen: set[str] = set()
        learned = skipped = 0

        def skip(why: object = "its checksum is wrong") -> None:
            nonlocal skipped
            skipped += 1
            if skipped <= SKIPS_LOGGED_MAX:
                log.warning("a row of the journal is skipped: %s", why)

        oldest = min(since.values(), default=0.0)
        recent = [path for path in segments(folder) if path.stat().st_mtime >= oldest]
        for path in recent[-most:]:
            for row in rows(path, skip):
                if row.get("kind") in {"feedback", "decision"}:
                    try:
                        if row["kind"] == "decision":
                            self.recount(row, since)
                        else:
                            learned += self.relearn(row, since, seen)
                    except (BadRow, KeyError, TypeError, ValueError, ArithmeticError) as exc:
                        skip(exc)
        self._metrics.rows_skipped += skipped
        return CaughtUp(learned, skipped)

    def recount(self, row: Row, since: Mapping[str, float]) -> None:
        """Count a request's first draw as traffic; BadRow where it cannot be."""
        name = readback.text(row, "route")
        route = self._routes.get(name)
        if route is None or row.get("stage") != 0 or row.get("redrawn"):
            return
        if readback.time_s(row) > since.get(name, 0.0):
            route.traffic.count(readback.text(row, "tenant"))

    def relearn(self, row: Row, since: Mapping[str, float], seen: set[str]) -> bool:
        """Learn from a feedback's row, unless that was done; BadRow where it cannot be."""
        name, decision = readback.text(row, "route"), readback.text(row, "id")
        if readback.time_s(row) <= since.get(name, 0.0) or decision in seen:
            return False
        route, found = self._routes.get(name), self._journal.find(decision)
        if route is None or not found:
            return False
        known, probability = readback.known(row), readback.probability(row)
        drawn = readback.draws(found)
        sync = row.get("by")
        if sync not in {ADMIN, GATEWAY} and ":" not in str(sync):  # an older version's
            sync = f"{TENANT}:{readback.text(row, 'tenant')}"
        seen.add(decision)
        self._mark(decision)
        self._learn(Lesson(route, drawn, found, known, str(sync), probability))
        return True


def _may_know(route: Route, found: list[Row], tenant: str | None, by: str) -> bool:
    """Whether a teller may know that a decision was made: its own, or every one of the route."""
    if tenant is None or found[0].get("tenant") == tenant:
        return True
    return route.labellers_only and by == LABELLER


def answered(found: Iterable[Row]) -> str:
    """Return the backend whose reply the client got; empty where it got none."""
    good = [row["backend"] for row in found if _replied(row)]
    return good[-1] if good else ""


def _replied(row: Row) -> bool:
    """Whether a row is of an attempt that brought the client an answer; an audit is for none."""
    return row["kind"] == "attempt" and not row["error"] and not row.get("audit")


def qualities(route: Route, found: list[Row], feedback: Feedback) -> dict[str, float]:
    """Return the quality of each backend's reply that a feedback tells."""
    if feedback.quality is not None:
        return {answered(found): feedback.quality}
    known, reasons = {}, {}
    # A stream's answer is known at its end, which is a row of its own.
    ends = {row["attempt"]: row for row in found if row["kind"] == "settlement"}
    for row in found:
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
                known[row["backend"]] = route.score.judge(end["answer"], feedback.label)
            except Incomparable as exc:
                reasons[row["backend"]] = str(exc)
    # Of the replies that were passed over some may be judged and others not; the client's must be.
    if answered(found) in reasons:
        raise BadFeedback(f"route {route.name!r}: {reasons[answered(found)]}")
    if not known:
        raise BadFeedback("no backend answered this request, so there is nothing to compare")
    return known


def teach(  # noqa: PLR0917 - in the order that they are found
    route: Route,
    drawn: Iterable[Decision],
    found: list[Row],
    known: Mapping[str, float],
    weight: float = 1.0,
    beliefs: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Have a route's policy learn what a decision's replies were worth, as far as believed."""
    believed = {backend: beliefs.get(backend, 1.0) for backend in known}
    arms = {arm for arm, part in believed.items() if part > BELIEF_MIN and arm in route.backends}
    fallbacks = {row["backend"] for row in found if row["kind"] == "attempt" and row["fallback"]}
    for draw in drawn:
        held, arm = draw.context.held, draw.choice.arm
        if held in arms and ACCEPT in draw.choice.arms:
            _teach(route, draw, ACCEPT, known[held], weight, believed[held])
        if arm in arms and arm not in fallbacks:
            _teach(route, draw, arm, known[arm], weight, believed[arm])


def _teach(  # noqa: PLR0917 - the port's own
    route: Route, draw: Decision, arm: str, quality: float, weight: float, belief: float
) -> None:
    if belief == 1.0:  # nearly always, and policies that know of no belief serve
        route.policy.learn(draw.context, draw.choice, arm, quality, weight)
    else:
        route.policy.learn(draw.context, draw.choice, arm, quality, weight, belief=belief)
