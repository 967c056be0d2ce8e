"""The arm that gives a kept answer: a backend inside the gateway, whose every call is free.

It is made per entry, when the entry is first given, and offered only to the requests that found it.
"""

from collections.abc import AsyncIterator, Sequence

from tollway.backends.json_members import edited
from tollway.backends.output import OutputLimit
from tollway.backends.pricing import Price
from tollway.backends.protocols.oip.body import HEAD_LENGTH
from tollway.backends.types import Addition, Call, Headers, HttpReply
from tollway.gateway.caching.entry import Entry
from tollway.gateway.caching.plan import PREFIX
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.record import record

KIND = "cache"
FREE = Price()
ECHOES = "oip"
"""The protocol whose replies repeat the `id` of their request."""


@record
class CachedAnswer:
    """A kept answer that a request found.

    `arm`: gives it. `age_s`: how old it is. `saved_nano`: what its backend's call cost when it was
    made. `found`: `hit`, `stale` or `joined`. `only`: it is all that is offered, because the
    request has waited for it. `lost`: it was drawn already that this answer is not given.
    """

    arm: Target
    backend: str
    age_s: float
    cost_nano: int
    found: str
    only: bool = False
    lost: bool = False


class Replay:
    """The transport of one entry."""

    # An entry does not change, and neither does this.

    def __init__(self, entry: Entry, protocol: str) -> None:
        self._entry = entry
        self._protocol = protocol

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Return the kept reply; a stream in the pieces in which it came."""
        entry = self._entry
        if entry.pieces:
            return HttpReply(200, entry.headers, _Pieces(entry))
        headers, body = replayed(entry, self._protocol, call)
        return HttpReply(200, headers, _Whole(body), whole=body)

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""


class CacheTarget(Target):
    """The arm of one entry. Its calls are not rewritten: nothing reads them."""

    __slots__ = ()

    @property
    def is_local(self) -> bool:
        """True: it answers inside the gateway."""
        return True

    def address(
        self, call: Call, without: Sequence[Addition] = (), limit: OutputLimit | None = None
    ) -> Call:
        """Return a call that can be given the deadline and trace of the attempt."""
        return Call(call.method, call.target, [], b"", call.payload)


def arm_of(entry: Entry, route: RoutePlan) -> Target:
    """Return the arm of an entry; its answer is read as its backend's are."""
    origin = route.backends.get(entry.backend)
    if entry.target is None:
        entry.target = CacheTarget(
            name=PREFIX + entry.backend,
            kind=KIND,
            protocol=route.protocol if origin is None else origin.protocol,
            transport=Replay(entry, route.protocol.name),
            price=FREE,
            timeout_s=route.timeout_s,
            declared_quality=entry.quality,
        )
    target: Target = entry.target
    return target


class _Whole:
    """A body that is there, as a stream of one chunk."""

    # The mutable state is whether it was read.

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._body:
            raise StopAsyncIteration
        body, self._body = self._body, None
        return body

    async def aclose(self) -> None:
        """Release the body."""
        self._body = None


class _Pieces:
    """A stream that is there, in the pieces in which it came."""

    # The mutable state is how many pieces and bytes were read.

    def __init__(self, entry: Entry) -> None:
        self._body, self._pieces = entry.body, entry.pieces
        self._next = self._at = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._next >= len(self._pieces):
            raise StopAsyncIteration
        start = self._at
        self._at += self._pieces[self._next]
        self._next += 1
        return self._body[start : self._at]

    async def aclose(self) -> None:
        """Read no further."""
        self._next = len(self._pieces)


def replayed(entry: Entry, protocol: str, call: Call) -> tuple[Headers, bytes]:
    """Return the header fields and the body of a kept reply, with the `id` of this request."""
    headers, body = entry.headers, entry.body
    if protocol == ECHOES and (given := id_of(call)) != entry.echoed:
        body = edited(body, {"id": given})
        headers = with_headers(headers, (b"content-length", b"%d" % len(body)))
    return headers, body


def id_of(call: Call) -> str | None:
    """Return the `id` of a request; None if it has none."""
    given = call.payload.data.get("id") if isinstance(call.payload.data, dict) else None
    return given if isinstance(given, str) else None


def echoes_plainly(call: Call, headers: Headers) -> bool:
    """Return whether the `id` in a reply can be replaced, or need not be.

    A reply of raw tensors cannot be edited; it need not be if the key has the whole request, as
    that of a request of raw tensors has.
    """
    return bool(call.payload.binary) or not any(name == HEAD_LENGTH for name, _ in headers)


def with_headers(headers: Headers, *more: tuple[bytes, bytes]) -> Headers:
    """Return header fields with some replaced or added."""
    names = {name for name, _ in more}
    return [*[pair for pair in headers if pair[0] not in names], *more]
