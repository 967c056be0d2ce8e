"""Learns from signals: scores of answers by hooks, judges and users' behaviour, without the truth.

A signal has a journal row of its own kind, `signal`, so that whoever reads the journal can tell it
from a true label. It is learned in proportion to what it is worth (`signal_trust`). True labels
overrule: a signal for an answer that has a label only teaches how far to trust such signals.

Scores and labels of the same answer are paired whichever comes first, over the last PAIRS answers.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tollway.gateway.learning import readback
from tollway.gateway.learning.feedback_items import BadFeedback, check_quality
from tollway.gateway.learning.readback import BadRow
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.request_state import Decision
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.journal_format import Row
from tollway.policies.evidence.signal_trust import SignalEstimate
from tollway.policies.types import ACCEPT, LearnsSignals

SIGNALS = "signals"
"""The source of signals, in journal rows and between workers."""

PAIRS = 20_000  # answers whose scores or labels are kept for each other: ten megabytes
ROWS_MAX = 4  # rows of signals of one decision: hooks, a judge, and what users did later

Scores = dict[str, dict[str, float]]
"""Scores by backend and signal."""


class SignalObserver(Protocol):
    """Counts what was learned from signals."""

    def signal(self, route: str, name: str, score: float) -> None:
        """Count a score."""


@dataclass(slots=True)
class Seen:
    """What is kept of an answer: its scores and predictions by backend, or its labels."""

    scores: Scores
    predicted: dict[str, float]
    labels: Mapping[str, float]
    rows: int = 0


class SignalLearner:
    """Applies signals to the policies of their routes."""

    # The mutable state is the recent answers with scores or labels.

    def __init__(
        self,
        journal: Journal,
        routes: Mapping[str, RoutePlan],
        observer: SignalObserver,
        wall: Callable[[], float],
    ) -> None:
        self._journal = journal
        self._routes = routes
        self._observer = observer
        self._wall = wall
        self._seen: OrderedDict[str, Seen] = OrderedDict()

    def take(self, document: Any) -> str:
        """Learn from the scores of a decision's replies; return `learned`, `unknown`, `unwritten`.

        `document` has `decision` and `scores`. Raises BadFeedback if it is malformed.
        """
        decision, scores = _parsed(document)
        rows = self._journal.find(decision)
        route = self._routes.get(rows[0].get("route", "")) if rows else None
        if route is None:
            return "unknown"
        if (seen := self._seen.get(decision)) is not None and seen.rows >= ROWS_MAX:
            return "duplicate"
        try:
            drawn = readback.draws(rows)
        except BadRow as exc:
            raise BadFeedback(f"the journal's rows of this decision are damaged: {exc}") from exc
        row = {
            "kind": "signal",
            "id": decision,
            "time": round(self._wall(), 6),
            "route": route.name,
            "tenant": rows[0]["tenant"],
            "by": "gateway",
            "source": SIGNALS,
            "scores": scores,
        }
        estimates = self._estimates(route, drawn, scores)
        row["estimates"] = {
            backend: [round(one.quality, 6), round(one.belief, 6)]
            for backend, one in estimates.items()
        }
        if not self._journal.put(row):
            return "unwritten"
        for backend_scores in scores.values():
            for name, score in backend_scores.items():
                self._observer.signal(route.name, name, score)
        self._learn(route, decision, drawn, rows, scores, estimates)
        return "learned"

    def relearn(self, row: Row, *, teaches: bool = True) -> bool:
        """Learn from a journal row; only pair it with labels unless `teaches`.

        Raises BadRow if it is damaged.
        """
        decision = readback.text(row, "id")
        route, rows = self._routes.get(readback.text(row, "route")), self._journal.find(decision)
        if route is None or not rows:
            return False
        try:
            _, scores = _parsed({"decision": decision, "scores": row.get("scores")})
        except BadFeedback as exc:
            raise BadRow(f"a signal row is damaged: {exc}") from exc
        drawn = readback.draws(rows)
        estimates = self._estimates(route, drawn, scores)
        self._learn(route, decision, drawn, rows, scores, estimates, teaches=teaches)
        return True

    def label(
        self,
        route: RoutePlan,
        decision: str,
        drawn: Sequence[Decision],
        known: Mapping[str, float],
        weight: float = 1.0,
    ) -> None:
        """Learn from true labels how far to trust the signals of the same answers."""
        if not route.signals:
            return
        seen = self._keep(decision)
        seen.labels = dict(known)
        for backend, quality in known.items():
            if backend not in seen.scores:
                continue
            self._pair(route, backend, seen.scores[backend], quality)
            if isinstance(route.policy, LearnsSignals) and backend in seen.predicted:
                for draw in drawn:
                    if draw.choice.arm == backend:
                        predicted = seen.predicted[backend]
                        route.policy.rectify(draw.choice, backend, quality, predicted, weight)

    def _keep(self, decision: str) -> Seen:
        seen = self._seen.get(decision)
        if seen is None:
            if len(self._seen) >= PAIRS:
                self._seen.popitem(last=False)
            seen = self._seen[decision] = Seen({}, {}, {})
        return seen

    @staticmethod
    def _pair(route: RoutePlan, backend: str, scores: Mapping[str, float], quality: float) -> None:
        route.trust.label(backend, scores, quality, route.signals, route.anchor_quality)

    @staticmethod
    def _estimates(
        route: RoutePlan, drawn: Sequence[Decision], scores: Scores
    ) -> dict[str, SignalEstimate]:
        """Return what the signals say, by backend, without those that say nothing."""
        estimates = {}
        for backend, own in scores.items():
            estimate = route.trust.estimate(
                backend,
                own,
                route.signals,
                _expected(drawn, backend),
                route.anchor_quality,
                is_anchor=backend == route.anchor,
            )
            if estimate is not None:
                estimates[backend] = estimate
        return estimates

    def _learn(  # noqa: PLR0917 - in the order that they are found
        self,
        route: RoutePlan,
        decision: str,
        drawn: Sequence[Decision],
        rows: Sequence[Row],
        scores: Scores,
        estimates: Mapping[str, SignalEstimate],
        *,
        teaches: bool = True,
    ) -> None:
        seen = self._keep(decision)
        seen.rows += 1
        fallbacks = {row["backend"] for row in rows if row["kind"] == "attempt" and row["fallback"]}
        for backend, own in scores.items():
            known = seen.scores.setdefault(backend, {})
            fresh = {name: score for name, score in own.items() if name not in known}
            known.update(fresh)
            if backend in seen.labels:
                self._pair(route, backend, fresh, seen.labels[backend])
            elif teaches and backend in estimates and backend not in fallbacks:
                seen.predicted.setdefault(backend, estimates[backend].predicted)
                _teach(route, drawn, backend, estimates[backend])
            if teaches and backend == route.anchor and backend not in fallbacks:
                for draw in drawn:
                    if draw.choice.arm == backend and not draw.context.held:
                        route.trust.see(fresh, draw.choice.propensity)


def _teach(
    route: RoutePlan, drawn: Sequence[Decision], backend: str, estimate: SignalEstimate
) -> None:
    """Update a route's policy with an estimate of a reply's quality."""
    policy = route.policy
    if not isinstance(policy, LearnsSignals):
        return
    for draw in drawn:
        if draw.context.held == backend and ACCEPT in draw.choice.arms:
            policy.learn_signal(draw.context, draw.choice, ACCEPT, estimate)
        if draw.choice.arm == backend:
            policy.learn_signal(draw.context, draw.choice, backend, estimate)


def _expected(drawn: Sequence[Decision], backend: str) -> float:
    """Return the quality that the policy expected of a backend's reply; a half if none."""
    for draw in drawn:
        if backend in draw.choice.arms:
            return draw.choice.quality_hat[draw.choice.arms.index(backend)]
    return 0.5


def _parsed(document: Any) -> tuple[str, Scores]:
    """Return (decision, scores). Raises BadFeedback."""
    if not isinstance(document, dict) or not isinstance(document.get("decision"), str):
        raise BadFeedback("a signal without a decision")
    by_backend = document.get("scores")
    if not isinstance(by_backend, Mapping) or not by_backend:
        raise BadFeedback("a signal without scores")
    scores: Scores = {}
    for backend, own in by_backend.items():
        if not isinstance(own, Mapping):
            raise BadFeedback("a signal whose scores are not by name")
        scores[str(backend)] = {str(name): check_quality(score) for name, score in own.items()}
    return document["decision"], scores
