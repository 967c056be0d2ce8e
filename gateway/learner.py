"""Feedback: what an answer was worth becomes what the policy learns.

Feedback names a decision, whose rows are read back from the journal: the contexts, the arms offered
and the probabilities as they were drawn. So feedback may be hours late, out of order, and from
before a restart. It is learned from once; what comes again is told so.

One feedback may teach several things. A true label scores every reply that the request saw: in a
cascade also the cheap one that was passed over. A quality is that of the reply the client got.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.journal import Journal, Row, rows, segments
from gateway.metrics import Metrics
from gateway.route import Route
from gateway.turn import contexts
from policies.types import ACCEPT

CATCH_UP_SEGMENTS_MAX = 4  # a gigabyte at the default size: seconds at start, not minutes


_MEMBERS = {"decision", "quality", "correct", "label", "source", "probability"}
WEIGHT_MAX = 4.0  # a label that was unlikely to be asked for counts for at most so many
WEIGHT_RATE = 0.05  # of the mean that weights are relative to: about the last twenty labels


class BadFeedback(ValueError):  # noqa: N818 - reads as what happened
    """Feedback that says nothing that can be learned; the message says what to send."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a client says of an answer: exactly one of a quality and a true label.

    `probability`: with which this answer was chosen to be judged.
    """

    decision: str
    quality: float | None = None
    label: Any = None
    source: str = ""
    probability: float = 1.0


def parse(document: Any) -> Feedback:
    """Read one feedback; BadFeedback says what is wrong with it."""
    if not isinstance(document, dict) or not isinstance(document.get("decision"), str):
        raise BadFeedback('send {"decision": "<id>"} with one of quality, correct, label')
    unknown = document.keys() - _MEMBERS
    if unknown:
        raise BadFeedback(f"unknown member {min(unknown)!r}; send quality, correct or label")
    return replace(_told(document), probability=_probability(document.get("probability", 1.0)))


def _probability(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise BadFeedback("probability must be a number above 0 and up to 1")
    return float(value)


def _told(document: dict[str, Any]) -> Feedback:
    told = [name for name in ("quality", "correct", "label") if document.get(name) is not None]
    if len(told) != 1:
        raise BadFeedback(f"send exactly one of quality, correct and label, not {told or 'none'}")
    source = document.get("source", "")
    if not isinstance(source, str) or len(source) > 64:
        raise BadFeedback("source must be a text of at most 64 characters")
    value = document[told[0]]
    if told[0] == "label":
        return Feedback(document["decision"], label=value, source=source)
    if told[0] == "correct":
        if not isinstance(value, bool):
            raise BadFeedback("correct must be true or false")
        return Feedback(document["decision"], quality=float(value), source=source)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise BadFeedback("quality must be a number from 0 to 1")
    return Feedback(document["decision"], quality=float(value), source=source)


class Learner:
    """Takes feedback to the policies of the routes it is about."""

    # The mutable state is, by route, the mean of 1 / probability of the labels lately.

    def __init__(
        self,
        journal: Journal,
        routes: Mapping[str, Route],
        metrics: Metrics,
        wall: Callable[[], float],
        *,
        patience_s: float = 0.0,
    ) -> None:
        """`patience_s`: how long after a reply another worker may still be writing its rows."""
        self._patience_s = patience_s
        self._journal = journal
        self._routes = routes
        self._metrics = metrics
        self._wall = wall
        self._odds: dict[str, float] = {}

    async def teach(self, told: list[Any], tenant: str | None) -> list[dict[str, str]]:
        """Learn from feedback as it was sent, one after the other; return what came of each."""
        return [await self._taught(document, tenant) for document in told]

    async def _taught(self, document: Any, tenant: str | None) -> dict[str, str]:
        decision = document.get("decision") if isinstance(document, dict) else None
        try:
            feedback = parse(document)
            await self.found(feedback.decision)
            result = {"result": self.take(feedback, tenant)}
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

    def take(self, feedback: Feedback, tenant: str | None) -> str:
        """Learn from one feedback; return `learned`, `duplicate`, `unknown` or `unwritten`.

        `tenant` may only speak of its own requests; None may speak of all. BadFeedback where a
        label is sent and the route was not told how to score one.
        """
        found = self._journal.find(feedback.decision)
        route = self._routes.get(found[0]["route"]) if found else None
        if route is None or (tenant is not None and found[0]["tenant"] != tenant):
            self._metrics.feedback("", "unknown")
            return "unknown"
        known = qualities(route, found, feedback)
        try:
            first = self._journal.mark(feedback.decision)
        except OSError:  # learned from unmarked, it would be learned from as often as it is sent
            self._metrics.feedback(route.name, "unwritten")
            return "unwritten"
        if not first:
            self._metrics.feedback(route.name, "duplicate")
            return "duplicate"
        self._journal.append(
            {
                "kind": "feedback",
                "id": feedback.decision,
                "time": round(self._wall(), 6),
                "route": route.name,
                "tenant": found[0]["tenant"],
                "quality": known.get(answered(found)),
                "known": known,
                "label": feedback.label,
                "source": feedback.source,
                "probability": feedback.probability,
            }
        )
        teach(route, found, known, self._weight(route.name, feedback.probability))
        if feedback.probability == 1.0:  # audits look where it is doubtful: no mean is made of them
            answer = answered(found)
            for backend, quality in known.items():
                self._metrics.label(route.name, backend, quality, answered=backend == answer)
        self._metrics.feedback(route.name, "learned")
        return "learned"

    def catch_up(
        self, folder: Path, since: Mapping[str, float], most: int = CATCH_UP_SEGMENTS_MAX
    ) -> int:
        """Learn again from journalled feedback that is newer than the routes' snapshots.

        Returns how many. A route without a snapshot learns from all that the newest segments hold,
        of which at most `most` are read.
        """
        count = 0
        oldest = min(since.values(), default=0.0)
        recent = [path for path in segments(folder) if path.stat().st_mtime >= oldest]
        for path in recent[-most:]:
            for row in rows(path):
                if row.get("kind") != "feedback" or row["time"] <= since.get(row["route"], 0.0):
                    continue
                route, found = self._routes.get(row["route"]), self._journal.find(row["id"])
                if route is not None and found:
                    weight = self._weight(route.name, row.get("probability", 1.0))
                    teach(route, found, row["known"], weight)
                    count += 1
        return count

    def _weight(self, route: str, probability: float) -> float:
        """Return for how many answers a label stands, relative to the route's other labels."""
        odds = 1.0 / probability
        mean = self._odds.get(route, odds)
        self._odds[route] = mean + WEIGHT_RATE * (odds - mean)
        return min(odds / mean, WEIGHT_MAX)


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
    known = {}
    for row in found:
        if _replied(row):
            quality = route.score(row["answer"], feedback.label)
            if quality is None or not math.isfinite(quality):
                raise BadFeedback(
                    f"route {route.name!r} cannot score a label; send a quality, or add a score "
                    "to the route in the config"
                )
            known[row["backend"]] = quality
    return known


def teach(route: Route, found: list[Row], known: Mapping[str, float], weight: float = 1.0) -> None:
    """Have a route's policy learn what a decision's replies were worth."""
    arms = {backend for backend in known if backend in route.backends}
    fallbacks = {row["backend"] for row in found if row["kind"] == "attempt" and row["fallback"]}
    for draw in contexts(found):
        held, arm = draw.context.held, draw.choice.arm
        if held in arms and ACCEPT in draw.choice.arms:
            route.policy.learn(draw.context, draw.choice, ACCEPT, known[held], weight)
        if arm in arms and arm not in fallbacks:
            route.policy.learn(draw.context, draw.choice, arm, known[arm], weight)
