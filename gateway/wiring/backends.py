"""Builds backends: their prices, concurrency slots and transports."""

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tollway.backends.batching.batcher import Batcher, BatchStats, unwrapped
from tollway.backends.batching.registry import JOINERS
from tollway.backends.batching.size import BatchSize
from tollway.backends.concurrency.first_event_limit import FirstEventLimiter
from tollway.backends.concurrency.limiter import AdaptiveLimit
from tollway.backends.concurrency.queue import ConcurrencyQueue, Limit
from tollway.backends.concurrency.start_gate import StartGate, StartState
from tollway.backends.devices.device import UNREAD
from tollway.backends.dialect import Dialect, Refusals
from tollway.backends.http import adoption
from tollway.backends.http.affinity import key_reader
from tollway.backends.http.factory import open_transport
from tollway.backends.http.load_balancer import Endpoint, LoadBalancer
from tollway.backends.http.proxies import proxy_url
from tollway.backends.ports import Transport, WireProtocol
from tollway.backends.pricing import Price
from tollway.backends.protocols.registry import LANGUAGE_MODELS, protocol
from tollway.backends.rules.backend import open_rules
from tollway.backends.types import Headers
from tollway.gateway import settings as config
from tollway.gateway.estimation.prompt_cache import PromptCacheTracker
from tollway.gateway.observability.histogram import Buckets
from tollway.gateway.routing.health.trial import Trial, of_one, of_several
from tollway.gateway.routing.key_ring import Key
from tollway.gateway.routing.plan import Target, ignored
from tollway.gateway.routing.state import BackendState
from tollway.gateway.security import tls
from tollway.gateway.security.addresses import is_link_local
from tollway.gateway.security.credentials import Credential, Tell, tell_nobody
from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.wiring.devices import timed
from tollway.gateway.wiring.states import Stage, States

T = TypeVar("T")

BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
BATCH_WAITS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


