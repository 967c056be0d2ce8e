"""Tells caches downstream (browsers, CDNs) how long they may keep an answer to GET (RFC 9111).

`Cache-Control` has the time that is left, counted from when the answer was made; `Age` how long ago
that was; `Vary` the header fields that the answer depends on; `ETag` the answer's digest. A request
that has the answer already (`If-None-Match`) gets 304 without a body.
"""

from dataclasses import replace
from hashlib import blake2b

from tollway.backends.types import Headers
from tollway.gateway.caching.directives import lifetime_s
from tollway.gateway.caching.plan import CachePlan
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.security.header_names import CREDENTIALS

_CONDITIONS = frozenset((b"if-none-match", b"if-modified-since"))
_REPLACED = frozenset((b"age", b"cache-control", b"etag", b"vary"))
OK, NOT_MODIFIED = 200, 304


def unconditional(headers: Headers) -> tuple[Headers, Headers]:
    """Return a request's header fields without its conditions, and the conditions.

    The gateway answers them itself: a 304 of a backend could not be kept for others.
    """
    for name, _ in headers:
        if name in _CONDITIONS:
            break
    else:
        return headers, []
    return (
        [pair for pair in headers if pair[0] not in _CONDITIONS],
        [pair for pair in headers if pair[0] == b"if-none-match"],
    )


def told_downstream(
    state: RequestState, plan: CachePlan, conditions: Headers, now_s: float
) -> None:
    """Add the header fields to a whole reply, or turn it into a 304. The journal is not changed."""
    held, cached = state.held, state.inference.cached
    assert held is not None and plan.client_s is not None
    if held.status != OK or held.error or held.relay is not None:
        return
    left_s = lifetime_s(held.headers, plan.ttl_s, plan.headers)
    if left_s <= 0.0:
        return  # what the backend says of it stands, such as `private` or `no-store`
    tag = b'"%b"' % blake2b(held.body, digest_size=12).hexdigest().encode()
    kept = [pair for pair in held.headers if pair[0] not in _REPLACED]
    vary = {b"accept-encoding", *plan.headers}
    if not plan.is_public:
        vary |= {b"authorization", b"x-api-key"}
    fields: Headers = [(b"vary", b", ".join(sorted(vary))), (b"etag", tag)]
    is_kept = cached is not None and held.backend == cached.arm.name
    age_s = 0
    if is_kept:
        assert cached is not None
        age_s = int(cached.age_s)
        left_s = max(0.0, left_s - cached.age_s)
        fields.append((b"age", b"%d" % age_s))
    client_s = int(min(plan.client_s, left_s))
    is_shared = plan.is_public and not plan.headers & CREDENTIALS
    whose = b"public" if is_shared else b"private"
    said = b"%b, max-age=%d" % (whose, age_s + client_s) if client_s else b"no-cache"
    if client_s and plan.stale_s:
        said += b", stale-while-revalidate=%d" % int(plan.stale_s)
    fields.append((b"cache-control", said))
    if any(_names(value, tag) for _, value in conditions):
        kept = [pair for pair in kept if not pair[0].startswith(b"content-")]
        state.held = replace(held, status=NOT_MODIFIED, body=b"", headers=[*kept, *fields])
    else:
        state.held = replace(held, headers=[*kept, *fields])


def _names(value: bytes, tag: bytes) -> bool:
    """Whether a list of entity tags has one, compared weakly (RFC 9110 8.8.3.2)."""
    given = [one.strip().removeprefix(b"W/") for one in value.split(b",")]
    return b"*" in given or tag in given
