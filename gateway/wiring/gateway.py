"""The gateway: its parts, and how they are opened and closed."""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tollway.gateway import settings as config
from tollway.gateway.anomalies.activity import ActivityCounter
from tollway.gateway.anomalies.monitor import SpendMonitor
from tollway.gateway.budgets.protocol import Ledger
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.control_plane.api import ControlPlane
from tollway.gateway.data_plane.app import App
from tollway.gateway.data_plane.idempotency import IdempotencyStore
from tollway.gateway.data_plane.in_flight import InFlight
from tollway.gateway.data_plane.rate_limits import RateLimit
from tollway.gateway.data_plane.reply_stamp import ReplyStamp
from tollway.gateway.data_plane.server_models import ServerModels
from tollway.gateway.features.online.stores import FeatureStores
from tollway.gateway.learning.audits import AuditRunner
from tollway.gateway.learning.device_costs import DeviceCosts
from tollway.gateway.learning.feedback import CATCH_UP_SEGMENTS_MAX, FeedbackLearner
from tollway.gateway.learning.pacing import BudgetPacing
from tollway.gateway.learning.price_hours import apply_hours
from tollway.gateway.learning.state_store import StateStore
from tollway.gateway.learning.warm_up import WarmUps
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.observability.events import EventLog
from tollway.gateway.observability.exposition import Exposition
from tollway.gateway.observability.log_writer import Background
from tollway.gateway.observability.request_trace import TraceRecorder
from tollway.gateway.observability.time_series import TimeSeries
from tollway.gateway.observability.webhooks import Webhooks
from tollway.gateway.registry.keeper import Keeper
from tollway.gateway.rollouts.service import Rollouts
from tollway.gateway.rollouts.shadow import ShadowRunner
from tollway.gateway.routing.bodies.buffers import Buffers
from tollway.gateway.routing.bodies.large_documents import LargeDocuments
from tollway.gateway.routing.cached.caching_driver import CachingDriver
from tollway.gateway.routing.driver import Driver
from tollway.gateway.routing.objects.background import BackgroundCalls
from tollway.gateway.routing.objects.free_calls import FreeCalls
from tollway.gateway.routing.objects.references import Objects
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.replies.drains import Drains
from tollway.gateway.scaling.advisor import ScalingAdvisor
from tollway.gateway.scaling.scaler import Scaler
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.storage.audit_log import AuditLog
from tollway.gateway.storage.captures import Captures
from tollway.gateway.storage.disk_space import DiskSpace
from tollway.gateway.storage.feature_rows import ValueRetention, most_seen
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.object_owners import ObjectOwners
from tollway.gateway.storage.retention import JournalRetention
from tollway.gateway.storage.state_file import StateFile
from tollway.gateway.wiring.devices import read_unread
from tollway.gateway.wiring.scheduler import Scheduler
from tollway.gateway.wiring.signals.builder import SignalBuilder
from tollway.gateway.wiring.states import States
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


class GrpcFront(Protocol):
    """The listener for gRPC, which opens and closes with the gateway."""

    address: str

    def share(self, listen: str) -> None:
        """Listen on an address together with the other workers."""

    def renew(self) -> None:
        """Read the files of TLS again."""

    async def open(self) -> None:
        """Start to serve."""

    def drain(self) -> None:
        """Accept no more calls."""

    async def close(self) -> None:
        """Return when the calls in progress have ended."""


