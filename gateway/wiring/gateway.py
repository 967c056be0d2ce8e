"""The gateway: its parts, and how they are opened and closed."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from tollway.gateway import settings as config
from tollway.gateway.anomalies.monitor import SpendMonitor
from tollway.gateway.budgets.protocol import Ledger
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.control_plane.api import ControlPlane
from tollway.gateway.data_plane.app import App
from tollway.gateway.data_plane.idempotency import IdempotencyStore
from tollway.gateway.data_plane.rate_limits import RateLimit
from tollway.gateway.learning.audits import AuditRunner
from tollway.gateway.learning.feedback import CATCH_UP_SEGMENTS_MAX, FeedbackLearner
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.observability.events import EventLog
from tollway.gateway.observability.log_writer import Background
from tollway.gateway.observability.watch import TraceRecorder
from tollway.gateway.observability.webhooks import Webhooks
from tollway.gateway.routing.backend import Backend
from tollway.gateway.routing.replies.drains import Drains
from tollway.gateway.routing.route import Route
from tollway.gateway.routing.router import Router
from tollway.gateway.storage.journal import Journal
from tollway.gateway.wiring.scheduler import Scheduler
from tollway.gateway.workers.group import WorkerGroup
from tollway.gateway.workers.identity import WorkerIdentity


def _own_name() -> bytes:
    """Return this gateway's name in Via, by which it detects its own requests coming back."""
    return f"tollway-{secrets.token_hex(4)}".encode()


async def _nothing() -> None:
    """Do nothing."""


@dataclass(slots=True)
class Observers:
    """The observers of requests, if any; `know` passes them the routes and backends."""

    watch: TraceRecorder | None = None
    know: Callable[[Mapping[str, str], Mapping[str, str]], None] = lambda paths, urls: None
    close: Callable[[], Awaitable[None]] = _nothing


@dataclass(slots=True)
class Gateway:
    """The parts of a gateway, with open and close."""

    settings: config.Settings
    backends: dict[str, Backend]
    routes: dict[str, Route]
    wallet: Reservations
    journal: Journal
    metrics: Metrics
    events: EventLog
    learner: FeedbackLearner
    router: Router
    audits: AuditRunner
    scheduler: Scheduler
    group: WorkerGroup
    identity: WorkerIdentity
    monitor: SpendMonitor
    webhooks: Webhooks
    ledger: Ledger
    clock: Callable[[], float]
    wall: Callable[[], float]
    watching: Observers
    app: App = field(init=False)
    control: ControlPlane = field(init=False)
    rates: dict[str, RateLimit] = field(default_factory=dict, init=False)
    idempotency: IdempotencyStore | None = field(default=None, init=False)
    drains: Drains = field(default_factory=Drains, init=False)
    via: bytes = field(default_factory=_own_name)
    opened: Callable[[], None] = field(default=lambda: None, init=False)
    closed: Callable[[], Awaitable[None]] = field(default=_nothing, init=False)
    lines: Background | None = field(default=None, init=False)
    limit_bodies: Callable[[int], None] = field(default=lambda most: None, init=False)
    not_ready: str = field(default="starting", init=False)

    async def open(self) -> None:
        """Open the ledger, restore learned state and start the scheduler."""
        self.journal.write_in_turns()
        await self.wallet.open()
        times = self.scheduler.restore()
        self.monitor.restore()
        if self.identity.learns:
            self._catch_up(times)
        await self.group.open()
        self.scheduler.start()
        self.webhooks.start()
        self.not_ready = ""
        self.opened()

    def _catch_up(self, times: Mapping[str, float]) -> None:
        most = CATCH_UP_SEGMENTS_MAX * self.identity.count  # each worker writes segments of its own
        done = self.learner.catch_up(self.settings.journal.dir, times, most)
        if done.learned:
            self.events.add("caught_up", "journal", f"learned again from {done.learned} feedbacks")
        if done.skipped:
            text = f"{done.skipped} rows cannot be learned from and were skipped; see the log"
            self.events.add("journal_rows_skipped", "journal", text, rows=done.skipped)

    def leave(self) -> None:
        """Report that new requests are unwelcome; they are still served."""
        self.not_ready = "stopping"
        self.app.leave()

    async def close(self) -> None:
        """Return the leases, save the learned state and release all resources."""
        self.not_ready = "stopping"
        await self.audits.close()
        await self.scheduler.stop()
        self.monitor.save()
        await self.group.close()
        await self.wallet.close()
        await self.webhooks.stop()
        await self.closed()
        await self.watching.close()
        for backend in self.backends.values():
            await backend.aclose()
        self.journal.close()
        if self.lines is not None:
            await asyncio.to_thread(self.lines.close)
