"""Builds the gateway from its settings: the one place that names concrete classes."""

import asyncio
import os
import secrets
import socket
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from backends.balanced import Balanced, Endpoint
from backends.limiter import Limiter
from backends.registry import protocol
from backends.rules import open_rules
from backends.slots import Slots
from backends.transport import open_transport
from backends.types import Transport, WireProtocol
from gateway import explain, gauges, tls
from gateway import settings as config
from gateway.addresses import is_link_local
from gateway.anomaly import TICK_S, Anomalies
from gateway.app import App
from gateway.audits import Audits
from gateway.auth import ANONYMOUS, Authenticator, hash_key
from gateway.contract import Contract
from gateway.control import Control
from gateway.counter import Counter
from gateway.crew import Crew
from gateway.estimator import Estimator
from gateway.events import Events
from gateway.features import Features
from gateway.hedge import Hedge
from gateway.history import History
from gateway.input_drift import stability
from gateway.journal import Journal
from gateway.ladder import Ladder
from gateway.learner import CATCH_UP_SEGMENTS_MAX, Learner
from gateway.ledger.office import Office
from gateway.ledger.registry import open_ledger
from gateway.ledger.types import Budget, Ledger
from gateway.ledger.wallet import Wallet
from gateway.lessons import Lessons
from gateway.logs import RequestLog
from gateway.lookout import SAVE_S as LOOK_SAVE_S
from gateway.lookout import Lookout
from gateway.metrics import Metrics
from gateway.overview import Overview
from gateway.passage import random_ids
from gateway.prompt_cache import PromptCache
from gateway.proxy import Proxy
from gateway.rates import Rate
from gateway.replays import Replays
from gateway.route import Backend, Route
from gateway.router import Router
from gateway.score import Score, exact, near, unscored
from gateway.seat import Seat
from gateway.table import RouteTable
from gateway.upkeep import Upkeep, at_once
from gateway.watch import Follower, Watch
from gateway.webhooks import Target, Webhooks
from policies.audit import Auditor
from policies.registry import build as build_policy

ALONE = Seat()
HEALTH_S = 5.0  # between two health checks of an address
DRIFT_S = 30.0  # between two looks at whether inputs have drifted


def _own_name() -> bytes:
    """Return a name for this gateway in Via, by which it knows its own requests coming back."""
    return f"tollway-{secrets.token_hex(4)}".encode()


async def _nothing() -> None:
    """Do nothing."""


@dataclass(slots=True)
class Watching:
    """Who watches requests, if anybody: `know` tells them where routes and backends are."""

    watch: Watch | None = None
    know: Callable[[Mapping[str, str], Mapping[str, str]], None] = lambda paths, urls: None
    close: Callable[[], Awaitable[None]] = _nothing