def build_backend(
    settings: config.BackendConfig,
    tell: Tell = tell_nobody,
    stage: Stage | None = None,
    *,
    reply_bytes_max: int = 16 << 20,
    device_price: Price | None = None,
    scaling: config.ScalingConfig | None = None,
) -> Target:
    """Return a backend with its price and transport; `tell` receives events of its credential.

    `stage` has the state to go on from. `reply_bytes_max` limits the reply to each call of a batch.
    `device_price`: the price if it runs on a device; None if that is not known yet. `scaling`: how
    many replicas it has, and whether calls wait for the first.
    Raises ConfigError if the secret cannot be read.
    """
    stage = stage or States().stage()
    url = urlsplit(settings.url or "")
    wire = protocol(settings.protocol or "oip", api_version=settings.azure_version)
    host = url.netloc.encode()
    headers = [
        (name.encode(), value.get_secret_value().encode("latin-1"))
        for name, value in settings.headers.items()
    ]
    price = settings.parsed_price() if settings.device is None else device_price or UNREAD

    def state(what: str, identity: object, make: Callable[[], T], **how: Any) -> T:
        kept: T = stage.get(("backend", settings.name, what), identity, make, **how)
        return kept

    server, reached_by = settings.of(*settings.SERVER), settings.of(*settings.REACHED_BY)
    health = state("health", server, BackendState)
    slots = None
    if settings.url:
        slots = state("slots", server, lambda: build_slots(settings), revise=revising(settings))
    cache = None
    if caches_prompts(settings.prompt_cache_s, price):
        cache = state(
            "cache",
            server,
            lambda: PromptCacheTracker(keeps_s=settings.prompt_cache_s),
            revise=lambda tracker: tracker.revise(keeps_s=settings.prompt_cache_s),
        )
    credentials = [
        state(
            f"credential {place}", (server, auth), partial(build_credential, settings, place, tell)
        )
        for place, auth in settings.credentials.items()
    ]
    keys = [
        state(f"key {at}", (server, key), partial(Key, credentials[at], key.weight))
        for at, key in enumerate(settings.keys)
    ]
    credential = credentials[0] if credentials else None
    own = own_fields(headers, credential)
    transport = state(
        "transport",
        reached_by,
        lambda: build_transport(settings, wire, slots, own),
        succeed=adoption.adopt,
    )
    trial = state("trial", reached_by, lambda: build_trial(settings, transport, host, own))
    refusals = state("refusals", (server, settings.limit_field), Refusals)
    # Each of several keys has limits of its own, and a 429 rests that key.
    announces = settings.rate_limit_headers and bool(settings.url) and not keys
    start = None
    if scaling is not None and (scaling.start_wait_s or scaling.replica_usd_per_hour):
        start = state(
            "start", None, partial(build_start, scaling), revise=partial(revise_start, scaling)
        )
    waits = scaling is not None and scaling.start_wait_s > 0.0
    gated = StartGate(transport, start) if start is not None and waits else transport
    timing = timed(settings, gated)
    batcher: Batcher | None = None
    if settings.batch is not None:
        counts = state("batches", None, build_batch_stats)
        batcher = state(
            "batcher",
            (reached_by, settings.batch, settings.answer, settings.device_time, reply_bytes_max),
            lambda: build_batcher(settings, wire, timing, slots, counts, reply_bytes_max),
        )
    return Target(
        name=settings.name,
        kind=settings.kind,
        protocol=wire,
        transport=timing if batcher is None else batcher,
        on_price=ignored if batcher is None else batcher.priced,
        breaker=health.breaker,
        rest=health.rest,
        announced=health.announced if announces else None,
        trial=trial,
        price=price,
        tariff=settings.tariff() or (price if price.hours else None),
        host=host,
        path=url.path.rstrip("/").encode(),
        model=settings.model,
        declared_quality=settings.declared_accuracy,
        timeout_s=settings.timeout_s,
        first_byte_s=settings.first_byte_timeout_s,
        first_event_s=settings.first_event_timeout_s,
        slots=slots,
        cache=cache,
        start=start,
        headers=headers,
        credential=credential,
        keys=tuple(keys),
        dialect=Dialect(settings.drop_fields, settings.limit_field, refusals),
        lacks=frozenset(settings.lacks),
        context_tokens=settings.context_tokens,
        input_tokens_max=settings.input_tokens_max,
        max_output_tokens=settings.max_output_tokens,
        min_output_tokens=settings.min_output_tokens,
        max_audio_s=settings.max_audio_s,
        repeat_on_close=settings.repeat_on_close,
        drain_s=settings.abandoned_drain_s if settings.on_abandon == "drain" else 0.0,
    )


def build_credential(settings: config.BackendConfig, place: str, tell: Tell) -> Credential:
    """Return the credential at a place of a backend's settings, such as `auth`."""
    auth = settings.credentials[place]
    key, name = f"{place}.{auth.key}", auth.field_name.encode()
    try:
        return Credential(settings.name, key, auth.secret, name=name, scheme=auth.scheme, tell=tell)
    except ValueError as exc:
        where = f'[[backends]] "{settings.name}" {key}'
        raise ConfigError([Problem("", where, str(exc))]) from None


def build_start(scaling: config.ScalingConfig) -> StartState:
    """Return the state of a backend whose calls may wait for its first replica."""
    return StartState(wait_s=scaling.start_wait_s, most=scaling.start_queue)


def revise_start(scaling: config.ScalingConfig, start: StartState) -> None:
    """Apply settings to a state that is kept."""
    start.wait_s, start.most = scaling.start_wait_s, scaling.start_queue


def caches_prompts(keeps_s: float, price: Price) -> bool:
    """Whether what a backend has cached of a prompt has an effect on the price of a call."""
    return bool(keeps_s) and price.cached_input_token_nano < price.input_token_nano


def build_slots(settings: config.BackendConfig) -> ConcurrencyQueue:
    """Return the queue that limits and orders concurrent calls to a backend."""
    limiter = build_limiter(settings)
    return ConcurrencyQueue(settings.concurrency, patience_s=settings.queue_s, limiter=limiter)


