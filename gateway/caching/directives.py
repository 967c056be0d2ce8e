"""What a request demands of the cache, and what a reply allows (RFC 9111).

A request says it by `Cache-Control`, or by `x-tollway-cache: bypass` (neither read nor kept) or
`refresh` (not read, but kept).
"""

from tollway.backends.documents import streams_events
from tollway.backends.types import Headers
from tollway.record import record

OWN = b"x-tollway-cache"
BYPASS, REFRESH = "bypass", "refresh"
MODES = (BYPASS, REFRESH)


@record
class Demand:
    """What a request demands: whether to look up an answer, whether to keep the fresh one.

    `age_s_max`: the oldest answer that it takes; None for any. `only_cached`: it takes no other.
    """

    looks: bool = True
    keeps: bool = True
    age_s_max: float | None = None
    only_cached: bool = False


ANY = Demand()


def demand(headers: Headers, mode: str) -> Demand:
    """Return the demand of a request; `mode` is that of its own header field, empty if none."""
    given = None
    for name, value in headers:
        if name == b"cache-control":
            given = value if given is None else given + b"," + value
    if given is None and not mode:
        return ANY
    said = {} if given is None else directives(given)
    only = "only-if-cached" in said
    if mode == BYPASS or (not mode and "no-store" in said):
        return Demand(looks=False, keeps=False, only_cached=only)
    if mode == REFRESH or "no-cache" in said:
        return Demand(looks=False, only_cached=only)
    return Demand(age_s_max=seconds(said.get("max-age")), only_cached=only)


def directives(value: bytes) -> dict[str, str]:
    """Return the directives of a Cache-Control field, names in lower case."""
    said = {}
    for part in value.decode("latin-1").split(","):
        name, _, argument = part.partition("=")
        said[name.strip().lower()] = argument.strip().strip('"')
    return said


def seconds(argument: str | None) -> float | None:
    """Return the seconds of a directive; 0 if it is invalid, None if it is not there."""
    if argument is None:
        return None
    return float(argument) if argument.isdecimal() else 0.0


_OURS = frozenset((b"accept", b"accept-encoding", b"accept-language", b"authorization", b"origin"))


def lifetime_s(headers: Headers, ttl_s: float, known: frozenset[bytes]) -> float:
    """Return how long a reply may be kept, at most `ttl_s`; 0 if it may not be.

    `known`: the header fields of requests that are part of the key. A reply that sets a cookie, is
    private, or varies by anything else is not kept. `no-store` and `no-cache` on a stream of events
    are no statement about its contents: frameworks set them against proxies that buffer.
    """
    aged_s, barred = 0.0, {"private"}
    if not streams_events(headers):
        barred |= {"no-store", "no-cache"}
    for name, value in headers:
        if name == b"content-range" or (name == b"set-cookie" and not _is_balancers(value)):
            return 0.0
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            return 0.0
        if name == b"age":
            aged_s = seconds(value.decode("latin-1").strip()) or 0.0
        elif name == b"vary":
            fields = {one.strip().lower() for one in value.split(b",")}
            if not fields <= _OURS | known:
                return 0.0
        elif name == b"cache-control":
            said = directives(value)
            if said.keys() & barred:
                return 0.0
            for limit in ("s-maxage", "max-age"):
                allowed_s = seconds(said.get(limit))
                if allowed_s is not None:
                    ttl_s = min(ttl_s, allowed_s)
                    break
    return max(0.0, ttl_s - aged_s)


_BALANCERS = (b"__cf_bm", b"_cfuvid", b"__cflb", b"AWSALB", b"AWSALBCORS", b"GCLB")
"""Cookies of load balancers in front of a backend, which say nothing about the reply."""


def _is_balancers(cookie: bytes) -> bool:
    return cookie.partition(b"=")[0].strip() in _BALANCERS


_OF_ONE_REPLY = frozenset(
    (
        *(b"age", b"connection", b"date", b"keep-alive", b"retry-after", b"set-cookie"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    )
)


def kept(headers: Headers) -> Headers:
    """Return the header fields of a reply that hold for later ones too."""
    return [
        (name, value)
        for name, value in headers
        if name not in _OF_ONE_REPLY and b"ratelimit" not in name and b"rate-limit" not in name
    ]