@dataclass(slots=True)
class Gateway:
    """The parts of a gateway, and its opening and closing."""

    settings: config.Settings
    backends: dict[str, Backend]
    routes: dict[str, Route]
    wallet: Wallet
    journal: Journal
    metrics: Metrics
    events: Events
    learner: Learner
    router: Router
    audits: Audits
    upkeep: Upkeep
    crew: Crew
    seat: Seat
    lookout: Lookout
    webhooks: Webhooks
    ledger: Ledger
    clock: Callable[[], float]
    wall: Callable[[], float]
    watching: Watching
    app: App = field(init=False)
    control: Control = field(init=False)
    replays: Replays | None = field(default=None, init=False)
    via: bytes = field(default_factory=_own_name)
    opened: Callable[[], None] = field(default=lambda: None, init=False)
    closed: Callable[[], Awaitable[None]] = field(default=_nothing, init=False)
    not_ready: str = field(default="starting", init=False)

    async def open(self) -> None:
        """Take up the money and what was learned before, and begin upkeep."""
        self.journal.write_in_turns()
        await self.wallet.open()
        times = self.upkeep.restore()
        self.lookout.restore()
        if self.seat.learns:
            self._catch_up(times)
        await self.crew.open()
        self.upkeep.start()
        self.webhooks.start()
        self.not_ready = ""
        self.opened()

    def _catch_up(self, times: Mapping[str, float]) -> None:
        most = CATCH_UP_SEGMENTS_MAX * self.seat.count  # each worker writes segments of its own
        learned = self.learner.catch_up(self.settings.journal.dir, times, most)
        if learned:
            self.events.add("caught_up", "journal", f"learned again from {learned} feedbacks")

    def leave(self) -> None:
        """Say that new requests are not welcome; they are still served."""
        self.not_ready = "stopping"
        self.app.leave()

    async def close(self) -> None:
        """Hand the money back, save what was learned, and let go of everything."""
        self.not_ready = "stopping"
        await self.audits.close()
        await self.upkeep.stop()
        self.lookout.save()
        await self.crew.close()
        await self.wallet.close()
        await self.webhooks.stop()
        await self.closed()
        await self.watching.close()
        for backend in self.backends.values():
            await backend.transport.aclose()
        self.journal.close()


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
) -> Gateway:
    """Return a gateway that is wired and not yet open.

    `clock` is the loop's (CLOCK_MONOTONIC); `rng` draws the arms, seeded by the system if None;
    `seat` says which of several workers this is. A simulation brings its own `ledger`, which then
    goes without tills, and its own `journal`. `trace` makes of an OTLP endpoint what takes spans.
    """
    rng = rng or Random(secrets.randbits(64))
    events = Events(wall)
    metrics = Metrics(version("tollway"), linked=settings.tracing.endpoint is not None)
    journal = journal or build_journal(settings)
    till_dir = settings.state.dir / "tills" if ledger is None else None
    ledger = ledger or build_ledger(settings)
    budgets = [budget.to_budget() for budget in settings.budgets]
    wallet = build_wallet(settings, ledger, budgets, clock, events, till_dir)
    backends = {b.name: build_backend(b) for b in settings.backends if b.enabled}
    routes = {r.name: build_route(r, settings, backends) for r in settings.routes}
    tenants = [t.name for t in settings.tenants] + [ANONYMOUS] * settings.server.open
    for route in routes.values():
        metrics.declare(route.name, route.backends, tenants)
    metrics.add_source(lambda: gauges.budgets(wallet))
    metrics.add_source(lambda: gauges.journal(journal))
    metrics.add_source(lambda: gauges.routes(routes))
    metrics.add_source(lambda: gauges.backends(backends, clock()))
    # Another worker's rows are in its segment a turn of its loop later: nothing, to people.
    learner = Learner(journal, routes, metrics, wall, patience_s=0.05 if seat.others else 0.0)
    crew = Crew(seat, metrics=metrics, events=events, wallet=wallet, teach=learner.teach)
    router = Router(wallet, journal, metrics, clock=clock, wall=wall, rng=rng)
    watched = settings.anomalies
    anomalies = Anomalies(ratio=watched.ratio, min_usd_per_h=watched.min_usd_per_hour)
    history = History()
    looks = watched.enabled and seat.learns
    lookout = Lookout(
        anomalies,
        history,
        looks=looks,
        crew=crew,
        wallet=wallet,
        events=events,
        file=settings.state.dir / "history.snapshot",
        wall=wall,
    )
    if looks:
        metrics.add_source(lambda: gauges.anomalies(anomalies, wall()))
    webhooks = build_webhooks(settings, wall)
    events.listen(webhooks.take)
    audits = Audits(router, journal, teach=crew.teach, clock=clock, wall=wall, rng=rng)
    upkeep = Upkeep(
        routes=routes,
        wallet=wallet,
        journal=journal,
        metrics=metrics,
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
    metrics.add_source(lambda: gauges.saved(upkeep.saved_s))
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
        build_watching(settings, clock, wall, trace),
    )
    if settings.server.idempotency_s:
        gateway.replays = Replays(
            keeps_s=settings.server.idempotency_s, bytes_max=settings.server.idempotency_mb << 20
        )
    gateway.control = Control(
        authenticator=authenticator,
        learner=learner,
        wallet=wallet,
        counter=build_counter(gateway, budgets),
        metrics=metrics,
        crew=crew,
        overview=Overview(
            crew=crew,
            wallet=wallet,
            history=history,
            anomalies=anomalies,
            routes=routes,
            recent=lambda: list(router.recent),
            story=lambda decision: (
                explain.decision(found) if (found := journal.find(decision)) else None
            ),
            wall=wall,
        ),
        routes=lambda: [_describe(route, clock()) for route in routes.values()],
        ready=lambda: gateway.not_ready,
    )
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
    lessons = Lessons(seat.folder, routes, events)
    teach = lessons.give if seat.learns else lessons.take
    return [(1.0, at_once(crew.leave_in_turn)), (1.0, at_once(teach))]


