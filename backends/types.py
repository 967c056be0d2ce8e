"""The values that pass between the gateway and a backend, and the ports between them.

Three parts make a backend: a `Price` (the cost of usage), a `WireProtocol` (how requests and
replies are read; pure) and a `Transport` (how bytes get there and back; I/O).
"""

import asyncio
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, dataclass_transform

from tollway.backends.needs import NOTHING, Needs
from tollway.backends.output import Output

Headers = list[tuple[bytes, bytes]]
"""Header fields in order, names in lower case."""


T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Decorate a value class used on the request path: slotted, and frozen for the type checker
    only.

    Freezing it at run time too costs 0.1 us a field and object, 8 us a request.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


class BackendError(Exception):
    """A call without a usable reply.

    `ran` says whether the backend may have done the work (and so may bill it): it is False only if
    the request was certainly never sent whole.
    """

    def __init__(self, message: str, *, ran: bool) -> None:
        super().__init__(message)
        self.ran = ran


class ConnectFailed(BackendError):  # noqa: N818 - reads as what happened
    """No connection could be established; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ran=False)


class Overloaded(ConnectFailed):
    """The backend has as many calls as it can answer in time; nothing was sent."""


class DeadlineExceeded(BackendError):  # noqa: N818
    """The attempt's deadline passed; the backend may still be working on it."""


class BadReply(BackendError):  # noqa: N818
    """The backend broke the protocol: a cut, malformed or ambiguous reply."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ran=True)


class FailedAtOnce(BadReply):
    """A stream with a first event that reports an error: no token was generated.

    `status` and `body` are those of the equivalent unary reply.
    """

    def __init__(self, message: str, status: int, body: bytes) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class BadRequest(ValueError):  # noqa: N818
    """The client's request is not valid in the route's protocol; the message says why."""


_NOT_SENT = "nothing was sent"


def mark_unsent(cancelled: asyncio.CancelledError) -> None:
    """Mark a cancellation: the call it ends had not been sent.

    Not a class of its own: `asyncio.timeout` (3.11) knows only the builtin one.
    """
    cancelled.args = (_NOT_SENT,)


def is_unsent(cancelled: BaseException | None) -> bool:
    """Whether a call was ended by a cancellation before anything was sent."""
    return isinstance(cancelled, asyncio.CancelledError) and cancelled.args == (_NOT_SENT,)


class InvalidAnswer(ValueError):  # noqa: N818
    """A reply without an answer: empty, NaN, or nothing where the answer should be.

    It says nothing about the backend's health, and the reply still goes to the client.
    """


class ReportedError(InvalidAnswer):
    """A well-formed reply with status 200 that holds an error instead of an answer.

    `begun`: part of an answer came before it, so tokens were generated.
    """

    def __init__(self, message: str, *, begun: bool = False) -> None:
        super().__init__(message)
        self.begun = begun


class ReportedFailure(ReportedError):  # noqa: N818 - reads as what happened
    """A reported error that says the call failed upstream.

    Another backend may be tried; if none answers, the reply goes to the client unchanged.
    """


@dataclass(slots=True)
class Payload:
    """A request's body, parsed once. `data` is the parsed document, None if it was not parsed."""

    data: Any = None
    binary: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """A request: origin-form target (raw path and query), end-to-end headers, body.

    `payload` is the body as the route's protocol parsed it, if it was parsed: a backend inside the
    gateway (rules) need not parse it again. `caller` identifies the sender of the request, if
    known: it matters whether several callers or a single one see an address fail.
    """

    method: bytes
    target: bytes
    headers: Headers
    body: bytes = b""
    payload: Payload | None = None
    caller: str = ""


class ByteStream(Protocol):
    """The body of a reply. Its holder reads it to its end or closes it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield chunks as they arrive, undecoded; BackendError if the body breaks off."""

    async def aclose(self) -> None:
        """Return the connection, or cut it if the body was not read to its end."""


@dataclass(slots=True)
class HttpReply:
    """A reply's head, and its body as a stream."""

    status: int
    headers: Headers
    stream: ByteStream

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body and end the stream; BadReply above `limit_bytes`."""
        chunks: list[bytes] = []
        size = 0
        try:
            async for chunk in self.stream:
                size += len(chunk)
                if size > limit_bytes:
                    raise BadReply(f"the reply is larger than {limit_bytes} bytes")
                chunks.append(chunk)
        finally:
            await self.stream.aclose()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Transport(Protocol):
    """Carries one call to one backend and its reply back. Rules implement it too, without a
    network.
    """

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Return the reply once its head has arrived.

        `deadline_s` is absolute, on the running loop's clock, and limits the whole attempt up to
        the last byte of the body. Cancellation at any point leaks nothing; before anything was sent
        it is marked (`mark_unsent`). Raises BackendError.
        """

    async def aclose(self) -> None:
        """Close every connection."""


@record
class Details:
    """The rare parts of a usage, so that most calls need not carry them.

    units: (name, count) of units that are not fields of Usage, see `tollway.backends.units`.
    billed_nano: the charge that the backend reports. service_tier: the tier that served the call,
    empty for the standard one. is_zero: the backend reported that nothing was used. is_doubtful:
    its counts do not add up. guessed: the units, or `service_tier`, that have no price at the
    backend.
    """

    units: tuple[tuple[str, float], ...] = ()
    billed_nano: int | None = None
    service_tier: str = ""
    is_zero: bool = False
    is_doubtful: bool = False
    guessed: tuple[str, ...] = ()

    @property
    def bill(self) -> int | None:
        """The backend's own charge; None if it gave none, or one of 0 for a nonzero usage."""
        return self.billed_nano if self.billed_nano or self.is_zero else None