def revising(settings: config.BackendConfig) -> Callable[[ConcurrencyQueue], None]:
    """Return a function that applies the settings to a queue that is kept."""

    def revise(slots: ConcurrencyQueue) -> None:
        limiter = build_limiter(settings)
        slots.revise(settings.concurrency, patience_s=settings.queue_s, limiter=limiter)

    return revise


def build_limiter(settings: config.BackendConfig) -> Limit | None:
    """Return the adaptive concurrency limiter; None if the limit is always `concurrency`."""
    if not settings.adaptive:
        return None
    kind = FirstEventLimiter if settings.protocol in LANGUAGE_MODELS else AdaptiveLimit
    return kind(settings.concurrency, tolerance=settings.latency_tolerance)


def own_fields(
    headers: Sequence[tuple[bytes, bytes]], credential: Credential | None
) -> Callable[[], Headers]:
    """Return a function that returns the header fields to add to a backend's calls."""

    def own() -> Headers:
        return [*headers, *([] if credential is None else [credential.field])]

    return own


def build_trial(
    settings: config.BackendConfig, transport: Transport, host: bytes, own: Callable[[], Headers]
) -> Trial | None:
    """Return the health check of a suspect backend; None if it has no health path."""
    if settings.health_path is None:
        return None
    if isinstance(transport, LoadBalancer):
        return Trial(of_several(transport))
    return Trial(of_one(transport, host, settings.health_path.encode(), own))


def build_transport(
    settings: config.BackendConfig,
    wire: WireProtocol,
    slots: ConcurrencyQueue | None = None,
    own: Callable[[], Headers] = list,
) -> Transport:
    """Return the transport of a backend; for rules, the rules themselves.

    If there are several addresses, their health checks carry the `own` fields too.
    """
    if settings.url is None:
        return open_rules(wire, rules=settings.rules, entry_point=settings.entry_point)
    files = settings.tls
    context = None if files is None else tls.connecting(files.ca, files.cert, files.key)
    endpoints = [
        Endpoint(
            urlsplit(url).netloc.encode(),
            open_transport(
                url,
                slots=slots,
                connect_timeout_s=settings.connect_timeout_s,
                proxy=proxy_url(url, settings.proxy_setting, os.environ)[0] or None,
                stream_idle_s=settings.event_idle_timeout_s,
                keep_alive=settings.keep_alive,
                http2=settings.http2,
                tls=context,
                barred=None if settings.allow_link_local else is_link_local,
            ),
            url,
        )
        for url in settings.urls
    ]
    if len(endpoints) == 1:
        return endpoints[0].transport
    health = settings.health_path.encode() if settings.health_path else None
    key_of = None if settings.affinity is None else key_reader(settings.affinity, wire)
    rng = Random(secrets.randbits(64))
    return LoadBalancer(endpoints, rng=rng, health=health, own=own, key_of=key_of)


def build_batch_stats() -> BatchStats:
    """Return what is counted of the batches of one backend."""
    return BatchStats(Buckets(BATCH_ROWS), Buckets(BATCH_WAITS_S))


def build_batcher(  # noqa: PLR0917 - the parts in the order they are built
    settings: config.BackendConfig,
    wire: WireProtocol,
    transport: Transport,
    slots: ConcurrencyQueue | None,
    stats: BatchStats,
    reply_bytes_max: int,
) -> Batcher:
    """Return what joins the calls to a backend."""
    assert settings.batch is not None
    return Batcher(
        transport,
        wire,
        JOINERS[wire.name](),
        size=BatchSize(settings.batch.max_size, settings.batch.server_s),
        max_wait_s=settings.batch.max_wait_ms / 1000,
        reply_bytes_max=reply_bytes_max,
        stats=stats,
        slots=slots,
    )


async def check_health(backends: Mapping[str, Target]) -> None:
    """Run the health checks of all backends with several addresses."""
    ways = [unwrapped(backend.transport) for backend in backends.values()]
    several = [transport for transport in ways if isinstance(transport, LoadBalancer)]
    await asyncio.gather(*(transport.check() for transport in several))