def build_journal(settings: config.Settings) -> Journal:
    """Return a journal with a new segment in its folder."""
    return Journal(
        settings.journal.dir,
        segment_bytes_max=settings.journal.segment_mb << 20,
        waiting_bytes_max=settings.journal.waiting_mb << 20,
    )


def build_ledger(settings: config.Settings) -> Ledger:
    """Return the ledger at its address, not yet open."""
    password = settings.ledger.password
    return open_ledger(
        settings.ledger.url, password=password.get_secret_value() if password else None
    )


def build_wallet(  # noqa: PLR0917 - the parts in the order they are built
    settings: config.Settings,
    ledger: Ledger,
    budgets: Sequence[Budget],
    clock: Callable[[], float],
    events: Events,
    till_dir: Path | None,
) -> Wallet:
    """Return the wallet over a ledger; without tills, a crash leaves charged what was open."""
    return Wallet(
        ledger,
        budgets,
        holder=f"{socket.gethostname()}-{os.getpid()}",
        clock=clock,
        till_dir=till_dir,
        on_event=lambda event: events.add(
            event.kind,
            event.budget,
            event.detail,
            share=event.share,
            amount_nano=event.amount_nano,
            window_start=event.window_start_s,
        ),
        when_down=settings.ledger.when_down,
    )


def build_watching(
    settings: config.Settings,
    clock: Callable[[], float],
    wall: Callable[[], float],
    trace: Callable[[str], Any] | None,
) -> Watching:
    """Return who watches requests."""
    endpoint, requests = settings.tracing.endpoint, settings.log.requests
    watching = Watching()
    followers: list[Follower] = []
    rng = Random(secrets.randbits(64))  # not the router's: its draws stay as they are
    if endpoint is not None:
        from gateway import spans  # noqa: PLC0415 - an extra

        made = spans.Spans(
            (trace or spans.exporter)(endpoint), clock=clock, wall=wall, new_id=random_ids(rng)
        )
        followers.append(made)
        watching.know, watching.close = made.know, made.close
    if requests != "off":
        form, failed_only = settings.log.format, requests == "failed"
        followers.append(RequestLog(form, failed_only=failed_only, out=sys.stderr, wall=wall))
    if followers:
        traces, share = endpoint is not None, settings.tracing.sample
        watching.watch = Watch(followers, traces=traces, share=share, rng=rng)
    return watching


def build_webhooks(settings: config.Settings, wall: Callable[[], float]) -> Webhooks:
    """Return what sends events out."""
    return Webhooks(
        [
            Target(
                name=hook.name,
                url=hook.url.get_secret_value(),
                format=hook.format,
                secret=hook.secret.get_secret_value().encode() if hook.secret else b"",
                kinds=frozenset(hook.events),
            )
            for hook in settings.webhooks
        ],
        source=f"tollway/{socket.gethostname()}",
        wall=wall,
    )


