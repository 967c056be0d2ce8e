"""Builds what requests meet: who is known, how fast each may call, and where a path leads."""

from collections.abc import Mapping, Sequence

from gateway import explain
from gateway import settings as config
from gateway.admission import Admission
from gateway.auth import Authenticator, hash_key
from gateway.control import Control
from gateway.counter import Counter
from gateway.descriptions import Descriptions
from gateway.ledger.office import Office
from gateway.ledger.types import Budget
from gateway.overview import Overview
from gateway.proxy import Proxy
from gateway.rates import FeedbackRates, Rate
from gateway.replies import Replies
from gateway.settings import open_relay
from gateway.table import RouteTable
from gateway.wiring.route import describe
from gateway.wiring.whole import Gateway


def build_proxy(gateway: Gateway, authenticator: Authenticator) -> Proxy:
    """Return the data plane of a gateway, as its settings are now."""
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
    return Proxy(
        table,
        gateway.router,
        admission=admission,
        replies=Replies(
            rates=rates,
            clock=clock,
            via=gateway.via,
            hide_amounts=server.hide_amounts,
            drains=gateway.drains,
        ),
        descriptions=Descriptions(table, admission, ready=lambda: gateway.not_ready, clock=clock),
        metrics=gateway.metrics,
        clock=clock,
        done=gateway.audits.consider,
        watch=gateway.watching.watch,
        replays=gateway.replays,
    )


def build_rates(
    settings: config.Settings, kept: Mapping[str, Rate], now_s: float
) -> dict[str, Rate]:
    """Return how fast tenants may call, those that are limited; a worker has its share.

    `kept` rates are revised and go on with what is in their buckets.
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
            rate = Rate(requests, burst, dollars)
        else:
            rate.revise(requests, burst, dollars, now_s)
        rates[tenant.name] = rate
    return rates


def feedback_rates(settings: config.Settings) -> tuple[float, dict[str, float]]:
    """Return how many labels a second tenants may send: by default, and by name."""
    share = 1.0 / settings.server.workers
    own = {
        tenant.name: tenant.rate.feedback_per_s * share
        for tenant in settings.tenants
        if tenant.rate is not None and tenant.rate.feedback_per_s is not None
    }
    return settings.server.feedback_per_s * share, own


def build_authenticator(settings: config.Settings) -> Authenticator:
    """Return who knows the keys."""
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
        open_to_all=server.open,
        labellers=[t.name for t in settings.tenants if t.labeller],
    )


def build_control(
    gateway: Gateway, authenticator: Authenticator, budgets: Sequence[Budget]
) -> Control:
    """Return the control plane of a gateway."""
    router, journal, lookout = gateway.router, gateway.journal, gateway.lookout
    routes, clock = gateway.routes, gateway.clock
    return Control(
        authenticator=authenticator,
        learner=gateway.learner,
        wallet=gateway.wallet,
        counter=build_counter(gateway, budgets),
        metrics=gateway.metrics,
        crew=gateway.crew,
        overview=Overview(
            crew=gateway.crew,
            wallet=gateway.wallet,
            history=lookout.history,
            anomalies=lookout.anomalies,
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


def build_counter(gateway: Gateway, budgets: Sequence[Budget]) -> Counter:
    """Return what serves operators of budgets."""
    return Counter(Office(gateway.ledger, budgets, gateway.wall), gateway.journal)