@dataclass(slots=True, kw_only=True)
class Gateway:
    """The parts of a gateway, with open and close."""

    settings: config.Settings
    backends: dict[str, Target]
    routes: dict[str, RoutePlan]
    features: FeatureStores
    features_file: StateFile
    feature_values: ValueRetention
    states: States
    reservations: Reservations
    journal: Journal
    audit: AuditLog
    metrics: Metrics
    exposition: Exposition
    activity: ActivityCounter
    events: EventLog
    learner: FeedbackLearner
    driver: Driver
    caching: CachingDriver
    free: FreeCalls
    buffers: Buffers
    documents: LargeDocuments
    in_flight: InFlight
    objects: Objects
    background: BackgroundCalls
    owners: ObjectOwners
    listed: ServerModels = field(init=False)
    recent: deque[str]
    audits: AuditRunner
    signals: SignalBuilder
    warm_ups: WarmUps
    pacing: BudgetPacing
    state: StateStore
    group: WorkerGroup
    identity: WorkerIdentity
    monitor: SpendMonitor
    history: TimeSeries
    history_file: StateFile
    costs: DeviceCosts
    devices_file: StateFile
    scaling: ScalingAdvisor
    scaler: Scaler
    scaling_file: StateFile
    rollouts: Rollouts
    shadows: ShadowRunner
    captures: Captures | None
    disks: DiskSpace
    retention: JournalRetention
    grpc: GrpcFront | None = field(default=None, init=False)
    webhooks: Webhooks
    ledger: Ledger
    clock: Callable[[], float]
    wall: Callable[[], float]
    watching: Observers
    keeper: Keeper | None = field(default=None, init=False)
    scheduler: Scheduler = field(init=False)
    app: App = field(init=False)
    control: ControlPlane = field(init=False)
    rates: dict[str, RateLimit] = field(default_factory=dict, init=False)
    stamp: ReplyStamp = field(default_factory=ReplyStamp, init=False)
    idempotency: IdempotencyStore | None = field(default=None, init=False)
    drains: Drains = field(default_factory=Drains, init=False)
    via: bytes = field(default_factory=_own_name)
    opened: Callable[[], None] = field(default=lambda: None, init=False)
    closed: Callable[[], Awaitable[None]] = field(default=_nothing, init=False)
    lines: Background | None = field(default=None, init=False)
    limit_bodies: Callable[[int], None] = field(default=lambda most: None, init=False)
    waking: "asyncio.Task[None] | None" = field(default=None, init=False)
    not_ready: str = field(default="starting", init=False)

    @property
    def tenants(self) -> list[str]:
        """The names of the tenants, including the anonymous one if it is allowed."""
        anonymous = [ANONYMOUS] * self.settings.server.allow_anonymous
        return [tenant.name for tenant in self.settings.tenants] + anonymous

    def declare(self) -> None:
        """Initialize the counts of each route's backends and tenants to zero."""
        for name, route in self.routes.items():
            self.metrics.declare(name, route.arms, self.tenants)
            self.activity.declare(name, route.arms, self.tenants)
            for signal in route.signals:
                self.metrics.declare_signal(name, signal)
        for settings in self.settings.routes:
            judges = [one.backend for one in settings.signals if one.kind == "judge"]
            texts = settings.text_confidence
            own = settings.context.embedding_backend, texts.verifier if texts else None
            names = [name for name in (*judges, *own) if name in self.backends]
            self.metrics.declare(settings.name, names, self.tenants)
            self.activity.declare(settings.name, names, self.tenants)

    def declare_on(self, route: str, backends: Collection[str]) -> None:
        """Initialize the counts of backends that are asked on a route which does not have them."""
        for counts in (self.metrics, self.activity):
            counts.declare(route, backends, self.tenants)

    def backends_of(self, route: str) -> dict[str, Target]:
        """Return the backends of a route, with those that a rollout shows to no request now."""
        bound = self.rollouts.routes.get(route)
        return self.routes[route].backends if bound is None else bound.backends

    async def open(self) -> None:
        """Open the ledger, restore learned state and start the scheduler."""
        self.journal.write_in_turns()
        await read_unread(self.costs.devices, self.clock())
        await self.reservations.open()
        times = self.state.restore()
        self.history_file.restore()
        self.devices_file.restore()
        self.scaling_file.restore()
        self.features_file.restore()
        self.learn_in_turns()
        if self.identity.learns:
            self._catch_up(times)
            await self.disks.look()
        await self.group.open()
        await self.features.open(self._seen_entities())
        self.costs.put(self.routes)
        apply_hours(self.routes, self.wall())  # the costs restored are those of these prices
        await self.rollouts.open()
        self.scheduler.start()
        self.webhooks.start()
        self.not_ready = ""
        if self.grpc is not None:
            await self.grpc.open()
        self.opened()

    def _seen_entities(self) -> Callable[[], Mapping[str, Sequence[str]]] | None:
        most = self.settings.feature_tiers.warm_entities
        if not (most and self.settings.features):
            return None
        return partial(most_seen, self.settings.journal.dir, most)

    def learn_in_turns(self) -> None:
        """Have each route learn the usage of calls once per iteration of the event loop."""
        for name, route in self.routes.items():
            backends = self.backends_of(name).values()
            varies = any(not backend.price.is_fixed for backend in backends)
            route.estimator.learn_in_turns(varies=varies)

    def _catch_up(self, times: Mapping[str, float]) -> None:
        most = CATCH_UP_SEGMENTS_MAX * self.identity.count  # each worker writes its own segments
        done = self.learner.catch_up(self.settings.journal.dir, times, most)
        if done.learned:
            self.events.add(
                "caught_up",
                "journal",
                f"learned from {done.learned} items of feedback in the journal",
            )
        if done.skipped:
            text = f"{done.skipped} rows cannot be learned from and were skipped; see the log"
            self.events.add("journal_rows_skipped", "journal", text, rows=done.skipped)

    def leave(self) -> None:
        """Report that the gateway is not ready; new requests are still served."""
        self.not_ready = "stopping"
        self.app.leave()

    def drain(self) -> None:
        """Accept no more calls over gRPC, while the HTTP listener does the same."""
        if self.grpc is not None:
            self.grpc.drain()

    async def close(self) -> None:
        """Return the leases, save the learned state and release all resources."""
        self.not_ready = "stopping"
        if self.grpc is not None:
            await self.grpc.close()
        await self.audits.close()
        await self.shadows.close()
        await self.caching.close()
        await self.signals.close()
        await self.background.close()
        await self.scheduler.stop()
        if self.keeper is not None:
            await self.keeper.aclose()
        if self.captures is not None:
            await self.captures.write()
        if self.identity.learns:
            await self.state.save()
            await self.history_file.save()
            await self.devices_file.save()
            await self.scaling_file.save()
            await self.features_file.save()
        await self.costs.aclose()
        await self.features.aclose()
        await self.rollouts.close()
        if self.waking is not None:
            self.waking.cancel()
        await self.scaler.close()
        await self.group.close()
        await self.reservations.close()
        await self.owners.close()
        await self.webhooks.stop()
        await self.closed()
        await self.watching.close()
        for backend in self.backends.values():
            await backend.aclose()
        self.journal.close()
        if self.lines is not None:
            await asyncio.to_thread(self.lines.close)
