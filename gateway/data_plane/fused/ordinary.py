"""Ordinary: which routes and which replies the fused path may take."""

from tollway.backends.http.connection import KnownReply
from tollway.backends.http.pool import Http1Transport
from tollway.backends.types import Headers
from tollway.gateway.routing.health.announced import MARK
from tollway.gateway.routing.plan import RoutePlan, Target


def is_ordinary(route: RoutePlan) -> bool:
    """Whether requests of a route may take the fused path."""
    if not route.is_direct or route.cascade or route.sticky is not None or route.is_limited:
        return False
    if route.forward_headers or route.request_schema is not None:
        return False
    if route.fallbacks.chain or route.fallbacks.static_response is not None:
        return False
    if route.protocol.withholds is not None:
        return False
    return all(map(_is_ordinary, route.backends.values()))


def _is_ordinary(backend: Target) -> bool:
    """Whether a backend may be called on the fused path."""
    needs = (
        backend.first_byte_s,
        backend.cache,
        backend.expects,
        backend.credential,
        backend.start,
    )
    return (
        type(backend.transport) is Http1Transport
        and backend.is_transparent
        and not backend.keyed
        and all(one is None for one in needs)
    )


def is_plain(headers: Headers) -> bool:
    """Whether a reply with these fields is not coded, and says nothing of rate limits."""
    return not any(MARK in name or name == b"content-encoding" for name, _ in headers)


def is_known_plain(known: KnownReply) -> bool:
    """Return `is_plain` of a known head."""
    if known.is_plain is None:
        known.is_plain = is_plain(known.headers)
    return known.is_plain
