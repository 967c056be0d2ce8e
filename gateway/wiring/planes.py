"""Builds the data plane and the control plane: authentication, rate limits and routing by path."""

from collections.abc import Mapping, Sequence

from tollway.gateway import settings as config
from tollway.gateway.budgets.administration import BudgetAdmin
from tollway.gateway.budgets.model import Budget
from tollway.gateway.control_plane import explain
from tollway.gateway.control_plane.api import ControlPlane
from tollway.gateway.control_plane.budgets import BudgetEndpoints
from tollway.gateway.control_plane.dashboard_data import DashboardData
from tollway.gateway.data_plane.admission import Admission
from tollway.gateway.data_plane.authentication import Authenticator
from tollway.gateway.data_plane.handler import DataPlane
from tollway.gateway.data_plane.model_metadata import ModelMetadata
from tollway.gateway.data_plane.rate_limits import FeedbackRates, RateLimit
from tollway.gateway.data_plane.responses import Responses
from tollway.gateway.data_plane.route_table import RouteTable
from tollway.gateway.security.keys import hash_key
from tollway.gateway.settings import open_relay
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
        via=gateway.via,
        local_only=frozenset(route.name for route, _ in open_relay.unbounded(settings)),
    )
    return DataPlane(
        table,
        gateway.router,
        admission=admission,
        replies=Responses(
            rates=rates,
            clock=clock,
            via=gateway.via,
            hide_amounts=server.hide_amounts,
            drains=gateway.drains,
        ),
        descriptions=ModelMetadata(table, admission, ready=lambda: gateway.not_ready, clock=clock),
        metrics=gateway.metrics,
        clock=clock,
        done=gateway.audits.consider,
        watch=gateway.watching.watch,
        idempotency=gateway.idempotency,
    )


def build_rates(
    settings: config.Settings, kept: Mapping[str, RateLimit], now_s: float
) -> dict[str, RateLimit]:
    """Return the rate limits of the tenants that have one; each worker gets an equal share.

    Existing limits, passed as `kept`, are updated and keep the contents of their buckets.
    """
    share = 1.0 / settings.server.workers
    rates = {}
    for tenant in settings.tenants:
        if tenant.rate is None:
            continue
        told = (tenant.rate.requests_per_s, tenant.rate.burst, tenant.rate.usd_per_s)
        requests, burst, dollars = (None if one is None else one * share for one in told)
        rate = kept.get(tenant.name)
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
    """Return the authenticator of keys."""
    server = settings.server
    pepper = settings.pepper.get_secret_value() if settings.pepper else None
    admin_hash = None
    if server.admin_key is not None:
        admin_hash = hash_key(server.admin_key.get_secret_value(), pepper)
    elif server.admin_key_hash is not None:
        admin_hash = server.admin_key_hash.get_secret_value()
    viewer_hash = server.viewer_key_hash
    ends = {key_hash: end_s for t in settings.tenants for key_hash, end_s in t.ends.items()}
    return Authenticator(
        {key_hash: t.name for t in settings.tenants for key_hash in (*t.hashes, *t.ends)},
        ends=ends,
        admin_hash=admin_hash,
        viewer_hash=viewer_hash.get_secret_value() if viewer_hash else None,
        pepper=pepper,
        open_to_all=server.allow_anonymous,
        labellers=[t.name for t in settings.tenants if t.labeller],
    )


def build_control(
    gateway: Gateway, authenticator: Authenticator, budgets: Sequence[Budget]
) -> ControlPlane:
    """Return the control plane of a gateway."""
    router, journal, monitor = gateway.router, gateway.journal, gateway.monitor
    routes, clock = gateway.routes, gateway.clock
    return ControlPlane(
        authenticator=authenticator,
        learner=gateway.learner,
        wallet=gateway.wallet,
        counter=build_counter(gateway, budgets),
        metrics=gateway.metrics,
        group=gateway.group,
        overview=DashboardData(
            group=gateway.group,
            wallet=gateway.wallet,
            history=monitor.history,
            anomalies=monitor.anomalies,
            routes=routes,
            recent=lambda: list(router.recent),
            story=lambda decision: (
                explain.decision(found) if (found := journal.find(decision)) else None
            ),
            wall=gateway.wall,
        ),
        routes=lambda: [describe(route, clock()) for route in routes.values()],
        ready=lambda: gateway.not_ready,
        rates=FeedbackRates(*feedback_rates(gateway.settings)),
        clock=clock,
    )


def build_counter(gateway: Gateway, budgets: Sequence[Budget]) -> BudgetEndpoints:
    """Return the control plane's budget endpoints."""
    return BudgetEndpoints(BudgetAdmin(gateway.ledger, budgets, gateway.wall), gateway.journal)
