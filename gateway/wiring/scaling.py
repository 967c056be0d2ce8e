"""Builds what recommends and sets the replicas of backends."""

import hashlib
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence

from tollway.backends.money import NANO_PER_USD
from tollway.gateway import settings as config
from tollway.gateway.budgets.model import BudgetStatus
from tollway.gateway.control_store.registry import open_control_store
from tollway.gateway.learning.known_events import KnownEvent
from tollway.gateway.observability.events import EventLog
from tollway.gateway.routing.plan import Target
from tollway.gateway.scaling.actuators.command import CommandActuator
from tollway.gateway.scaling.actuators.port import Actuator
from tollway.gateway.scaling.actuators.webhook import WebhookActuator
from tollway.gateway.scaling.advisor import ScalingAdvisor, ScalingPlan
from tollway.gateway.scaling.calendar import Bounds, Calendar, Entry
from tollway.gateway.scaling.changes import Rates
from tollway.gateway.scaling.recommendation import Target as ScalingTarget
from tollway.gateway.scaling.scaler import Action, Scaler
from tollway.gateway.security.webhook_signature import key_of
from tollway.gateway.settings.scaling.action import ActionConfig
from tollway.gateway.settings.scaling.calendar import DAYS, ScheduleConfig, minute_of
from tollway.gateway.storage.audit_log import AuditLog
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.state_file import StateFile
from tollway.gateway.workers.identity import WorkerIdentity

HOUR_S = 3600.0


def build_scaling(
    settings: config.Settings,
    *,
    events: EventLog,
    audit: AuditLog,
    journal: Journal,
    identity: WorkerIdentity,
    wall: Callable[[], float],
    own_ledger: bool,
) -> tuple[Scaler, StateFile]:
    """Return what recommends and sets replicas, and the file that keeps its forecasts.

    What gateways share is beside the ledger, if the gateway has opened that itself.
    """
    advisor = ScalingAdvisor(scaling_plans(settings))
    password = settings.ledger.password
    store = open_control_store(
        settings.ledger.url if own_ledger else "memory://",
        password=password.get_secret_value() if password else None,
        clock=wall,
    )
    scaler = Scaler(
        advisor,
        store,
        events=events,
        audit=audit,
        wall=wall,
        member=member(identity),
        acts=identity.learns,
        record=lambda row: journal.append({**row, "id": journal.new_id()}),
    )
    scaler.revise(build_actions(settings, wall))
    path = settings.state.dir / "gateway" / "scaling.snapshot"
    return scaler, StateFile(path, {"scaling": advisor}, report=events.add, wall=wall)


def member(identity: WorkerIdentity) -> str:
    """Return the name of this gateway, the same in all of its workers."""
    if identity.folder is None:
        return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    folder = hashlib.sha256(os.fsencode(identity.folder.absolute())).hexdigest()[:16]
    return f"{socket.gethostname()}-{folder}"


def build_actions(settings: config.Settings, wall: Callable[[], float]) -> dict[str, Action]:
    """Return what sets the replicas of each backend that has an action."""
    return {
        one.name: Action(
            actuator=build_actuator(one.action, wall),
            rates=Rates(one.action.min_interval_s, one.action.max_changes_per_hour),
            dry_run=one.action.dry_run,
            identity=one.action,
        )
        for one in settings.scaling
        if one.action is not None
    }


def build_actuator(one: ActionConfig, wall: Callable[[], float]) -> Actuator:
    """Return the actuator of an action."""
    if one.kind == "command":
        return CommandActuator(one.command, timeout_s=one.timeout_s, passed=one.env)
    assert one.url is not None
    secret = key_of(one.secret.get_secret_value()) if one.secret else b""
    return WebhookActuator(
        one.url.get_secret_value(), timeout_s=one.timeout_s, secret=secret, wall=wall
    )


def tell_backends(scaler: Scaler, backends: Mapping[str, Target], now_s: float) -> None:
    """Tell the backends whose calls may wait whether they are starting, and what a call adds."""
    for name, backend in backends.items():
        if backend.start is not None:
            backend.start.is_cold = scaler.is_cold(name, now_s)
            backend.start.surcharge_usd = scaler.surcharge_usd(name)


def paid_replicas(
    plans: Mapping[str, ScalingPlan], statuses: Iterable[BudgetStatus], now_s: float
) -> dict[str, int]:
    """Return the replicas that each plan's budget pays for until its window ends."""
    known = {status.budget.name: status for status in statuses}
    found = {}
    for name, plan in plans.items():
        status, price_nano = known.get(plan.budget), plan.replica_nano_per_hour
        if status is None or not price_nano or status.resets_at_s is None:
            continue
        hours = max(status.resets_at_s - now_s, 1.0) / HOUR_S
        left_nano = max(0, status.limit_nano - status.used_nano)
        found[name] = int(left_nano / (price_nano * hours))
    return found


def scaling_plans(settings: config.Settings) -> dict[str, ScalingPlan]:
    """Return the plans by backend."""
    by_route = known_events(settings) if settings.scaling else {}
    return {one.name: _plan(one, settings, by_route) for one in settings.scaling}


def known_events(settings: config.Settings) -> dict[str, tuple[KnownEvent, ...]]:
    """Return the events of each route that has any."""
    found = {
        route.name: tuple(
            [
                KnownEvent(one.start.timestamp(), one.end.timestamp(), one.factor)
                for one in settings.events
                if not one.routes or route.name in one.routes
            ]
        )
        for route in settings.routes
    }
    return {route: events for route, events in found.items() if events}


def _events_of(
    one: config.ScalingConfig,
    settings: config.Settings,
    by_route: Mapping[str, Sequence[KnownEvent]],
) -> tuple[KnownEvent, ...]:
    """Return the events of a backend: its own, and those of routes that it serves."""
    of_routes = {
        event: None
        for route in settings.routes
        if one.kind == "gateway" or one.name in route.backends
        for event in by_route.get(route.name, ())
    }
    return (*map(_event, one.events), *of_routes)


def _plan(
    one: config.ScalingConfig,
    settings: config.Settings,
    by_route: Mapping[str, Sequence[KnownEvent]],
) -> ScalingPlan:
    target = ScalingTarget(
        usual=Bounds(one.min, one.max),
        places=one.calls_per_replica,
        utilization=one.target_utilization,
        wait_s=one.target_wait_s,
        lead_s=one.lead_s,
        up_s=one.scale_up_after_s,
        down_s=one.scale_down_after_s,
    )
    price = one.replica_usd_per_hour
    return ScalingPlan(
        target,
        Calendar(
            one.timezone, tuple(map(_entry, one.schedule)), _events_of(one, settings, by_route)
        ),
        headroom=one.headroom,
        growth=one.growth,
        peak=one.peak,
        replica_nano_per_hour=None if price is None else int(price * NANO_PER_USD),
        budget=one.budget or "",
        wait_usd_per_hour=one.wait_usd_per_hour,
        floor_routes=tuple(
            [
                route.name
                for route in settings.routes
                if route.accuracy_floor is not None and route.baseline == one.name
            ]
        ),
    )


def _entry(one: ScheduleConfig) -> Entry:
    days = frozenset(DAYS.index(day) for day in one.days)
    return Entry(days, minute_of(one.start), minute_of(one.end), one.min, one.max)


def _event(one: config.EventConfig) -> KnownEvent:
    return KnownEvent(one.start.timestamp(), one.end.timestamp(), one.factor)
