"""Describes a rollout for the API, the command line and the dashboard."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tollway.gateway.rollouts.controller import alarm_at
from tollway.gateway.rollouts.model import Measure, RolloutPlan, RolloutState


def describe(
    plan: RolloutPlan,
    state: RolloutState | None,
    measures: Mapping[str, Measure],
    waiting: Sequence[str],
    agreed: tuple[float, float] = (0.0, 0.0),
) -> dict[str, Any]:
    """Return a rollout as a document."""
    return {
        "name": plan.name,
        "backend": plan.backend,
        "candidate": plan.candidate,
        "strategy": plan.strategy,
        "routes": list(plan.routes),
        "sticky": plan.sticky,
        "steps": [asdict(step) for step in plan.steps],
        "phase": "idle" if state is None else state.phase,
        "step": None if state is None else state.step,
        "weight": 0.0 if state is None else state.weight,
        "run": None if state is None else state.run,
        "started_s": None if state is None else state.started_s,
        "step_since_s": None if state is None else state.since_s,
        "ended_s": None if state is None else state.ended_s,
        "failures": 0 if state is None else state.failures,
        "why": "" if state is None else state.why,
        "by": "" if state is None else state.by,
        "waiting": list(waiting),
        "agreement": agreed[1] / agreed[0] if agreed[0] else None,
        "compared": int(agreed[0]),
        "criteria": [{**asdict(one), "alarm": alarm_at(plan, one)} for one in plan.criteria],
        "measures": {name: asdict(measure) for name, measure in measures.items()},
    }
