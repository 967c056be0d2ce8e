"""Decides which state of a backend or route a reload keeps, and hands it to its successor.

State is not configuration: when settings change, the object is replaced, and its successor takes
over all state that those settings do not concern. Each kind of state depends on these settings:

    state                                    is reset if this changed
    breaker, rest, slots, limit, refused     the server's identity (SERVER)
      fields, hedge wait
    credential                               SERVER, auth
    prompt cache                             SERVER; dropped if cached tokens cost the same
    connections, trials                      how the server is reached (WAY)
    an address' health and keep-alive        the address
    retry and hedging budgets, traffic,      never
      tenants' influence, counters
    estimates, accuracy of quotes            never; dropped with the backend
    features' scales, input drift            the route's context or protocol
    policy, what paces it                    state that the new policy cannot read
    audits                                   the reference

State that requests in flight use is the same object before and after, so that their later reports
still count. `rebuilt` creates and shares objects without changing anything that runs. `adopt_*` are
called once nothing can fail any more.
"""

from collections.abc import Collection

from tollway.backends.http import adoption
from tollway.gateway import settings as config
from tollway.gateway.observability.events import EventLog
from tollway.gateway.routing.backend import Backend
from tollway.gateway.routing.route import Route
from tollway.gateway.wiring import build_backend, build_limiter

SERVER = (
    "kind",
    "protocol",
    "url",
    "model",
    "rules",
    "entry_point",
    "proxy",
    "tls",
    "http2",
    "allow_link_local",
)
"""Keys that identify a server. Observations of one server say nothing about another."""

WAY = (
    *SERVER,
    "replicas",
    "health_path",
    "auth",
    "headers",
    "connect_timeout_s",
    "event_idle_timeout_s",
    "keep_alive",
)
"""Keys that a backend's connections and health checks depend on."""

SAME_POLICY = (
    "policy",
    "policy_options",
    "objective",
    "accuracy_floor",
    "value_per_correct_usd",
    "baseline",
    "guard",
    "cascade",
)
"""Keys that define a route's policy."""


def same(before: object, told: object, keys: Collection[str]) -> bool:
    """Return whether two tables of the configuration agree in these keys."""
    return all(getattr(before, key) == getattr(told, key) for key in keys)


def rebuilt(
    old: Backend | None,
    before: config.BackendConfig | None,
    told: config.BackendConfig,
    events: EventLog,
) -> Backend:
    """Return a backend with changed settings that shares as much as possible with the old one."""
    if old is None or before is None or not same(before, told, SERVER):
        return build_backend(told, events.add)
    new = build_backend(
        told,
        events.add,
        slots=old.slots,
        credential=old.credential if before.auth == told.auth else None,
        transport=old.transport if same(before, told, WAY) else None,
    )
    new.breaker, new.rest = old.breaker, old.rest
    if new.transport is old.transport:
        new.trial = old.trial
    if new.cache is not None and old.cache is not None:
        new.cache = old.cache
    return new


def adopt_backend(new: Backend, old: Backend, told: config.BackendConfig) -> None:
    """Hand the old backend's state to a backend that was rebuilt for the same server."""
    new.dialect.adopt(old.dialect)
    if new.transport is not old.transport:
        adoption.adopt(new.transport, old.transport)
    if new.slots is not None:
        limiter = build_limiter(told)
        new.slots.revise(told.concurrency, patience_s=told.queue_s, limiter=limiter)
    if new.cache is not None:
        new.cache.revise(keeps_s=told.prompt_cache_s)


def adopt_route(
    new: Route,
    old: Route,
    before: config.RouteConfig,
    told: config.RouteConfig,
    *,
    servers: Collection[str],
    settings: config.Settings,
    events: EventLog,
) -> None:
    """Hand the state of the replaced route to its successor.

    `servers` are the backends that are the same servers as before; `settings` are the new ones.
    """
    new.estimator, new.bound = old.estimator, old.bound
    new.traffic, new.influence = old.traffic, old.influence
    new.estimator.keep([backend.name for backend in settings.backends])
    for gone in new.bound.keys() - {budget.name for budget in settings.budgets}:
        del new.bound[gone]
    new.fallbacks.adopt(old.fallbacks)
    if new.hedge is not None and old.hedge is not None:
        new.hedge.adopt(old.hedge, [name for name in new.backends if name in servers])
    _adopt_auditor(new, old, told)
    if before.context != told.context or before.protocol != told.protocol:
        return
    new.features, new.inputs = old.features, old.inputs
    _adopt_policy(new, old, before, told, events)


def _adopt_auditor(new: Route, old: Route, told: config.RouteConfig) -> None:
    if told.audit is None or new.auditor is None or old.auditor is None:
        return
    if new.reference == old.reference:
        old.auditor.revise(share=told.audit.share, budget_share=told.audit.budget_share)
        new.auditor = old.auditor


def _adopt_policy(
    new: Route, old: Route, before: config.RouteConfig, told: config.RouteConfig, events: EventLog
) -> None:
    if same(before, told, SAME_POLICY):
        new.policy, new.paced_by = old.policy, old.paced_by
        return
    try:
        new.policy.load(old.policy.save())
    except (ValueError, KeyError):
        text = "its policy is of another kind now and starts without what was learned"
        events.add("learning_begins_anew", told.name, text)
