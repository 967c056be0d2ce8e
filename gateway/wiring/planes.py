"""Builds the data plane and the control plane: authentication, rate limits and routing by path."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tollway.gateway import settings as config
from tollway.gateway.budgets.administration import BudgetAdmin
from tollway.gateway.budgets.model import Budget
from tollway.gateway.control_plane import explain
from tollway.gateway.control_plane.api import ControlPlane
from tollway.gateway.control_plane.budgets import BudgetEndpoints
from tollway.gateway.control_plane.dashboard_data import DashboardData
from tollway.gateway.control_plane.features import FeatureEndpoints
from tollway.gateway.control_plane.rollouts import RolloutEndpoints
from tollway.gateway.control_plane.warm_up import WarmUpEndpoint
from tollway.gateway.data_plane.admission import Admission
from tollway.gateway.data_plane.authentication import Authenticator
from tollway.gateway.data_plane.codings.replies import ReplyCompression
from tollway.gateway.data_plane.codings.requests import RequestCodings
from tollway.gateway.data_plane.cors import CorsDataPlane, CorsPolicy
from tollway.gateway.data_plane.handler import DataPlane
from tollway.gateway.data_plane.model_metadata import ModelMetadata
from tollway.gateway.data_plane.rate_limits import FeedbackRates, RateLimit
from tollway.gateway.data_plane.responses import Responses
from tollway.gateway.data_plane.route_table import RouteTable
from tollway.gateway.security import admin_key
from tollway.gateway.security.keys import hash_key
from tollway.gateway.settings import open_relay
from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.signals.guards import Guards
from tollway.gateway.wiring.gateway import Gateway
from tollway.gateway.wiring.routes import describe


def build_proxy(gateway: Gateway, authenticator: Authenticator) -> DataPlane:
    """Return the data plane of a gateway for its current settings."""
    settings, routes = gateway.settings, gateway.routes
    gateway.watching.know(
        {route.name: route.path for route in settings.routes},
        {backend.name: backend.url for backend in settings.backends if backend.url},
    )
    server, clock, rates = settings.server, gateway.clock, gateway.rates
    gateway.drains.revise(server.drained_streams, server.drained_streams_per_tenant)
    table = RouteTable((r.path, routes[r.name]) for r in settings.routes)
    admission = Admission(
        authenticator,
        gateway.metrics,
        may_call={t.name: frozenset(t.routes) for t in settings.tenants if t.routes is not None},
        rates=rates,
        clock=clock,
        body_bytes_max=server.max_body_bytes,
        buffers=gateway.buffers,
        documents=gateway.documents,
        codings=RequestCodings(
            gateway.documents,
            decoded_bytes_max=min(server.max_decoded_bytes, server.max_body_bytes),
        ),
        via=gateway.via,
        local_only=frozenset(route.name for route, _ in open_relay.unbounded(settings)),
        tags=environment_of(settings),
    )
    gzip_from = server.gzip_reply_bytes
    compression = None if gzip_from is None else ReplyCompression(gzip_from)
    cors = server.cors
    plane: Callable[..., DataPlane] = DataPlane
    if cors is not None:
        plane = partial(CorsDataPlane, cors=_policy(cors))

    return plane(
        table,
        gateway.driver,
        gateway.free,
        gateway.objects,
        gateway.listed,
        admission=admission,
        replies=Responses(
            rates=rates,
            clock=clock,
            via=gateway.via,
            hide_amounts=server.hide_amounts,
            drains=gateway.drains,
            stream_cost=server.stream_cost,
        ),
        descriptions=ModelMetadata(
            table, admission, gateway.listed, ready=lambda: gateway.not_ready, clock=clock
        ),
        metrics=gateway.metrics,
        clock=clock,
        watch=gateway.watching.watch,
        stamp=gateway.stamp,
        idempotency=gateway.idempotency,
        in_flight=gateway.in_flight,
        caching=gateway.caching,
        guards=Guards(gateway.signals.guards, gateway.metrics),
        compression=compression,
        callbacks=server.callbacks,
    )


def environment_of(settings: config.Settings) -> dict[str, str]:
    """Return the tags of every request, which are the labels of every metric: the environment."""
    return {} if settings.environment is None else {"environment": settings.environment}


def _policy(cors: config.CorsConfig) -> CorsPolicy:
    """Return what pages of other origins may do."""
    return CorsPolicy(cors.origins, cors.headers, cors.credentials, cors.max_age_s)


def build_rates(
    settings: config.Settings, existing: Mapping[str, RateLimit], now_s: float
) -> dict[str, RateLimit]:
    """Return the rate limits of the tenants that have one; each worker gets an equal share.

    Existing limits, passed as `existing`, are updated and keep the contents of their buckets.
    """
    share = 1.0 / settings.server.workers
    rates = {}
    for tenant in settings.tenants:
        if tenant.rate is None:
            continue
        configured = (tenant.rate.requests_per_s, tenant.rate.burst, tenant.rate.usd_per_s)
        requests, burst, dollars = (None if one is None else one * share for one in configured)
        rate = existing.get(tenant.name)
        if rate is None:
            rate = RateLimit(requests, burst, dollars)
        else:
            rate.revise(requests, burst, dollars, now_s)
        rates[tenant.name] = rate
    return rates


def feedback_rates(settings: config.Settings) -> tuple[float, dict[str, float]]:
    """Return the label rate limits of tenants, per second: the default, and those by name."""
    share = 1.0 / settings.server.workers
    own = {
        tenant.name: tenant.rate.feedback_per_s * share
        for tenant in settings.tenants
        if tenant.rate is not None and tenant.rate.feedback_per_s is not None
    }
    return settings.server.feedback_per_s * share, own


def build_authenticator(settings: config.Settings) -> Authenticator:
    """Return the authenticator of keys; ConfigError if the file of the admin key is unusable."""
    server = settings.server
    pepper = settings.pepper.get_secret_value() if settings.pepper else None
    admin_hash = made_hash = None
    if server.admin_key is not None:
        admin_hash = hash_key(server.admin_key.get_secret_value(), pepper)
    elif server.admin_key_hash is not None:
        admin_hash = server.admin_key_hash.get_secret_value()
    elif (made := made_admin_key(settings)) is not None:
        made_hash = hash_key(made, pepper)
    viewer_hash = server.viewer_key_hash
    ends = {key_hash: end_s for t in settings.tenants for key_hash, end_s in t.ends.items()}
    return Authenticator(
        {key_hash: t.name for t in settings.tenants for key_hash in (*t.hashes, *t.ends)},
        ends=ends,
        admin_hash=admin_hash,
        made_hash=made_hash,
        viewer_hash=viewer_hash.get_secret_value() if viewer_hash else None,
        pepper=pepper,
        open_to_all=server.allow_anonymous,
        labellers=[t.name for t in settings.tenants if t.labeller],
    )


def made_admin_key(settings: config.Settings) -> str | None:
    """Return the admin key that the gateway made, if any; ConfigError if its file is unusable."""
    try:
        return admin_key.stored(settings.state.dir)
    except (OSError, ValueError) as exc:
        raise ConfigError([Problem("", "state.dir", str(exc))]) from None


def build_control(
    gateway: Gateway, authenticator: Authenticator, budgets: Sequence[Budget]
) -> ControlPlane:
    """Return the control plane of a gateway."""
    journal, monitor = gateway.journal, gateway.monitor
    routes, clock = gateway.routes, gateway.clock
    rollouts = RolloutEndpoints(gateway.rollouts)
    return ControlPlane(
        authenticator=authenticator,
        learner=gateway.learner,
        reservations=gateway.reservations,
        budget_endpoints=build_budget_endpoints(gateway, budgets),
        audit=gateway.audit,
        exposition=gateway.exposition,
        documents=gateway.documents,
        warm_ups=WarmUpEndpoint(
            gateway.warm_ups,
            gateway.group,
            gateway.reservations,
            routes=lambda: gateway.routes,
            path=lambda name: next(r.path for r in gateway.settings.routes if r.name == name),
            backends=lambda: gateway.backends,
            tags=environment_of(gateway.settings),
        ),
        group=gateway.group,
        overview=DashboardData(
            group=gateway.group,
            reservations=gateway.reservations,
            history=gateway.history,
            anomalies=monitor.anomalies,
            routes=routes,
            recent=lambda: list(gateway.recent),
            story=lambda decision: (
                explain.decision(rows) if (rows := journal.find(decision)) else None
            ),
            audit=gateway.audit,
            rollouts=rollouts.shown,
            wall=gateway.wall,
        ),
        devices=gateway.costs.described,
        routes=lambda: [describe(route, clock()) for route in routes.values()],
        scaling=gateway.scaler,
        features=FeatureEndpoints(
            gateway.features, journal, gateway.settings.journal.dir, gateway.audit
        ),
        rollouts=rollouts,
        ready=lambda: gateway.not_ready,
        rates=FeedbackRates(*feedback_rates(gateway.settings)),
        clock=clock,
        hides_amounts=lambda: gateway.settings.server.hide_amounts,
    )


def build_budget_endpoints(gateway: Gateway, budgets: Sequence[Budget]) -> BudgetEndpoints:
    """Return the control plane's budget endpoints."""
    admin = BudgetAdmin(gateway.ledger, budgets, gateway.wall)
    return BudgetEndpoints(admin, gateway.journal, gateway.audit, gateway.events)
