"""Builds routes: the validators of requests and replies, the policy, and its backends."""

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from tollway.backends.price import Price
from tollway.backends.protocols.registry import ANY_REPLY, protocol
from tollway.backends.scoring import Score, equal, unscored, within
from tollway.backends.validation import Validator
from tollway.gateway import settings as config
from tollway.gateway.features import embedding
from tollway.gateway.features.drift import InputDrift, stability
from tollway.gateway.features.embedding import StaticEmbedding
from tollway.gateway.features.extractor import FeatureExtractor
from tollway.gateway.features.online.lookup import FeatureLookup
from tollway.gateway.features.text_features import TextFeatures
from tollway.gateway.observability.events import EventLog
from tollway.gateway.routing.fallback import FallbackPlan, RetryBudget
from tollway.gateway.routing.hedging import HedgePolicy
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.state import RouteState
from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.wiring.backends import build_backend, build_transport
from tollway.gateway.wiring.caching import build_cache_plan
from tollway.gateway.wiring.features import joined_numbers, route_features, seen_of
from tollway.gateway.wiring.rollouts.plans import split
from tollway.gateway.wiring.signals.priors import anchor, priors
from tollway.gateway.wiring.states import Stage, States
from tollway.policies import cached_answers
from tollway.policies.evidence.audit import Auditor
from tollway.policies.registry import build as build_policy
from tollway.policies.types import Policy

BYTES_A_TOKEN = 4  # of text: three to five in most scripts
NO_PRICES: Mapping[str, Price] = {}
NO_LOOKUPS: Mapping[str, FeatureLookup] = {}


def build_plans(
    settings: config.Settings,
    events: EventLog,
    stage: Stage,
    device_prices: Mapping[str, Price] = NO_PRICES,
    lookups: Mapping[str, FeatureLookup] = NO_LOOKUPS,
) -> tuple[dict[str, Target], dict[str, RoutePlan]]:
    """Return the enabled backends and the routes, by name, which go on from the staged state.

    `device_prices`: the prices of the backends that run on devices. `lookups`: the groups of
    features from outside.
    """
    most = settings.server.max_reply_bytes
    scaled = {one.name: one for one in settings.scaling if one.kind == "backend"}
    backends = {
        b.name: build_backend(
            b,
            events.add,
            stage,
            reply_bytes_max=most,
            device_price=device_prices.get(b.name),
            scaling=scaled.get(b.name),
        )
        for b in settings.backends
        if b.enabled
    }
    routes = {
        r.name: build_route(r, settings, backends, events, stage, lookups) for r in settings.routes
    }
    return backends, routes


def build_route(  # noqa: PLR0917 - the parts in the order they are built
    route: config.RouteConfig,
    settings: config.Settings,
    backends: dict[str, Target],
    events: EventLog | None = None,
    stage: Stage | None = None,
    lookups: Mapping[str, FeatureLookup] = NO_LOOKUPS,
) -> RoutePlan:
    """Return a route over its enabled backends.

    `stage` has the state to go on from. `events` is told if a policy cannot go on from it.
    """
    stage = stage or States().stage()
    tables = {backend.name: backend for backend in settings.backends}
    seen = stage.get(
        ("route", route.name, "features"),
        seen_of(route, settings),
        lambda: (build_features(route.context, joined_numbers(route, settings)), InputDrift()),
    )
    counts = stage.get(("route", route.name, "counts"), None, RouteState)
    texts = route.text_confidence
    stage.at_commit(partial(forget_others, counts, route, settings, stage))
    online = route_features(route, settings, lookups)
    return RoutePlan(
        name=route.name,
        protocol=protocol(route.protocol, **options(route)),
        backends={
            name: on_route(backends[name], tables[name], route)
            for name in route.backends
            if name in backends
        },
        objective=route.to_objective(),
        policy=split(staged_policy(route, settings, stage, events), route, settings),
        state=counts,
        features=seen[0],
        inputs=seen[1],
        score=build_score(route.score),
        labellers_only=route.feedback == "labellers",
        cascade=route.cascade,
        texts=None if texts is None else TextFeatures(verifies=texts.verifier is not None),
        hold_bytes=0 if texts is None else texts.hold_tokens * BYTES_A_TOKEN,
        fallback=route.fallback,
        timeout_s=route.timeout_s,
        reply_bytes_max=settings.server.max_reply_bytes,
        auditor=staged_auditor(route, backends, stage),
        reference=route.audit.backend if route.audit else "",
        models=route.models,
        request_schema=build_contract(route.request_schema, "inputs"),
        fallbacks=FallbackPlan(
            route.fallbacks,
            route.static_response.encode() if route.static_response is not None else None,
        ),
        retries=RetryBudget(route.retry_share, counts.retries),
        hedge=HedgePolicy(route.hedge_share, counts.hedging) if route.hedge_share else None,
        forward_headers=frozenset(name.encode() for name in route.forward_headers),
        no_answer=0.0 if route.no_answer == "wrong" else None,
        online=online,
        embeds=route.context.embedding_backend in backends,
        verifies=texts is not None and texts.verifier in backends,
        cache=build_cache_plan(route, settings, stage, online),
        signals=priors(route),
        anchor=anchor(route, backends),
        is_guarded=bool(route.guards),
    )


def forget_others(
    counts: RouteState, route: config.RouteConfig, settings: config.Settings, stage: Stage
) -> None:
    """Drop what was counted and estimated of backends and budgets that are no more.

    How long to wait before hedging was learned of a server, so it is dropped with that server.
    """
    counts.estimator.keep([backend.name for backend in settings.backends])
    counts.hedging.keep([b for b in route.backends if stage.is_kept(("backend", b, "health"))])
    for gone in counts.bound.keys() - {budget.name for budget in settings.budgets}:
        del counts.bound[gone]


