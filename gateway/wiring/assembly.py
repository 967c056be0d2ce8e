"""Builds a gateway, part by part."""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from random import Random
from typing import Any

from gateway import gauges, logs
from gateway import settings as config
from gateway.anomaly import TICK_S
from gateway.app import App
from gateway.attempts import Attempts
from gateway.audits import Audits
from gateway.auth import ANONYMOUS
from gateway.crew import Crew
from gateway.events import Events
from gateway.journal import Journal
from gateway.learner import Learner
from gateway.ledger.types import Ledger
from gateway.lessons import Lessons
from gateway.lines import Background
from gateway.lookout import SAVE_S as LOOK_SAVE_S
from gateway.metrics import Metrics
from gateway.replays import Replays
from gateway.route import Route
from gateway.router import Router
from gateway.seat import Seat
from gateway.upkeep import Upkeep, at_once
from gateway.wiring.backend import build_backend, check_health
from gateway.wiring.parts import (
    build_buffers,
    build_journal,
    build_ledger,
    build_lookout,
    build_wallet,
    build_watching,
    build_webhooks,
)
from gateway.wiring.plane import build_authenticator, build_control, build_proxy, build_rates
from gateway.wiring.route import build_route, look_at_inputs
from gateway.wiring.whole import Gateway

ALONE = Seat()
HEALTH_S = 5.0  # between two health checks of an address
DRIFT_S = 30.0  # between two looks at whether inputs have drifted


def build(
    settings: config.Settings,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    rng: Random | None = None,
    seat: Seat = ALONE,
    ledger: Ledger | None = None,
    journal: Journal | None = None,
    trace: Callable[[str], Any] | None = None,
    lines: Background | None = None,
) -> Gateway:
    """Return a gateway that is wired and not yet open.

    `clock` is the loop's (CLOCK_MONOTONIC); `rng` draws the arms, seeded by the system if None;
    `seat` says which of several workers this is. A simulation brings its own `ledger`, which then
    goes without tills, and its own `journal`. `trace` makes of an OTLP endpoint what takes spans.
    `lines` writes the log; without it the gateway has its own, for requests.
    """
    own_lines = lines is None
    lines = lines or logs.background(settings.log.format)
    rng = rng or Random(secrets.randbits(64))
    events = Events(wall)
    metrics = Metrics(version("tollway"), linked=settings.tracing.endpoint is not None)
    journal = journal or build_journal(settings)
    till_dir = settings.state.dir / "tills" if ledger is None else None
    ledger = ledger or build_ledger(settings)
    budgets = [budget.to_budget() for budget in settings.budgets]
    wallet = build_wallet(settings, ledger, budgets, clock, events, till_dir)
    backends = {b.name: build_backend(b, events.add) for b in settings.backends if b.enabled}
    routes = {r.name: build_route(r, settings, backends) for r in settings.routes}
    tenants = [t.name for t in settings.tenants] + [ANONYMOUS] * settings.server.open
    for route in routes.values():
        metrics.declare(route.name, route.backends, tenants)
    metrics.add_source(lambda: gauges.budgets(wallet))
    metrics.add_source(lambda: gauges.held_money(wallet))
    metrics.add_source(lambda: gauges.journal(journal))
    metrics.add_source(lambda: gauges.routes(routes))
    metrics.add_source(lambda: gauges.backends(backends, clock()))
    # Another worker's rows are in its segment a turn of its loop later: nothing, to people.
    patience_s = 0.05 if seat.others else 0.0
    learner = Learner(journal, routes, metrics, wall, patience_s=patience_s, events=events)
    crew = Crew(seat, metrics=metrics, events=events, wallet=wallet, teach=learner.teach)
    attempts = Attempts(
        wallet, journal, metrics, buffers=build_buffers(settings), clock=clock, wall=wall
    )
    router = Router(attempts, wallet, journal, metrics, clock=clock, wall=wall, rng=rng)
    lookout = build_lookout(settings, seat, crew, wallet, events, wall)
    if lookout.looks:
        metrics.add_source(lambda: gauges.anomalies(lookout.anomalies, wall()))
    webhooks = build_webhooks(settings, wall)
    events.listen(webhooks.take)
    audits = Audits(attempts, journal, teach=crew.teach, clock=clock, wall=wall, rng=rng)
    upkeep = Upkeep(
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
        learns=seat.learns,
        workers=seat.count,
        totals=seat.total,
        more=[
            *duties(seat, crew, routes, events),
            (HEALTH_S, lambda: check_health(backends)),
            (DRIFT_S, lambda: look_at_inputs(routes, events)),
            (TICK_S, lookout.look),
            (LOOK_SAVE_S, at_once(lookout.save)),
        ],
    )
    metrics.add_source(lambda: gauges.log_lines(lines))
    metrics.add_source(lambda: gauges.saved(upkeep.saved_s))
    metrics.add_source(lambda: gauges.to_come(upkeep.to_come))
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
        upkeep,
        crew,
        seat,
        lookout,
        webhooks,
        ledger,
        clock,
        wall,
        build_watching(settings, clock, wall, trace, lines.put),
    )
    metrics.add_source(lambda: gauges.drains(gateway.drains))
    if own_lines:
        gateway.lines = lines
    if settings.server.idempotency_s:
        gateway.replays = Replays(
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
    seat: Seat, crew: Crew, routes: Mapping[str, Route], events: Events
) -> list[tuple[float, Callable[[], Awaitable[None]]]]:
    """Return what a worker of several owes the others now and then: (seconds, duty)."""
    if seat.folder is None:
        return []
    lessons = Lessons(seat.folder, routes, events, seat.index)
    teach = lessons.give if seat.learns else lessons.take
    return [(1.0, at_once(crew.leave_in_turn)), (1.0, at_once(teach))]