def build_proxy(gateway: Gateway, authenticator: Authenticator) -> Proxy:
    """Return the data plane of a gateway, as its settings are now."""
    settings, routes = gateway.settings, gateway.routes
    gateway.watching.know(
        {route.name: route.path for route in settings.routes},
        {backend.name: backend.url for backend in settings.backends if backend.url},
    )
    return Proxy(
        RouteTable((r.path, routes[r.name]) for r in settings.routes),
        gateway.router,
        authenticator,
        gateway.metrics,
        may_call={t.name: frozenset(t.routes) for t in settings.tenants if t.routes is not None},
        rates=build_rates(settings),
        ready=lambda: gateway.not_ready,
        clock=gateway.clock,
        body_bytes_max=settings.server.max_body_bytes,
        via=gateway.via,
        done=gateway.audits.consider,
        hide_amounts=settings.server.hide_amounts,
        watch=gateway.watching.watch,
        replays=gateway.replays,
    )


def build_rates(settings: config.Settings) -> dict[str, Rate]:
    """Return how fast tenants may call, those that are limited; a worker has its share."""
    share = 1.0 / settings.server.workers
    return {
        tenant.name: Rate(
            *(
                None if value is None else value * share
                for value in (
                    tenant.rate.requests_per_s,
                    tenant.rate.burst,
                    tenant.rate.usd_per_s,
                )
            )
        )
        for tenant in settings.tenants
        if tenant.rate is not None
    }


def build_counter(gateway: Gateway, budgets: Sequence[Budget]) -> Counter:
    """Return what serves operators of budgets."""
    return Counter(Office(gateway.ledger, budgets, gateway.wall), gateway.journal)


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
    )


def build_backend(settings: config.Backend) -> Backend:
    """Return a backend: its price, and the way to it."""
    url = urlsplit(settings.url or "")
    wire = protocol(settings.protocol or "oip")
    slots = build_slots(settings) if settings.url else None
    return Backend(
        name=settings.name,
        kind=settings.kind,
        protocol=wire,
        transport=build_transport(settings, wire, slots),
        price=settings.parsed_price(),
        host=url.netloc.encode(),
        path=url.path.rstrip("/").encode(),
        model=settings.model,
        declared_quality=settings.declared_accuracy,
        timeout_s=settings.timeout_s,
        first_byte_s=settings.first_byte_timeout_s,
        slots=slots,
        cache=build_cache(settings),
    )


def build_cache(settings: config.Backend) -> PromptCache | None:
    """Return what a backend is taken to hold of prompts; None where that makes no difference."""
    price = settings.parsed_price()
    if not settings.prompt_cache_s or price.cached_input_token_nano >= price.input_token_nano:
        return None
    return PromptCache(keeps_s=settings.prompt_cache_s)


def build_slots(settings: config.Backend) -> Slots:
    """Return who may call a backend at once, and who waits."""
    limiter = Limiter(settings.concurrency, tolerance=settings.latency_tolerance)
    return Slots(
        settings.concurrency,
        patience_s=settings.queue_s,
        limiter=limiter if settings.adaptive else None,
    )


def build_transport(
    settings: config.Backend, wire: WireProtocol, slots: Slots | None = None
) -> Transport:
    """Return the way to a backend; rules have none to go."""
    if settings.url is None:
        return open_rules(wire, rules=settings.rules, entry_point=settings.entry_point)
    context = tls.connecting(settings.tls)
    endpoints = [
        Endpoint(
            urlsplit(url).netloc.encode(),
            open_transport(
                url,
                slots=slots,
                connect_timeout_s=settings.connect_timeout_s,
                http2=settings.http2,
                tls=context,
                barred=None if settings.allow_link_local else is_link_local,
            ),
        )
        for url in (settings.url, *settings.replicas)
    ]
    if len(endpoints) == 1:
        return endpoints[0].transport
    health = settings.health_path.encode() if settings.health_path else None
    return Balanced(endpoints, rng=Random(secrets.randbits(64)), health=health)


async def check_health(backends: Mapping[str, Backend]) -> None:
    """Ask the addresses of all backends that have several how they are."""
    several = [b.transport for b in backends.values() if isinstance(b.transport, Balanced)]
    await asyncio.gather(*(transport.check() for transport in several))