def build_features(context: config.FeaturesConfig, joined: int = 0) -> FeatureExtractor:
    """Return the extractor of a route's features; `joined` numbers come from outside."""
    return FeatureExtractor(
        numeric=context.numeric,
        text=context.text,
        categorical=context.categorical,
        span=context.range,
        joined=joined,
        embed=None if context.embedding is None else static_embedding(context.embedding),
        embedded=context.embedding_backend is not None,
    )


@cache
def static_embedding(name: str) -> StaticEmbedding:
    """Return a static model, which all routes share: 8 MB. Raises ConfigError."""
    try:
        return embedding.load(name)
    except embedding.NoModel as exc:
        raise ConfigError([Problem("", "routes.context.embedding", str(exc))]) from None


def staged_policy(
    route: config.RouteConfig, settings: config.Settings, stage: Stage, events: EventLog | None
) -> Policy:
    """Return a route's policy: the present one, or a new one that goes on from what it learned.

    If the route's features change, what was learned of the old ones is of no use.
    """

    def make() -> Policy:
        name = "cascade" if route.cascade and route.policy == "lagrangian" else route.policy
        policy = build_policy(
            name,
            route.to_objective(),
            options=route.policy_options,
            # A seed per route: a snapshot can only be loaded by a policy with the same seed.
            seed=zlib.crc32(route.name.encode()) & 0x7FFFFFFF,
            guard=route.guard,
            embedded=route.context.is_embedded,
        )
        if route.cache is None:
            return policy
        return cached_answers.CachedAnswers(
            policy, fresh_share=route.cache.fresh_share, is_cascade=route.cascade
        )

    def succeed(new: Policy, old: Policy) -> None:
        if not stage.is_kept(("route", route.name, "features")):
            return
        try:
            state = old.save()
            new.load(state if route.cache is not None else cached_answers.inside(state))
        except (ValueError, KeyError, TypeError, OSError):  # OSError: a regressor was not written
            if events is not None:
                events.add(
                    "learning_restarted",
                    route.name,
                    "the new policy cannot read the learned state and starts untrained",
                )

    share = None if route.cache is None else route.cache.fresh_share
    identity = seen_of(route, settings), route.of(*route.POLICY), share
    return stage.get(("route", route.name, "policy"), identity, make, succeed=succeed)


def staged_auditor(
    route: config.RouteConfig, backends: Mapping[str, Target], stage: Stage
) -> Auditor | None:
    """Return a route's auditor; None without audits, or if their reference is disabled."""
    audit = route.audit
    if audit is None or audit.backend not in backends:
        return None
    return stage.get(
        ("route", route.name, "auditor"),
        audit.backend,
        lambda: Auditor(share=audit.share, budget_share=audit.budget_share),
        revise=lambda kept: kept.revise(share=audit.share, budget_share=audit.budget_share),
    )


def options(route: config.RouteConfig) -> dict[str, Any]:
    """Return what a route tells its protocol about its paths."""
    if route.protocol not in ANY_REPLY or route.protocol == "tfserving":
        return {}
    given = {"path": route.path, "free": route.free, "preset": route.preset}
    return {**given, "strip": route.strip_path}


def on_route(backend: Target, settings: config.BackendConfig, route: config.RouteConfig) -> Target:
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
        api_version=settings.azure_version,
        logprobs=asks_logprobs(settings, route),
        **options(route),
    )
    rules = settings.kind == "rules"
    return replace(
        backend,
        protocol=wire,
        expects=build_contract(route.response_schema, "outputs"),
        transport=build_transport(settings, wire) if rules else backend.transport,
    )


def asks_logprobs(settings: config.BackendConfig, route: config.RouteConfig) -> str | None:
    """Return how a backend's log-probabilities are hidden, if a route asks for them; else None.

    They are of no use from a baseline, which nothing follows.
    """
    texts, last = route.text_confidence, settings.name == route.baseline
    if texts is None or not texts.logprobs or last or route.protocol != "openai":
        return None
    return None if settings.logprobs == "off" or "logprobs" in settings.lacks else settings.logprobs


def build_contract(clauses: Sequence[config.ConstraintConfig], tensors: str) -> Validator | None:
    """Return the validator of requests or replies; None if there are no constraints."""
    return Validator([clause.to_clause() for clause in clauses], tensors) if clauses else None


def build_score(settings: config.ScoreConfig | None) -> Score:
    """Return the function that scores answers against a true label."""
    if settings is None:
        return Score(unscored)
    if settings.tolerance is not None:
        return Score(within(settings.tolerance), argmax=False)
    return Score(equal, argmax=settings.argmax)


async def look_at_inputs(routes: Mapping[str, RoutePlan], events: EventLog) -> None:
    """Compare each route's recent requests with its first, and report features that drifted."""
    for name, route in list(routes.items()):
        sample = route.inputs.sample()
        if sample is None:
            continue
        psi = await asyncio.to_thread(stability, *sample)
        features = route.inputs.found(psi)
        if features:
            worst = max(features, key=psi.__getitem__)
            text = (
                f"features {features[:10]} have drifted; feature {worst} has PSI {psi[worst]:.2f}"
            )
            events.add("inputs_drifted", name, text, features=features, psi=psi[worst])


def describe(route: RoutePlan, now_s: float) -> dict[str, Any]:
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
