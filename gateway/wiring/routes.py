"""Builds routes: the validators of requests and replies, the policy, and its backends."""

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tollway.backends.protocols.registry import protocol
from tollway.backends.scoring import Score, equal, unscored, within
from tollway.backends.validation import Validator
from tollway.gateway import settings as config
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.features.drift import stability
from tollway.gateway.features.extractor import FeatureExtractor
from tollway.gateway.observability.events import EventLog
from tollway.gateway.routing.backend import Backend
from tollway.gateway.routing.fallback import FallbackPlan
from tollway.gateway.routing.hedging import HedgePolicy
from tollway.gateway.routing.route import Route
from tollway.gateway.wiring.backends import build_transport
from tollway.policies.evidence.audit import Auditor
from tollway.policies.registry import build as build_policy


def build_route(
    route: config.RouteConfig, settings: config.Settings, backends: dict[str, Backend]
) -> Route:
    """Return a route over its enabled backends."""
    objective = route.to_objective()
    told = {backend.name: backend for backend in settings.backends}
    policy = "cascade" if route.cascade and route.policy == "lagrangian" else route.policy
    return Route(
        name=route.name,
        protocol=protocol(route.protocol),
        backends={
            name: on_route(backends[name], told[name], route)
            for name in route.backends
            if name in backends
        },
        objective=objective,
        # A seed per route: a snapshot can only be loaded by a policy with the same seed.
        policy=build_policy(
            policy,
            objective,
            options=route.policy_options,
            seed=zlib.crc32(route.name.encode()) & 0x7FFFFFFF,
            guard=route.guard,
        ),
        estimator=CostEstimator(),
        features=FeatureExtractor(
            numeric=route.context.numeric,
            text=route.context.text,
            categorical=route.context.categorical,
            span=route.context.range,
        ),
        score=build_score(route.score),
        labellers_only=route.feedback == "labellers",
        cascade=route.cascade,
        fallback=route.fallback,
        timeout_s=route.timeout_s,
        reply_bytes_max=settings.server.max_reply_bytes,
        auditor=build_auditor(route.audit, backends),
        reference=route.audit.backend if route.audit else "",
        models=route.models,
        request_schema=build_contract(route.request_schema, "inputs"),
        fallbacks=FallbackPlan(
            route.fallbacks,
            route.static_response.encode() if route.static_response is not None else None,
            retry_share=route.retry_share,
        ),
        hedge=HedgePolicy(route.hedge_share) if route.hedge_share else None,
        forward_headers=frozenset(name.encode() for name in route.forward_headers),
        no_answer=0.0 if route.no_answer == "wrong" else None,
    )


def on_route(
    backend: Backend, settings: config.BackendConfig, route: config.RouteConfig
) -> Backend:
    """Return a view of a backend for one route.

    The answer's path comes from the backend's settings or the route's score; rules use the protocol
    of the route. All routes share the backend's connections and circuit breaker.
    """
    scored = (route.score.exact or route.score.near) if route.score else None
    wire = protocol(
        route.protocol,
        answer=settings.answer or scored,
        confidence=settings.confidence,
        probabilities=settings.probabilities,
    )
    rules = settings.kind == "rules"
    return replace(
        backend,
        protocol=wire,
        expects=build_contract(route.response_schema, "outputs"),
        transport=build_transport(settings, wire) if rules else backend.transport,
    )


def build_contract(clauses: Sequence[config.ConstraintConfig], tensors: str) -> Validator | None:
    """Return the validator of requests or replies; None if there are no constraints."""
    return Validator([clause.to_clause() for clause in clauses], tensors) if clauses else None


def build_auditor(
    settings: config.AuditConfig | None, backends: Mapping[str, Backend]
) -> Auditor | None:
    """Return the auditor of a route; None without audits, or if their reference is disabled."""
    if settings is None or settings.backend not in backends:
        return None
    return Auditor(share=settings.share, budget_share=settings.budget_share)


def build_score(settings: config.ScoreConfig | None) -> Score:
    """Return the function that scores answers against a true label."""
    if settings is None:
        return Score(unscored)
    if settings.tolerance is not None:
        return Score(within(settings.tolerance), argmax=False)
    return Score(equal, argmax=settings.argmax)


async def look_at_inputs(routes: Mapping[str, Route], events: EventLog) -> None:
    """Compare each route's recent requests with its first, and report features that drifted."""
    for name, route in list(routes.items()):
        sample = route.inputs.sample()
        if sample is None:
            continue
        psi = await asyncio.to_thread(stability, *sample)
        features = route.inputs.found(psi)
        if features:
            worst = max(features, key=psi.__getitem__)
            text = f"features {features[:10]} are no longer as they were; {worst}: {psi[worst]:.2f}"
            events.add("inputs_drifted", name, text, features=features, psi=psi[worst])


def describe(route: Route, now_s: float) -> dict[str, Any]:
    """Return the control plane's description of a route."""
    return {
        "name": route.name,
        "protocol": route.protocol.name,
        "cascade": route.cascade,
        "objective": route.objective.kind,
        "floor": route.objective.floor,
        "policy_version": route.policy.version,
        "backends": [
            {
                "name": b.name,
                "kind": b.kind,
                "up": b.up,
                "breaker": b.breaker.state(now_s),
            }
            for b in route.backends.values()
        ],
    }
