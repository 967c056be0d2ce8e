"""Builds a gateway from its parts."""

import secrets
import time
from collections.abc import Callable
from random import Random
from typing import Any

from tollway.gateway import settings as config
from tollway.gateway.anomalies.activity import ActivityCounter
from tollway.gateway.budgets.model import Budget
from tollway.gateway.budgets.protocol import Ledger
from tollway.gateway.data_plane.app import App
from tollway.gateway.data_plane.authentication import Authenticator
from tollway.gateway.data_plane.idempotency import IdempotencyStore
from tollway.gateway.data_plane.in_flight import InFlight
from tollway.gateway.data_plane.server_models import ServerModels
from tollway.gateway.learning.audits import AuditRunner
from tollway.gateway.learning.device_costs import DeviceCosts
from tollway.gateway.learning.feedback import FeedbackLearner
from tollway.gateway.learning.pacing import BudgetPacing
from tollway.gateway.learning.signals import SignalLearner
from tollway.gateway.learning.state_store import StateStore
from tollway.gateway.learning.warm_up import WarmUps
from tollway.gateway.observability import log_format
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.observability.events import EventLog
from tollway.gateway.observability.exposition import Exposition
from tollway.gateway.observability.log_writer import Background
from tollway.gateway.observability.time_series import TimeSeries
from tollway.gateway.storage import audit_log
from tollway.gateway.storage.audit_log import AuditLog
from tollway.gateway.storage.feature_rows import ValueRetention
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.object_owners import ObjectOwners
from tollway.gateway.storage.state_file import StateFile
from tollway.gateway.wiring.caching import build_caching_driver
from tollway.gateway.wiring.captures import build_captures
from tollway.gateway.wiring.devices import build_devices, device_prices
from tollway.gateway.wiring.features import build_lookups, build_stores
from tollway.gateway.wiring.gateway import Gateway
from tollway.gateway.wiring.grpc_front import build_grpc
from tollway.gateway.wiring.jobs import build_jobs
from tollway.gateway.wiring.lifecycle.registry import build_keeper, build_models
from tollway.gateway.wiring.metric_sources import add_sources
from tollway.gateway.wiring.planes import (
    build_authenticator,
    build_control,
    build_proxy,
    build_rates,
    environment_of,
)
from tollway.gateway.wiring.request_path import build_path
from tollway.gateway.wiring.rollouts.runtime import build_rollouts
from tollway.gateway.wiring.routes import build_plans
from tollway.gateway.wiring.scaling import build_scaling, known_events
from tollway.gateway.wiring.scheduler import Scheduler
from tollway.gateway.wiring.shared import (
    build_disks,
    build_journal,
    build_ledger,
    build_monitor,
    build_reservations,
    build_retention,
    build_watching,
    build_webhooks,
)
from tollway.gateway.wiring.signals.builder import build_signals
from tollway.gateway.wiring.states import States
from tollway.gateway.workers.group import WorkerGroup
from tollway.gateway.workers.identity import WorkerIdentity

ALONE = WorkerIdentity()