@record
class Usage:
    """The usage of a call. `exact` is False if it is only a lower bound or an expectation."""

    calls: float = 1.0
    device_s: float = 0.0
    input_tokens: float = 0.0
    cached_input_tokens: float = 0.0
    output_tokens: float = 0.0
    exact: bool = True
    more: Details | None = None

    @property
    def units(self) -> tuple[tuple[str, float], ...]:
        """The units that are not fields, as (name, count)."""
        return () if self.more is None else self.more.units


@record
class ModelAnswer:
    """The contents of a reply, in the form that policies and scores use.

    `value` is the answer itself (a label, a number, a text, or None if unknown); `features` are
    numbers of the order of 1 that express the reply's confidence: top probability, margin to the
    second, normalised entropy, ... (see the protocol), empty if none.
    """

    value: Any = None
    features: tuple[float, ...] = ()


Prompt = list[tuple[Hashable, int]]
"""The parts of a prompt in the order in which a model reads them, and how many characters each has;
parts are equal if the model reads the same.
"""


FAILOVER_STATUSES = frozenset({301, 302, 303, 307, 308, 404, 405, 410})
"""Statuses with which a server says that the requested resource is missing, or elsewhere: its URL
in the configuration is wrong, or the request's path.
"""


@record
class Addition:
    """A field that the gateway itself adds to a request.

    `path` is the dotted name of the member to remove from the request again to undo it, and `words`
    are those by which a refusal would name it.
    """

    name: str
    path: str
    words: tuple[bytes, ...]


class UnaryProtocol:
    """The common parts of protocols with unary replies and without bounds in requests."""

    def bound(self, call: Call, payload: Payload) -> Usage:
        """Return that no bound is known."""
        return UNBOUND

    def output(self, call: Call, payload: Payload) -> Output | None:
        """Return None: no request limits its reply."""
        return None

    def follow(self, payload: Payload) -> "StreamReader | None":
        """Return None: no reply is streamed."""
        return None

    def prompt(self, payload: Payload) -> Prompt:
        """Return an empty prompt: there is none."""
        return []

    def added(self, payload: Payload) -> tuple[Addition, ...]:
        """Return nothing: the gateway adds no fields."""
        return ()

    def needs(self, call: Call, payload: Payload, room: float) -> Needs:
        """Return no needs: all backends support all requests."""
        return NOTHING

    def outgrown(self, refusal: bytes) -> bool:
        """Return False: there is no context that a request could exceed."""
        return False


UNBOUND = Usage(exact=False)


class StreamReader(Protocol):
    """Reads a streamed reply as it passes, and decides what of it goes to the client.

    `error` is the error that the stream reported, or None. `begun`: whether an event with data has
    come; a comment has none. `spoken_bytes`: how much text has come, in UTF-8.
    """

    error: Any
    begun: bool
    spoken_bytes: int

    def feed(self, chunk: bytes) -> bytes:
        """Read a chunk; return the part of all chunks so far to forward. ValueError if it is no
        stream.

        Whole events are forwarded: none is cut, none is changed.
        """

    def close(self) -> bytes:
        """Return what is left at the end: an event without its blank line."""

    def mute(self) -> None:
        """Store no more of the answer: from now on only the usage is needed."""

    def refusal(self) -> tuple[int, bytes]:
        """Return the status and body of a unary reply with the error that the stream reports."""

    @property
    def waiting(self) -> int:
        """How many bytes of an unfinished event are buffered."""

    def told(self, headers: Headers) -> Usage | None:
        """Return the usage: exact if the stream reported it, else at least what was seen.

        `headers` are the reply's: they may report device seconds.
        """

    def answer(self) -> ModelAnswer:
        """Return the answer so far; InvalidAnswer if there is none."""


class WireProtocol(Protocol):
    """Reads the requests and replies of one protocol. Pure: bytes and values in, values out."""

    name: str
    failover_statuses: frozenset[int]
    """Refusals that are not the request's fault: the backend's servers do not have the model. Empty
    if clients can cause them, because their requests name the resource.
    """

    def parse(self, call: Call) -> Payload:
        """Read a request's body; BadRequest if it is not of this protocol."""

    def readdress(self, call: Call, path: bytes, model: str | None, payload: Payload) -> Call:
        """Return the call in the backend's form: its base `path`, its name of the model."""

    def bound(self, call: Call, payload: Payload) -> Usage:
        """Return the maximum that a call can use, from its request; 0 if the request sets none."""

    def output(self, call: Call, payload: Payload) -> Output | None:
        """Return a request's limits on the length of its answers; None if the protocol has none."""

    def follow(self, payload: Payload) -> StreamReader | None:
        """Return a reader of the stream that a request asks for; None if it asks for none."""

    def added(self, payload: Payload) -> tuple[Addition, ...]:
        """Return the fields that `readdress` itself adds, which a backend may refuse."""

    def needs(self, call: Call, payload: Payload, room: float) -> Needs:
        """Return what a request needs of a model; `room` is the smallest context on its route."""

    def outgrown(self, refusal: bytes) -> bool:
        """Whether the body of a 4xx says that the request is too long for the model's context."""

    def prompt(self, payload: Payload) -> Prompt:
        """Return the prompt; a server may have cached a prefix of it. Empty if there is none."""

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the usage that the reply reports; None if it reports none."""

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the answer; InvalidAnswer if there is none."""

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return (content type, body) of a refusal in the shape this protocol's clients read.

        `problem` is an RFC 9457 object: type, title, status, detail and extension members.
        """
