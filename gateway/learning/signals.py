"""Learns from signals: scores of answers by hooks, judges and users' behaviour, without the truth.

A signal has a journal row of its own kind, `signal`, so that whoever reads the journal can tell it
from a true label. It is learned in proportion to what it is worth (`signal_trust`). True labels
overrule: a signal for an answer that has a label only teaches how far to trust such signals. One
tenant's answers and labels move little of what is learned for all (`signal_influence`).

Scores and labels of the same answer are paired whichever comes first, over the last PAIRS answers.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
NEGLIGIBLE = 1e-6  # belief: below it nothing is learned
ROWS_MAX = 4  # rows of signals of one decision: hooks, a judge, and what users did later

Scores = dict[str, dict[str, float]]
"""Scores by backend and signal."""


class SignalObserver(Protocol):
    """Counts what was learned from signals."""

    def signal(self, route: str, name: str, score: float) -> None:
        """Count a score."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who labelled an answer, and its share of the route's traffic: 1 for those the operator
    trusts.
    """

    name: str
    share: float


@dataclass(slots=True)
class Seen:
    """What is kept of an answer: its scores and predictions by backend, or its labels."""

    scores: Scores
    predicted: dict[str, float]
    labels: Mapping[str, float]
    reporter: Reporter | None = None
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
        learned = self._believed(route, decision, drawn, rows, scores)
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
        row["estimates"] = {
            backend: [round(one.quality, 6), round(one.belief, 6)]
            for backend, one in learned.estimates.items()
        }
        if not self._journal.put(row):
            return "unwritten"
        for backend_scores in scores.values():
            for name, score in backend_scores.items():
                self._observer.signal(route.name, name, score)
        self._learn(route, decision, drawn, scores, learned)
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
        learned = Learned({}, {})
        if teaches:
            learned = self._believed(route, decision, drawn, rows, scores)
        self._learn(route, decision, drawn, scores, learned)
        return True

    def label(  # noqa: PLR0917 - a label and its answer
        self,
        route: RoutePlan,
        decision: str,
        drawn: Sequence[Decision],
        known: Mapping[str, float],
        reporter: Reporter,
        weight: float = 1.0,
    ) -> None:
        """Learn from true labels how far to trust the signals of the same answers."""
        if not route.signals:
            return
        seen = self._keep(decision)
        seen.labels, seen.reporter = dict(known), reporter
        for backend, quality in known.items():
            if backend not in seen.scores:
                continue
            _pair(route, backend, seen.scores[backend], quality, reporter)
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

    def _believed(
        self,
        route: RoutePlan,
        decision: str,
        drawn: Sequence[Decision],
        rows: Sequence[Row],
        scores: Scores,
    ) -> "Learned":
        """Return what may be learned from scores, as far as their tenant is believed."""
        fallbacks = {row["backend"] for row in rows if row["kind"] == "attempt" and row["fallback"]}
        seen = self._seen.get(decision)
        estimates = {
            backend: estimate
            for backend, estimate in self._estimates(route, drawn, scores).items()
            if backend not in fallbacks and (seen is None or backend not in seen.labels)
        }
        anchored = {} if route.anchor in fallbacks else dict(scores.get(route.anchor, {}))
        if seen is not None:
            for name in seen.scores.get(route.anchor, {}):
                anchored.pop(name, None)
        if not estimates and not anchored:
            return Learned({}, {})
        tenant = str(rows[0]["tenant"])
        beliefs, trusted = route.signalled.scored(
            tenant,
            route.traffic.share(tenant),
            {backend: one.predicted for backend, one in estimates.items()},
            anchored,
            {backend: _expected(drawn, backend) for backend in estimates},
        )
        believed = {
            backend: replace(one, belief=one.belief * beliefs[backend])
            for backend, one in estimates.items()
            if one.belief * beliefs[backend] > NEGLIGIBLE
        }
        return Learned(believed, trusted)

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

    def _learn(
        self,
        route: RoutePlan,
        decision: str,
        drawn: Sequence[Decision],
        scores: Scores,
        learned: "Learned",
    ) -> None:
        seen = self._keep(decision)
        seen.rows += 1
        for backend, own in scores.items():
            known = seen.scores.setdefault(backend, {})
            fresh = {name: score for name, score in own.items() if name not in known}
            known.update(fresh)
            if backend in seen.labels and seen.reporter is not None:
                _pair(route, backend, fresh, seen.labels[backend], seen.reporter)
            elif (estimate := learned.estimates.get(backend)) is not None:
                seen.predicted.setdefault(backend, estimate.predicted)
                _teach(route, drawn, backend, estimate)
        for draw in drawn:
            if draw.choice.arm == route.anchor and not draw.context.held:
                anchored = {name: scores[route.anchor][name] for name in learned.anchored}
                route.trust.see(anchored, draw.choice.propensity, learned.anchored)


@dataclass(frozen=True, slots=True)
class Learned:
    """What is learned from scores: estimates by backend, and the belief in each of the anchor's."""

    estimates: Mapping[str, SignalEstimate]
    anchored: Mapping[str, float]


def _pair(
    route: RoutePlan,
    backend: str,
    scores: Mapping[str, float],
    quality: float,
    by: Reporter,
) -> None:
    """Teach how far to trust signals, if the label's reporter has not sent more than its share."""
    group = route.signalled.labelled(by.name, by.share)
    if group is not None and scores:
        route.trust.label(backend, scores, quality, route.signals, group)


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
