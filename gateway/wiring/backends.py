"""Builds backends: their prices, concurrency slots and transports."""

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from random import Random
from urllib.parse import urlsplit

from tollway.backends.concurrency.first_event_limit import FirstEventLimiter
from tollway.backends.concurrency.limiter import AdaptiveLimit
from tollway.backends.concurrency.queue import ConcurrencyQueue, Limit
from tollway.backends.dialect import Dialect
from tollway.backends.http.factory import open_transport
from tollway.backends.http.load_balancer import Endpoint, LoadBalancer
from tollway.backends.http.proxies import proxy_url
from tollway.backends.protocols.registry import protocol
from tollway.backends.rules.backend import open_rules
from tollway.backends.types import Headers, Transport, WireProtocol
from tollway.gateway import settings as config
from tollway.gateway.estimation.prompt_cache import PromptCacheTracker
from tollway.gateway.routing.backend import Backend
from tollway.gateway.routing.health.trial import Trial, of_one, of_several
from tollway.gateway.security import tls
from tollway.gateway.security.addresses import is_link_local
from tollway.gateway.security.credentials import Credential, Tell, tell_nobody
from tollway.gateway.settings.errors import ConfigError, Problem

BY_LENGTH = frozenset(("openai",))
"""Protocols of models with a latency that depends on reply length rather than on load."""


def build_backend(
    settings: config.BackendConfig,
    tell: Tell = tell_nobody,
    *,
    slots: ConcurrencyQueue | None = None,
    credential: Credential | None = None,
    transport: Transport | None = None,
) -> Backend:
    """Return a backend with its price and transport; `tell` receives events of its credential.

    Uses the parts that are passed in, and builds the others. Raises ConfigError if the secret
    cannot be read.
    """
    url = urlsplit(settings.url or "")
    wire = protocol(settings.protocol or "oip")
    slots = slots or (build_slots(settings) if settings.url else None)
    host = url.netloc.encode()
    credential = credential or build_credential(settings, tell)
    headers = [
        (name.encode(), value.get_secret_value().encode("latin-1"))
        for name, value in settings.headers.items()
    ]
    price = settings.parsed_price()
    own = own_fields(headers, credential)
    transport = transport or build_transport(settings, wire, slots, own)
    return Backend(
        name=settings.name,
        kind=settings.kind,
        protocol=wire,
        transport=transport,
        trial=build_trial(settings, transport, host, own),
        price=price,
        tariff=price if price.hours else None,
        host=host,
        path=url.path.rstrip("/").encode(),
        model=settings.model,
        declared_quality=settings.declared_accuracy,
        timeout_s=settings.timeout_s,
        first_byte_s=settings.first_byte_timeout_s,
        first_event_s=settings.first_event_timeout_s,
        slots=slots,
        cache=build_cache(settings),
        headers=headers,
        credential=credential,
        dialect=Dialect(settings.drop_fields, settings.limit_field),
        lacks=frozenset(settings.lacks),
        context_tokens=settings.context_tokens,
        input_tokens_max=settings.input_tokens_max,
        max_output_tokens=settings.max_output_tokens,
        min_output_tokens=settings.min_output_tokens,
        repeat_on_close=settings.repeat_on_close,
        drain_s=settings.abandoned_drain_s if settings.on_abandon == "drain" else 0.0,
    )


def build_credential(settings: config.BackendConfig, tell: Tell) -> Credential | None:
    """Return the credential of a backend's calls; None if the gateway adds none."""
    auth = settings.auth
    if auth is None:
        return None
    key, name = f"auth.{auth.key}", auth.field_name.encode()
    try:
        return Credential(settings.name, key, auth.secret, name=name, scheme=auth.scheme, tell=tell)
    except ValueError as exc:
        place = f'[[backends]] "{settings.name}" {key}'
        raise ConfigError([Problem("", place, str(exc))]) from None


def build_cache(settings: config.BackendConfig) -> PromptCacheTracker | None:
    """Return the tracker of prompts that a backend has cached; None if caching has no effect."""
    price = settings.parsed_price()
    if not settings.prompt_cache_s or price.cached_input_token_nano >= price.input_token_nano:
        return None
    return PromptCacheTracker(keeps_s=settings.prompt_cache_s)


def build_slots(settings: config.BackendConfig) -> ConcurrencyQueue:
    """Return the queue that limits and orders concurrent calls to a backend."""
    limiter = build_limiter(settings)
    return ConcurrencyQueue(settings.concurrency, patience_s=settings.queue_s, limiter=limiter)


def build_limiter(settings: config.BackendConfig) -> Limit | None:
    """Return the adaptive concurrency limiter; None if the limit is always `concurrency`."""
    if not settings.adaptive:
        return None
    kind = FirstEventLimiter if settings.protocol in BY_LENGTH else AdaptiveLimit
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
    return LoadBalancer(endpoints, rng=Random(secrets.randbits(64)), health=health, own=own)


async def check_health(backends: Mapping[str, Backend]) -> None:
    """Run the health checks of all backends with several addresses."""
    several = [b.transport for b in backends.values() if isinstance(b.transport, LoadBalancer)]
    await asyncio.gather(*(transport.check() for transport in several))