def build(  # noqa: PLR0915 - one statement for each part
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
    lines = lines or log_format.background(settings.log.format)
    rng = rng or Random(secrets.randbits(64))
    events = EventLog(wall)
    metrics, exposition = (
        Metrics(),
        Exposition(linked=settings.tracing.endpoint is not None, labels=environment_of(settings)),
    )
    activity = ActivityCounter()
    journal = journal or build_journal(settings)
    recovery_dir = settings.state.dir / "recovery" if ledger is None else None
    ledger = ledger or build_ledger(settings)
    budgets = [budget.to_budget() for budget in settings.budgets]
    reservations = build_reservations(settings, ledger, budgets, clock, events, recovery_dir)
    states = States()
    stage = states.stage()
    devices = build_devices(settings, stage, clock())
    stores = build_stores(settings)
    lookups = build_lookups(settings, stage, stores.warm, clock=clock, wall=wall)
    backends, routes = build_plans(
        settings, events, stage, device_prices(devices, clock()), lookups
    )
    stores.revise(lookups)
    stage.commit()
    costs = DeviceCosts(
        routes,
        clock=clock,
        totals=identity.total,
        bills=identity.learns,
        workers=identity.count,
        events=events,
        journal=journal,
        wall=wall,
    )
    costs.revise(devices)
    # Another worker's rows reach its segment one iteration of its loop later, which is soon enough.
    learner = FeedbackLearner(
        journal,
        routes,
        metrics,
        wall,
        signals=SignalLearner(journal, routes, metrics, wall),
        patience_s=0.05 if identity.others else 0.0,
        events=events,
    )
    group = WorkerGroup(
        identity,
        metrics=metrics,
        exposition=exposition,
        activity=activity,
        events=events,
        reservations=reservations,
        teach=learner.teach,
    )
    own_state = recovery_dir is not None
    owners = ObjectOwners(settings.state.dir / "objects.sqlite" if own_state else None, wall=wall)
    audit = AuditLog(settings.state.dir / audit_log.NAME if own_state else None, wall=wall)
    path = build_path(
        settings,
        reservations,
        journal,
        metrics,
        activity,
        owners=owners,
        clock=clock,
        wall=wall,
        rng=rng,
        costs=costs,
    )
    monitor, history = build_monitor(settings, identity, reservations, events), TimeSeries()
    history_file = StateFile(
        settings.state.dir / "gateway" / "history.snapshot",
        {"anomalies": monitor.anomalies, "history": history},
        report=events.add,
        wall=wall,
    )
    devices_file = StateFile(
        settings.state.dir / "gateway" / "devices.snapshot",
        {"devices": costs},
        report=events.add,
        wall=wall,
    )
    features_file = StateFile(
        settings.state.dir / "gateway" / "features.snapshot",
        {"features": stores},
        report=events.add,
        wall=wall,
    )
    scaler, scaling_file = build_scaling(
        settings,
        events=events,
        audit=audit,
        journal=journal,
        identity=identity,
        wall=wall,
        own_ledger=own_state,
    )
    warm_ups = WarmUps(
        path.reserving,
        path.attempts,
        journal,
        backends=lambda: gateway.backends,
        clock=clock,
        wall=wall,
        rng=rng,
        tags=environment_of(settings),
        declare=lambda name, others: gateway.declare_on(name, others),  # noqa: PLW0108 - built below
        embed=lambda inference: gateway.signals.embedded(inference),  # noqa: PLW0108 - built below
    )
    rollouts, shadows = build_rollouts(
        settings,
        routes,
        path,
        learner,
        journal,
        events=events,
        audit=audit,
        clock=clock,
        wall=wall,
        rng=rng,
        own_ledger=own_state,
        warm_ups=warm_ups,
        path_of=lambda name: {one.name: one.path for one in gateway.settings.routes}[name],
    )
    webhooks = build_webhooks(settings, wall)
    events.listen(webhooks.take)
    audits = AuditRunner(
        path.reserving, path.attempts, journal, teach=group.teach, clock=clock, wall=wall, rng=rng
    )
    path.sinks.add(ended=audits.consider)
    captures = build_captures(settings.capture, path.sinks, identity, wall)
    pacing = BudgetPacing(
        routes,
        reservations,
        path.arrivals,
        clock=clock,
        wall=wall,
        totals=identity.total,
        workers=identity.count,
    )
    pacing.expect(known_events(settings))
    state = StateStore(
        routes,
        pacing.demands,
        settings.state.dir,
        events=events,
        wall=wall,
        learns=identity.learns,
    )
    authenticator = build_authenticator(settings)
    gateway = Gateway(
        settings=settings,
        backends=backends,
        routes=routes,
        features=stores,
        features_file=features_file,
        feature_values=ValueRetention(settings.journal.dir, wall=wall),
        states=states,
        reservations=reservations,
        journal=journal,
        audit=audit,
        metrics=metrics,
        exposition=exposition,
        activity=activity,
        events=events,
        learner=learner,
        driver=path.driver,
        caching=build_caching_driver(
            settings.cache, path.driver, path.repeats, clock=clock, wall=wall
        ),
        free=path.free,
        buffers=path.buffers,
        documents=path.documents,
        in_flight=InFlight(settings.server.max_in_flight, metrics.shed),
        objects=path.objects,
        background=path.background,
        owners=owners,
        recent=path.recent,
        audits=audits,
        signals=build_signals(
            settings,
            backends,
            routes,
            path.driver,
            journal,
            teach=group.teach,
            counts=metrics,
            clock=clock,
            wall=wall,
            rng=rng,
            costs=costs,
        ),
        warm_ups=warm_ups,
        pacing=pacing,
        state=state,
        group=group,
        identity=identity,
        monitor=monitor,
        history=history,
        history_file=history_file,
        costs=costs,
        devices_file=devices_file,
        scaling=scaler.advisor,
        scaler=scaler,
        scaling_file=scaling_file,
        rollouts=rollouts,
        shadows=shadows,
        captures=captures,
        disks=build_disks(settings, events, clock),
        retention=build_retention(settings, state, events, wall),
        webhooks=webhooks,
        ledger=ledger,
        clock=clock,
        wall=wall,
        watching=build_watching(settings, clock, wall, trace, lines.put),
    )
    gateway.listed = ServerModels(lambda: list(gateway.routes.values()), clock)
    gateway.free.is_shared = lambda: len(gateway.tenants) > 1
    _build_off_path(gateway)
    gateway.declare()
    add_sources(gateway, lines)
    if own_lines:
        gateway.lines = lines
    if settings.server.idempotency_s:
        gateway.idempotency = IdempotencyStore(
            keeps_s=settings.server.idempotency_s, bytes_max=settings.server.idempotency_mb << 20
        )
    gateway.rates = build_rates(settings, {}, clock())
    _build_planes(gateway, authenticator, budgets)
    return gateway


def _build_off_path(gateway: Gateway) -> None:
    """Build what works beside the requests: what follows a registry, and the periodic jobs."""
    gateway.keeper = build_keeper(gateway)
    gateway.scheduler = Scheduler(build_jobs(gateway))


def _build_planes(gateway: Gateway, authenticator: Authenticator, budgets: list[Budget]) -> None:
    """Build what answers requests: the planes, the application over both, and gRPC before it."""
    gateway.control = build_control(gateway, authenticator, budgets)
    gateway.control.models = build_models(gateway)
    gateway.app = App(
        build_proxy(gateway, authenticator),
        gateway.control.app(),
        gateway.open,
        gateway.close,
        in_flight=gateway.in_flight,
        stamp=gateway.stamp,
    )
    gateway.grpc = build_grpc(gateway.settings, gateway.app)
