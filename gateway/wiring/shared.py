"""Builds the parts that all routes share: journal, ledger, observers, events and webhooks."""

import math
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tollway.gateway import settings as config
from tollway.gateway.anomalies.detector import AnomalyDetector
from tollway.gateway.anomalies.monitor import SpendMonitor
from tollway.gateway.budgets.model import Budget
from tollway.gateway.budgets.protocol import Ledger
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.budgets.stores.registry import open_ledger
from tollway.gateway.learning.state_store import StateStore
from tollway.gateway.observability.access_log import RequestLog
from tollway.gateway.observability.events import EventLog
from tollway.gateway.observability.log_format import Put
from tollway.gateway.observability.request_trace import Follower, TraceRecorder, random_ids
from tollway.gateway.observability.webhooks import Target, Webhooks
from tollway.gateway.routing.bodies.buffers import Buffers
from tollway.gateway.security.webhook_signature import key_of
from tollway.gateway.storage.disk_space import DiskSpace
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.retention import OPEN_S, JournalRetention
from tollway.gateway.wiring.gateway import Observers
from tollway.gateway.workers.identity import WorkerIdentity

SQLITE = "sqlite:///"


def build_journal(settings: config.Settings) -> Journal:
    """Return a journal with a new segment in its directory."""
    return Journal(
        settings.journal.dir,
        segment_bytes_max=settings.journal.segment_mb << 20,
        waiting_bytes_max=settings.journal.waiting_mb << 20,
    )


def build_disks(
    settings: config.Settings, events: EventLog, clock: Callable[[], float]
) -> DiskSpace:
    """Return the watch over the disks that the gateway writes to."""
    folders = {"journal": settings.journal.dir, "state": settings.state.dir}
    if settings.ledger.url.startswith(SQLITE):
        folders["ledger"] = Path(settings.ledger.url.removeprefix(SQLITE)).parent
    keep_gb = settings.journal.keep_gb
    return DiskSpace(
        folders,
        report=events.add,
        clock=clock,
        journal_bytes_max=math.inf if keep_gb is None else keep_gb * 1e9,
    )


def build_retention(
    settings: config.Settings, state: StateStore, events: EventLog, wall: Callable[[], float]
) -> JournalRetention:
    """Return what removes the journal's old segments."""
    keep = settings.journal
    calls_s = [backend.timeout_s for backend in settings.backends]
    return JournalRetention(
        keep.dir,
        keep_s=None if keep.keep_days is None else keep.keep_days * 86_400.0,
        bytes_max=None if keep.keep_gb is None else keep.keep_gb * 1e9,
        open_s=max(OPEN_S, *calls_s),
        saved_s=state.oldest_saved_s,
        report=events.add,
        wall=wall,
    )


def build_buffers(settings: config.Settings) -> Buffers:
    """Return the memory limit of this worker's bodies, replies and incomplete stream events."""
    server = settings.server
    return Buffers(
        event_bytes_max=server.max_event_bytes,
        bytes_max=server.buffer_bytes,
        request_bytes_max=server.max_body_bytes + server.max_reply_bytes,
    )


def build_ledger(settings: config.Settings) -> Ledger:
    """Return the ledger for its URL, not yet open."""
    password = settings.ledger.password
    return open_ledger(
        settings.ledger.url, password=password.get_secret_value() if password else None
    )


def build_reservations(  # noqa: PLR0917 - the parts in the order they are built
    settings: config.Settings,
    ledger: Ledger,
    budgets: Sequence[Budget],
    clock: Callable[[], float],
    events: EventLog,
    recovery_dir: Path | None,
) -> Reservations:
    """Return the reservations over a ledger; without recovery files, a crash charges open calls."""
    return Reservations(
        ledger,
        budgets,
        holder=f"{socket.gethostname()}-{os.getpid()}",
        clock=clock,
        recovery_dir=recovery_dir,
        on_event=lambda event: events.add(
            event.kind,
            event.budget,
            event.detail,
            share=event.share,
            amount_nano=event.amount_nano,
            window_start=event.window_start_s,
        ),
        on_ledger_failure=settings.ledger.on_ledger_failure,
        hold_wait_s=settings.server.hold_wait_s,
    )


def build_monitor(
    settings: config.Settings,
    identity: WorkerIdentity,
    reservations: Reservations,
    events: EventLog,
) -> SpendMonitor:
    """Return the spend monitor over all workers; only the learning worker runs it."""
    watched = settings.anomalies
    return SpendMonitor(
        AnomalyDetector(
            ratio=watched.ratio,
            min_usd_per_h=watched.min_usd_per_hour,
            strictness=watched.strictness,
        ),
        detects=watched.enabled and identity.learns,
        reservations=reservations,
        events=events,
    )


def build_watching(
    settings: config.Settings,
    clock: Callable[[], float],
    wall: Callable[[], float],
    trace: Callable[[str], Any] | None,
    put: Put,
) -> Observers:
    """Return the observers of requests; `put` receives the log lines."""
    endpoint, requests = settings.tracing.endpoint, settings.log.requests
    watching = Observers()
    followers: list[Follower] = []
    rng = Random(
        secrets.randbits(64)
    )  # separate from the router's generator, so its draws do not change
    if endpoint is not None:
        from tollway.gateway.observability import tracing  # noqa: PLC0415 - an extra

        made = tracing.Tracing(
            (trace or tracing.exporter)(endpoint), clock=clock, wall=wall, new_id=random_ids(rng)
        )
        followers.append(made)
        watching.know, watching.close = made.know, made.close
    if requests != "off":
        form, failed_only = settings.log.format, requests == "failed"
        followers.append(RequestLog(form, failed_only=failed_only, put=put, wall=wall))
    if followers:
        traces, share = endpoint is not None, settings.tracing.sample
        watching.watch = TraceRecorder(followers, traces=traces, share=share, rng=rng)
    return watching


def build_webhooks(settings: config.Settings, wall: Callable[[], float]) -> Webhooks:
    """Return the sender of webhooks."""
    return Webhooks(
        [
            Target(
                name=hook.name,
                url=hook.url.get_secret_value(),
                format=hook.format,
                secret=key_of(hook.secret.get_secret_value()) if hook.secret else b"",
                kinds=frozenset(hook.events),
            )
            for hook in settings.webhooks
        ],
        source=f"tollway/{socket.gethostname()}",
        wall=wall,
    )
