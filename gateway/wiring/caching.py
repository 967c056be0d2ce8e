"""Builds caches: what a route keeps, the tiers that keep it, and the driver that looks there."""

import secrets
import time
from collections.abc import Callable
from hashlib import blake2b
from random import Random

from tollway.gateway import settings as config
from tollway.gateway.caching.keys import ALWAYS_MATTER, HARMLESS, OF_PROVIDERS, ignored_members
from tollway.gateway.caching.memory import MemoryCache
from tollway.gateway.caching.plan import CacheCounts, CachePlan
from tollway.gateway.caching.remote import RemoteCache
from tollway.gateway.caching.shared_flights import SharedFlights
from tollway.gateway.features.online.join import RouteFeatures
from tollway.gateway.routing.cached.caching_driver import CachingDriver
from tollway.gateway.routing.cached.repeated import Repeats
from tollway.gateway.routing.driver import Driver
from tollway.gateway.wiring.states import Stage

ENTRY_BYTES_MAX = 1 << 20  # of an answer in Redis: larger ones would hold up others' reads


def build_cache_plan(
    route: config.RouteConfig,
    settings: config.Settings,
    stage: Stage,
    online: RouteFeatures | None = None,
) -> CachePlan | None:
    """Return what a route keeps of its answers; None if nothing.

    `online`: its features from outside, which may be sent on to backends in header fields.
    """
    cache = route.cache
    if cache is None:
        return None
    sent = [one.onward.header for one in online.members] if online is not None else []
    counts = stage.get(("route", route.name, "cache"), None, CacheCounts)
    varies = frozenset(name.encode() for name in cache.headers)
    forwarded = frozenset(name.encode() for name in route.forward_headers)
    always = ALWAYS_MATTER
    if cache.scope == "route" and route.protocol == "http":
        # They are not sent on, so nothing depends on them; and nginx keeps no answer whose `Vary`
        # is longer than 128 characters.
        always -= OF_PROVIDERS
    matter = always | varies | forwarded | set(filter(None, sent))
    return CachePlan(
        version=_version(route, settings),
        protocol=route.protocol,
        ttl_s=cache.ttl_s,
        stale_s=cache.stale_s,
        early=cache.early,
        is_public=cache.scope == "route",
        always=cache.sampled,
        ignored=ignored_members(route.protocol, cache.ignore),
        headers=matter,
        onward=matter | HARMLESS | _affinities(route, settings) if cache.scope == "route" else None,
        entry_bytes_max=cache.max_kb << 10,
        join_s=cache.join_s,
        # A cache downstream does not know the features, on which the answer depends.
        client_s=cache.client_max_age_s if online is None else None,
        counts=counts,
    )


def _affinities(route: config.RouteConfig, settings: config.Settings) -> set[bytes]:
    """Return the header fields by which backends keep calls on one replica."""
    told = [one.affinity or "" for one in settings.backends if one.name in route.backends]
    return {
        name.lower().encode()
        for kind, _, name in [text.partition(":") for text in told]
        if kind == "header"
    }


def _version(route: config.RouteConfig, settings: config.Settings) -> bytes:
    """Return a digest of the settings that an answer depends on."""
    assert route.cache is not None
    answering = [
        (
            *(one.name, one.urls if one.url else None, one.model, one.answer, one.protocol),
            *(one.api_version, sorted(one.headers.items()), one.drop_fields),
            *(one.rules, one.entry_point),
        )
        for one in settings.backends
        if one.name in route.backends
    ]
    own = route.of("name", "path", "protocol", "strip_path", "request_schema", "response_schema")
    cache = route.cache
    how = (cache.version, cache.scope, cache.ignore, cache.sampled)
    text = repr((own, answering, how))
    return blake2b(text.encode(), digest_size=16).digest()


def build_caching_driver(
    settings: config.CacheConfig,
    driver: Driver,
    repeats: Repeats,
    *,
    clock: Callable[[], float],
    wall: Callable[[], float] = time.time,
) -> CachingDriver:
    """Return the driver of the routes with a cache."""
    memory = MemoryCache(bytes_max=settings.memory_mb << 20, entries_max=settings.entries)
    remote = shared = None
    if settings.url is not None:
        from tollway.gateway.caching.redis_store import RedisStore  # noqa: PLC0415 - an extra

        password = settings.password.get_secret_value() if settings.password else None
        store = RedisStore(settings.url, password)
        remote = RemoteCache(store, entry_bytes_max=ENTRY_BYTES_MAX, clock=clock)
        shared = SharedFlights(store, remote, clock=clock)
    # Separate from the router's generator, so that its draws do not change.
    rng = Random(secrets.randbits(64))
    return CachingDriver(
        driver, memory, remote, repeats, clock=clock, wall=wall, rng=rng, shared=shared
    )
