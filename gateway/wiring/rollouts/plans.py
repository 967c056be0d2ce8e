"""Plans of rollouts from the settings, and the splits of policies."""

import hashlib
import json

from tollway.gateway import settings as config
from tollway.gateway.rollouts.model import Criterion, Mirror, RolloutPlan, Step
from tollway.policies.split import Split
from tollway.policies.types import Policy

CRITERIA = (
    Criterion("quality", tolerance=0.005, margin=0.02, share=3.0),
    Criterion("error_rate", tolerance=0.001, margin=0.01, share=2.0),
    Criterion("invalid_rate", tolerance=0.001, margin=0.01),
    Criterion("p95_latency", tolerance=0.25, margin=0.5),
    Criterion("cost", tolerance=0.05, margin=0.15),
)
"""The criteria if none are configured; `quality` only on routes that score labels."""
BLUE_GREEN_CRITERIA = (
    Criterion("error_rate", limit=0.02, share=2.0),
    Criterion("invalid_rate", limit=0.02),
)
"""After the switch there is no stable version to compare with."""
SHARES = {"quality": 3.0, "error_rate": 2.0}
CANARY_STEPS = (Step(0.1), Step(0.5), Step(1.0))


def build_plans(settings: config.Settings) -> list[RolloutPlan]:
    """Return the plans of the configured rollouts."""
    return [build_plan(one, settings) for one in settings.rollouts]


def build_plan(one: config.RolloutConfig, settings: config.Settings) -> RolloutPlan:
    """Return the plan of a rollout."""
    routes = [
        route
        for route in settings.routes
        if one.backend in route.backends and (not one.routes or route.name in one.routes)
    ]
    mirror = one.mirror
    budget_nano = None
    if mirror is not None and mirror.budget_usd_per_hour is not None:
        budget_nano = int(mirror.budget_usd_per_hour * 1_000_000_000)
    return RolloutPlan(
        name=one.name,
        backend=one.backend,
        candidate=one.candidate_name,
        strategy=one.strategy,
        routes=tuple([route.name for route in routes]),
        sticky=one.sticky,
        steps=_steps(one),
        criteria=_criteria(one, scored=any(route.score is not None for route in routes)),
        min_s=one.min_s,
        max_s=one.max_s,
        keep_s=one.keep_s,
        alpha=one.alpha,
        failure_limit=one.failureLimit,
        inconclusive="paused" if one.inconclusive == "pause" else one.inconclusive,
        samples_min=one.min_samples,
        smoke=tuple([(request.path, request.body) for request in one.smoke]),
        mirror=None
        if one.strategy != "shadow"
        else Mirror(0.1)
        if mirror is None
        else Mirror(mirror.share, budget_nano, mirror.concurrency),
        starts=one.start == "auto",
        identity=_identity(one, settings),
    )


def _steps(one: config.RolloutConfig) -> tuple[Step, ...]:
    """Return the steps: each `setWeight` begins one, and what follows it belongs to it."""
    if one.strategy == "blue_green":
        return Step(0.0, analysis=False), Step(1.0, one.min_s)
    if one.strategy == "shadow":
        return (Step(0.0, one.min_s),)
    steps: list[Step] = []
    for written in one.steps:
        weight = steps[-1].weight if written.setWeight is None else written.setWeight / 100.0
        pause_s: float | None = 0.0
        if written.pause is not None:
            pause_s = written.pause.duration
        if written.setWeight is None and steps and steps[-1].pause_s == 0.0:
            steps[-1] = Step(weight, pause_s, steps[-1].analysis and written.analysis)
        else:
            steps.append(Step(weight, pause_s, written.analysis))
    return tuple(steps) or CANARY_STEPS


def _criteria(one: config.RolloutConfig, *, scored: bool) -> tuple[Criterion, ...]:
    if not one.criteria and one.strategy == "blue_green":
        return BLUE_GREEN_CRITERIA
    if not one.criteria:
        return tuple([each for each in CRITERIA if scored or each.metric != "quality"])
    return tuple(
        [
            Criterion(
                each.metric,
                each.tolerance,
                each.margin,
                each.limit,
                SHARES.get(each.metric, 1.0),
            )
            for each in one.criteria
        ]
    )


def _identity(one: config.RolloutConfig, settings: config.Settings) -> str:
    """Return what tells two candidates apart: both versions' servers and models."""
    known = {backend.name: backend for backend in settings.backends}
    servers = [
        [name, *(map(str, known[name].urls)), str(known[name].model)] if name in known else [name]
        for name in (one.backend, one.candidate_name)
    ]
    return hashlib.sha256(json.dumps([one.strategy, *servers]).encode()).hexdigest()[:16]


def split(policy: Policy, route: config.RouteConfig, settings: config.Settings) -> Policy:
    """Return a route's policy with the splits of its rollouts around it."""
    for one in settings.rollouts:
        chosen = not one.routes or route.name in one.routes
        if chosen and one.backend in route.backends and one.candidate_name in route.backends:
            policy = Split(policy, one.backend, one.candidate_name)
    return policy