async def look_at_inputs(routes: Mapping[str, Route], events: Events) -> None:
    """Compare each route's recent requests with its first; tell of features that drifted."""
    for name, route in list(routes.items()):
        sample = route.inputs.sample()
        if sample is None:
            continue
        psi = await asyncio.to_thread(stability, *sample)
        features = route.inputs.found(psi)
        if features:
            worst = max(features, key=psi.__getitem__)
            text = f"features {features[:10]} are no longer as they were; {worst}: {psi[worst]:.2f}"
            events.add("inputs_drifted", name, text, features=features, psi=psi[worst])


def on_route(backend: Backend, settings: config.Backend, route: config.Route) -> Backend:
    """Return a backend as one route sees it.

    Its answer is read where the backend's settings say, or the route's score; rules speak what the
    route does. The connections and the breaker are the backend's own, on all routes.
    """
    scored = (route.score.exact or route.score.near) if route.score else None
    wire = protocol(
        route.protocol,
        answer=settings.answer or scored,
        confidence=settings.confidence,
        probabilities=settings.probabilities,
    )
    rules = settings.kind == "rules"
    return replace(
        backend,
        protocol=wire,
        expects=build_contract(route.answers, "outputs"),
        transport=build_transport(settings, wire) if rules else backend.transport,
    )


def build_route(
    route: config.Route, settings: config.Settings, backends: dict[str, Backend]
) -> Route:
    """Return a route over its enabled backends."""
    objective = route.to_objective()
    told = {backend.name: backend for backend in settings.backends}
    policy = "cascade" if route.cascade and route.policy == "lagrangian" else route.policy
    return Route(
        name=route.name,
        protocol=protocol(route.protocol),
        backends={
            name: on_route(backends[name], told[name], route)
            for name in route.backends
            if name in backends
        },
        objective=objective,
        # The route's own seed: a snapshot is only taken back by a policy of the same seed.
        policy=build_policy(
            policy,
            objective,
            options=route.policy_options,
            seed=zlib.crc32(route.name.encode()) & 0x7FFFFFFF,
            guard=route.guard,
        ),
        estimator=Estimator(),
        features=Features(
            numeric=route.context.numeric,
            text=route.context.text,
            categorical=route.context.categorical,
            span=route.context.range,
        ),
        score=build_score(route.score),
        cascade=route.cascade,
        fallback=route.fallback,
        timeout_s=route.timeout_s,
        reply_bytes_max=settings.server.max_reply_bytes,
        auditor=build_auditor(route.audit, backends),
        reference=route.audit.backend if route.audit else "",
        models=route.models,
        accepts=build_contract(route.accepts, "inputs"),
        ladder=Ladder(
            route.ladder,
            route.last_resort.encode() if route.last_resort is not None else None,
            retry_share=route.retry_share,
        ),
        hedge=Hedge(route.hedge_share) if route.hedge_share else None,
    )


def build_contract(clauses: Sequence[config.Clause], tensors: str) -> Contract | None:
    """Return what checks requests or replies; None where nothing is asked of them."""
    return Contract([clause.to_clause() for clause in clauses], tensors) if clauses else None


def build_auditor(settings: config.Audit | None, backends: Mapping[str, Backend]) -> Auditor | None:
    """Return who draws a route's audits; nobody where its reference is disabled."""
    if settings is None or settings.backend not in backends:
        return None
    return Auditor(share=settings.share, budget_share=settings.budget_share)


def build_score(settings: config.Score | None) -> Score:
    """Return how a route scores a true label."""
    if settings is None:
        return unscored
    return exact if settings.tolerance is None else near(settings.tolerance)


def _describe(route: Route, now_s: float) -> dict[str, Any]:
    return {
        "name": route.name,
        "protocol": route.protocol.name,
        "cascade": route.cascade,
        "objective": route.objective.kind,
        "floor": route.objective.floor,
        "policy_version": route.policy.version,
        "backends": [
            {
                "name": b.name,
                "kind": b.kind,
                "up": not b.breaker.is_open,
                "breaker": b.breaker.state(now_s),
            }
            for b in route.backends.values()
        ],
    }
