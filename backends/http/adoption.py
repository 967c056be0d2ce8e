"""Carries over the state of a backend's addresses to the transport that replaces its last.

The state is kept by address: an address in both transports keeps what was learned about how its
server closes connections, and, if there are several addresses, its ejections and its health.
"""

from tollway.backends.http.load_balancer import LoadBalancer
from tollway.backends.http.pool import Http1Transport
from tollway.backends.ports import Transport


def adopt(new: Transport, old: Transport) -> None:
    """Copy what `old` learned of the addresses that both share to `new`."""
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
