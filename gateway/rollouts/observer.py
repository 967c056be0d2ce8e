"""Observes requests and labels for rollouts: which version answered, and how.

Only draws of the policy count: a fallback was not chosen, and a request that a version's failure
sent elsewhere counts as that failure. What is not the backend's fault counts as nothing: a client
that left or set a deadline, a request that the client got wrong.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from tollway.backends.money import to_usd
from tollway.gateway.learning.feedback import Feedback, ValidatedFeedback
from tollway.gateway.rollouts.keys import cluster, tenant_group
from tollway.gateway.rollouts.rollout import Rollout
from tollway.gateway.rollouts.service import Rollouts
from tollway.gateway.routing.metering import GIVEN_UP, PENDING, VOID
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.request_state import Attempt, RequestState

CLIENT_ERRORS = range(400, 500)
TOO_MANY = 429
AUDIT_FLOOR = 0.01
"""Audits favour doubtful answers. Each is counted with the probability AUDIT_FLOOR / its own, so
that those counted are a sample of all answers."""


class RolloutObserver:
    """Feeds the collectors of a process' rollouts."""

    # The mutable state is that of the rollouts' collectors.

    def __init__(self, rollouts: Rollouts, rng: Random) -> None:
        """`rng` chooses the audits that count."""
        self._rollouts = rollouts
        self._rng = rng
        self.shadow: Callable[[RoutePlan, str, Any], None] | None = None

    def ended(self, state: RequestState, now_s: float) -> None:
        """Count a finished request (0.1 us on a route without a rollout)."""
        bound = self._rollouts.routes.get(state.inference.route.name)
        if bound is None:
            return
        for draw in state.draws:
            arm = draw.choice.arm
            for binding in bound.bindings:
                if arm in {binding.plan.backend, binding.plan.candidate}:
                    one = self._rollouts.rollouts[binding.plan.name]
                    if one.state is not None and one.state.is_watched:
                        first = next((a for a in state.attempts if a.backend == arm), None)
                        if first is not None and not first.fallback:
                            count(one, state, first, arm == binding.plan.candidate)

    def labelled(
        self, validated: ValidatedFeedback, beliefs: Mapping[str, float], feedback: Feedback
    ) -> None:
        """Count a label of a decision's answers as far as its sender is believed.

        The rest of it is what the policy expected of both versions. Leaving out what is not fully
        believed would choose among labels by their values: those far from the usual are doubted.
        """
        bound = self._rollouts.routes.get(validated.route.name)
        if bound is None:
            return
        probability = validated.probability
        if probability < 1.0 and self._rng.random() >= AUDIT_FLOOR / probability:
            return
        if self.shadow is not None and min(beliefs.values(), default=1.0) == 1.0:
            self.shadow(validated.route, feedback.decision, feedback.label)
        for row in validated.rows:
            if row["kind"] != "decision" or row["redrawn"] or row["arm"] not in validated.known:
                continue
            for binding in bound.bindings:
                arm = row["arm"]
                if arm not in {binding.plan.backend, binding.plan.candidate}:
                    continue
                one = self._rollouts.rollouts[binding.plan.name]
                if one.state is None or row["time"] < one.state.started_s:
                    continue
                belief = beliefs.get(arm, 1.0)
                if belief <= 0.0 or not one.state.is_watched:
                    continue
                one.collector.label(
                    arm == binding.plan.candidate,
                    cluster(row.get("unit", -1.0), row["id"]),
                    shrunk(validated, arm, belief),
                    value_usd=validated.route.objective.value_per_correct_usd,
                    cost_usd=_cost_usd(validated.rows, arm),
                    group=tenant_group(one.state.salt, row["tenant"]),
                )


def count(one: Rollout, state: RequestState, attempt: Attempt, candidate: bool) -> None:
    """Count a version's attempt, if it says anything about the version."""
    outcome, inference = attempt.outcome, state.inference
    salt = "" if one.state is None else one.state.salt
    if outcome.error in GIVEN_UP or outcome.provenance == PENDING:
        return
    failed = bool(outcome.error) or attempt.status >= 500
    rejected = not failed and attempt.status in CLIENT_ERRORS and attempt.status != TOO_MANY
    if rejected and state.context.unit >= 0.0:
        return  # clients choose their keys, and so which version sees their mistakes
    if failed and inference.client_deadline and not attempt.status:
        return  # the client's time was up
    one.collector.request(
        candidate,
        cluster(state.context.unit, state.id),
        failed=failed and not outcome.forbidden,
        invalid=outcome.forbidden or bool(outcome.no_answer),
        latency_s=attempt.latency_s,
        cost_nano=outcome.cost_nano,
        answer=outcome.answer.value,
        ran=outcome.provenance != VOID,
        rejected=rejected,
        group=tenant_group(salt, inference.tenant),
    )


def shrunk(validated: ValidatedFeedback, arm: str, belief: float) -> float:
    """Return a label's quality, moved to what was expected of the arm by the doubt in the label."""
    quality = validated.known[arm]
    if belief >= 1.0:
        return quality
    expected = quality
    for draw in validated.drawn:
        if arm in draw.choice.arms:
            expected = draw.choice.quality_hat[draw.choice.arms.index(arm)]
    return belief * quality + (1.0 - belief) * min(max(expected, 0.0), 1.0)


def _cost_usd(rows: list[dict[str, Any]], arm: str) -> float:
    """Return what a decision's calls to a backend have cost."""
    return to_usd(
        sum(
            row["cost_nano"]
            for row in rows
            if row["kind"] in {"attempt", "settlement"} and row["backend"] == arm
        )
    )
