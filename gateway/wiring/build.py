"""Builds a gateway from its parts."""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from random import Random
from typing import Any

from tollway.gateway import settings as config
from tollway.gateway.anomalies.detector import TICK_S
from tollway.gateway.anomalies.monitor import SAVE_S as LOOK_SAVE_S
from tollway.gateway.budgets.fair_queue import WAIT_S
from tollway.gateway.budgets.protocol import Ledger
from tollway.gateway.data_plane.app import App
from tollway.gateway.data_plane.idempotency import IdempotencyStore
from tollway.gateway.learning.audits import AuditRunner
from tollway.gateway.learning.feedback import FeedbackLearner
from tollway.gateway.observability import access_log, collectors
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.observability.events import EventLog
from tollway.gateway.observability.histogram import Buckets
from tollway.gateway.observability.log_writer import Background
from tollway.gateway.routing.attempts import Attempts
from tollway.gateway.routing.route import Route
from tollway.gateway.routing.router import Router
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.storage.journal import Journal
from tollway.gateway.wiring.backends import build_backend, check_health
from tollway.gateway.wiring.gateway import Gateway
from tollway.gateway.wiring.planes import (
    build_authenticator,
    build_control,
    build_proxy,
    build_rates,
)
from tollway.gateway.wiring.routes import build_route, look_at_inputs
from tollway.gateway.wiring.scheduler import Scheduler, at_once
from tollway.gateway.wiring.shared import (
    build_buffers,
    build_journal,
    build_ledger,
    build_lookout,
    build_wallet,
    build_watching,
    build_webhooks,
)
from tollway.gateway.workers.group import WorkerGroup
from tollway.gateway.workers.identity import WorkerIdentity
from tollway.gateway.workers.policy_sync import PolicySync

ALONE = WorkerIdentity()
HEALTH_S = 5.0  # between two health checks of an address
DRIFT_S = 30.0  # between two checks for input drift


def build(
    settings: config.Settings,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    rng: Random | None = None,
    identity: WorkerIdentity = ALONE,
    ledger: Ledger | None = None,
    journal: Journal | None = None,
    trace: Callable[[str], Any] | None = None,
    lines: Background | None = None,
) -> Gateway:
    """Return a gateway that is wired but not yet open.

    `clock` is the event loop's (CLOCK_MONOTONIC). `rng` draws the arms; if None, the system seeds
    it. `identity` says which of several workers this is. A simulation passes its own `ledger`,
    which then works without recovery files, and its own `journal`. `trace` returns a span exporter
    for an OTLP endpoint. `lines` writes the log; without it the gateway creates its own, for
    request lines.
    """
    own_lines = lines is None
    lines = lines or access_log.background(settings.log.format)
    rng = rng or Random(secrets.randbits(64))
    events = EventLog(wall)
    metrics = Metrics(version("tollway"), linked=settings.tracing.endpoint is not None)
    journal = journal or build_journal(settings)
    till_dir = settings.state.dir / "tills" if ledger is None else None
    ledger = ledger or build_ledger(settings)
    budgets = [budget.to_budget() for budget in settings.budgets]
    wallet = build_wallet(settings, ledger, budgets, clock, events, till_dir)
    backends = {b.name: build_backend(b, events.add) for b in settings.backends if b.enabled}
    routes = {r.name: build_route(r, settings, backends) for r in settings.routes}
    tenants = [t.name for t in settings.tenants] + [ANONYMOUS] * settings.server.allow_anonymous
    for route in routes.values():
        metrics.declare(route.name, route.backends, tenants)
    metrics.add_source(lambda: collectors.budgets(wallet))
    waited = Buckets(WAIT_S)
    wallet.held.line.on_wait = waited.observe
    metrics.add_source(lambda: collectors.held_money(wallet, waited))
    metrics.add_source(lambda: collectors.journal(journal))
    metrics.add_source(lambda: collectors.routes(routes))
    metrics.add_source(lambda: collectors.backends(backends, clock()))
    # Another worker's rows reach its segment one iteration of its loop later, which is soon enough.
    patience_s = 0.05 if identity.others else 0.0
    learner = FeedbackLearner(journal, routes, metrics, wall, patience_s=patience_s, events=events)
    group = WorkerGroup(
        identity, metrics=metrics, events=events, wallet=wallet, teach=learner.teach
    )
    attempts = Attempts(
        wallet, journal, metrics, buffers=build_buffers(settings), clock=clock, wall=wall
    )
    router = Router(attempts, wallet, journal, metrics, clock=clock, wall=wall, rng=rng)
    monitor = build_lookout(settings, identity, group, wallet, events, wall)
    if monitor.looks:
        metrics.add_source(lambda: collectors.anomalies(monitor.anomalies, wall()))
    webhooks = build_webhooks(settings, wall)
    events.listen(webhooks.take)
    audits = AuditRunner(attempts, journal, teach=group.teach, clock=clock, wall=wall, rng=rng)
    scheduler = Scheduler(
        routes=routes,
        wallet=wallet,
        journal=journal,
        arrivals=router.arrivals,
        events=events,
        state_dir=settings.state.dir,
        fsync_s=settings.journal.fsync_s,
        snapshot_s=settings.state.interval_s,
        clock=clock,
        wall=wall,
        learns=identity.learns,
        workers=identity.count,
        totals=identity.total,
        more=[
            *duties(identity, group, routes, events),
            (HEALTH_S, lambda: check_health(backends)),
            (DRIFT_S, lambda: look_at_inputs(routes, events)),
            (TICK_S, monitor.look),
            (LOOK_SAVE_S, at_once(monitor.save)),
        ],
    )
    metrics.add_source(lambda: collectors.log_lines(lines))
    metrics.add_source(lambda: collectors.saved(scheduler.saved_s))
    metrics.add_source(lambda: collectors.to_come(scheduler.to_come))
    authenticator = build_authenticator(settings)
    gateway = Gateway(
        settings,
        backends,
        routes,
        wallet,
        journal,
        metrics,
        events,
        learner,
        router,
        audits,
        scheduler,
        group,
        identity,
        monitor,
        webhooks,
        ledger,
        clock,
        wall,
        build_watching(settings, clock, wall, trace, lines.put),
    )
    metrics.add_source(lambda: collectors.drains(gateway.drains))
    if own_lines:
        gateway.lines = lines
    if settings.server.idempotency_s:
        gateway.idempotency = IdempotencyStore(
            keeps_s=settings.server.idempotency_s, bytes_max=settings.server.idempotency_mb << 20
        )
    gateway.rates = build_rates(settings, {}, clock())
    gateway.control = build_control(gateway, authenticator, budgets)
    gateway.app = App(
        build_proxy(gateway, authenticator),
        gateway.control.app(),
        gateway.open,
        gateway.close,
        most=settings.server.max_in_flight,
        shed=metrics.shed,
    )
    return gateway


def duties(
    identity: WorkerIdentity, group: WorkerGroup, routes: Mapping[str, Route], events: EventLog
) -> list[tuple[float, Callable[[], Awaitable[None]]]]:
    """Return the periodic jobs that synchronize several workers: (seconds, job)."""
    if identity.folder is None:
        return []
    policy_sync = PolicySync(identity.folder, routes, events, identity.index)
    teach = policy_sync.give if identity.learns else policy_sync.take
    return [(1.0, at_once(group.leave_in_turn)), (1.0, at_once(teach))]
