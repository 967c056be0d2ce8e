"""Carries over what was learned of a backend's addresses to the transport that replaces its last.

By address: one that both transports have keeps what is known of how its server closes connections,
and, where there are several, its ejections and its health.
"""

from tollway.backends.http.load_balancer import LoadBalancer
from tollway.backends.http.pool import Http1Transport
from tollway.backends.types import Transport


def adopt(new: Transport, old: Transport) -> None:
    """Have `new` go on with what `old` learned of the addresses that they share."""
    if isinstance(new, LoadBalancer) and isinstance(old, LoadBalancer):
        before = {end.url: end for end in old.endpoints}
        for end in new.endpoints:
            if end.url in before:
                end.adopt(before[end.url])
    known = {one.url: one.reuse for one in _ways(old)}
    for one in _ways(new):
        if one.url in known:
            one.reuse.adopt(known[one.url])


def _ways(transport: Transport) -> list[Http1Transport]:
    """Return a transport's own pools of HTTP/1.1 connections."""
    if isinstance(transport, LoadBalancer):
        ends = [end.transport for end in transport.endpoints]
        return [one for one in ends if isinstance(one, Http1Transport)]
    return [transport] if isinstance(transport, Http1Transport) else []
