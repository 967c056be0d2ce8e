"""The values that pass between the gateway and a backend, and the ports on the way.

Three parts make a backend: a `Price` (what usage costs), a `WireProtocol` (how requests and replies
are read; pure) and a `Transport` (how bytes get there and back; I/O).
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
    """Make a value that the path creates: slotted, and frozen for the type checker alone.

    Freezing it at run time too costs 0.1 us a field and object, 8 us a request.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


class BackendError(Exception):
    """A call that brought no usable reply.

    `ran` says whether the backend may have done the work (and so may bill it): False only where it
    is certain that the request was never handed over whole.
    """

    def __init__(self, message: str, *, ran: bool) -> None:
        super().__init__(message)
        self.ran = ran


class ConnectFailed(BackendError):  # noqa: N818 - reads as what happened
    """No connection could be had; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ran=False)


class Overloaded(ConnectFailed):
    """The backend has as many calls as it can answer in time; nothing was sent."""


class DeadlineExceeded(BackendError):  # noqa: N818
    """The attempt's deadline passed; the backend may be working on it still."""


class BadReply(BackendError):  # noqa: N818
    """The backend broke the protocol: a cut, malformed or ambiguous reply."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ran=True)


class FailedAtOnce(BadReply):
    """A stream whose first event reports an error: no token was generated.

    `status` and `body` are those of a reply that says so without a stream.
    """

    def __init__(self, message: str, status: int, body: bytes) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class BadRequest(ValueError):  # noqa: N818
    """The client's request cannot be read as the route's protocol; the message says why."""


_NOT_SENT = "nothing was sent"


def mark_unsent(cancelled: asyncio.CancelledError) -> None:
    """Note in a cancellation that the call it ends had not been sent.

    Not a class of its own: `asyncio.timeout` (3.11) knows only the builtin one.
    """
    cancelled.args = (_NOT_SENT,)


def is_unsent(cancelled: BaseException | None) -> bool:
    """Whether what ended a call is a cancellation before anything was sent."""
    return isinstance(cancelled, asyncio.CancelledError) and cancelled.args == (_NOT_SENT,)


class InvalidAnswer(ValueError):  # noqa: N818
    """A reply that came and holds no answer: empty, NaN, or nothing where the answer should be.

    It says nothing about the backend's health, and the reply still goes to the client.
    """


class ReportedError(InvalidAnswer):
    """A well-formed reply with status 200 that holds an error in place of an answer.

    `begun`: part of an answer came before it, so tokens were generated.
    """

    def __init__(self, message: str, *, begun: bool = False) -> None:
        super().__init__(message)
        self.begun = begun


class ReportedFailure(ReportedError):  # noqa: N818 - reads as what happened
    """One that reports that the call failed upstream.

    Another backend may be asked; where none answers, the reply goes to the client unchanged.
    """


@dataclass(slots=True)
class Payload:
    """A request's body, parsed once. `data` is the parsed document, None where it was not read."""

    data: Any = None
    binary: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """A request: origin-form target (raw path and query), end-to-end headers, body.

    `payload` is the body as the route's protocol parsed it, where it was parsed: a backend inside
    the gateway (rules) need not parse it again. `caller` is whose request it is, where that is
    known: whether several callers or one alone see an address fail makes a difference.
    """

    method: bytes
    target: bytes
    headers: Headers
    body: bytes = b""
    payload: Payload | None = None
    caller: str = ""


class ByteStream(Protocol):
    """The body of a reply. Whoever holds it reads it to its end or closes it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield chunks as they arrive, undecoded; BackendError where the body breaks off."""

    async def aclose(self) -> None:
        """Give the connection back, or cut it where the body was not read to its end."""


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
    """Carries one call to one backend and its reply back. Rules are one too, without a wire."""

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Return the reply once its head is there.

        `deadline_s` is absolute, on the running loop's clock, and binds the whole attempt up to the
        last byte of the body. Cancellation at any point leaks nothing; before anything was sent it
        is marked (`mark_unsent`). Raises BackendError.
        """

    async def aclose(self) -> None:
        """Close every connection."""


@record
class Details:
    """What few calls have of usage, so that the others need not carry it.

    units: (name, count) of units that are not fields of Usage, see `tollway.backends.units`.
    billed_nano:
    what the backend says that it charges. service_tier: as which the call was served, empty for the
    standard one. is_zero: the backend reported that nothing was used. is_doubtful: its counts do
    not add up. guessed: the units, or `service_tier`, that have no price at the backend.
    """

    units: tuple[tuple[str, float], ...] = ()
    billed_nano: int | None = None
    service_tier: str = ""
    is_zero: bool = False
    is_doubtful: bool = False
    guessed: tuple[str, ...] = ()

    @property
    def bill(self) -> int | None:
        """The backend's own charge; None where it gave none, or one of 0 for what was used."""
        return self.billed_nano if self.billed_nano or self.is_zero else None


@record
class Usage:
    """What a call used. `exact` is False where it is only a lower bound or an expectation."""

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
    """What a reply says, as a policy and a score can use it.

    `value` is the answer itself (a label, a number, a text, or None where it cannot be told);
    `features` are numbers of the order of 1 that the reply tells of its own confidence: top
    probability, margin to the second, normalised entropy, ... (see the protocol), empty if none.
    """

    value: Any = None
    features: tuple[float, ...] = ()


Prompt = list[tuple[Hashable, int]]
"""The parts of a prompt in the order in which a model reads them, and how many characters each has;
parts are equal where the model reads the same."""


FAILOVER_STATUSES = frozenset({301, 302, 303, 307, 308, 404, 405, 410})
"""Statuses by which a server says that what is asked for is not there, or elsewhere: its URL in the
configuration is wrong, or the request's path."""


@record
class Addition:
    """A field that the gateway adds to a request of its own.

    `path` is the dotted name of what has to be taken out of the request again to undo it, and
    `words` are those by which a refusal of it would name it.
    """

    name: str
    path: str
    words: tuple[bytes, ...]


class UnaryProtocol:
    """What protocols share whose replies come whole and whose requests bound nothing."""

    def bound(self, call: Call, payload: Payload) -> Usage:
        """Return that nothing is known."""
        return UNBOUND

    def output(self, call: Call, payload: Payload) -> Output | None:
        """Return None: no request limits its reply."""
        return None

    def follow(self, payload: Payload) -> "StreamReader | None":
        """Return None: no reply is streamed."""
        return None

    def prompt(self, payload: Payload) -> Prompt:
        """Return nothing: there is no prompt."""
        return []

    def added(self, payload: Payload) -> tuple[Addition, ...]:
        """Return nothing: requests go on as they are."""
        return ()

    def needs(self, call: Call, payload: Payload, room: float) -> Needs:
        """Return nothing: all backends can do all requests."""
        return NOTHING

    def outgrown(self, refusal: bytes) -> bool:
        """Return False: there is no context that a request could outgrow."""
        return False


UNBOUND = Usage(exact=False)


class StreamReader(Protocol):
    """Reads a streamed reply as it passes, and says what of it goes to the client.

    `error` is what the stream said went wrong, None where nothing did. `begun`: whether an event
    has come that carries data; a comment does not. `spoken_bytes`: how much text has come, in
    UTF-8.
    """

    error: Any
    begun: bool
    spoken_bytes: int

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk; return what of all taken so far goes on. ValueError where it is no stream.

        What goes on is whole events: none is cut, none is changed.
        """

    def close(self) -> bytes:
        """Return what is left at the end: an event without its blank line."""

    def mute(self) -> None:
        """Keep no more of the answer: from now on only the usage is of interest."""

    def refusal(self) -> tuple[int, bytes]:
        """Return the status and the body of a reply that says what the stream reports as error."""

    @property
    def waiting(self) -> int:
        """How many bytes of an unfinished event are buffered."""

    def told(self, headers: Headers) -> Usage | None:
        """Return the usage: exact where the stream told it, else what was seen, at least.

        `headers` are the reply's: they may tell device seconds.
        """

    def answer(self) -> ModelAnswer:
        """Return the answer so far; InvalidAnswer where it is none."""


class WireProtocol(Protocol):
    """How one protocol's requests and replies are read. Pure: bytes and values in, values out."""

    name: str
    failover_statuses: frozenset[int]
    """Refusals that say nothing of the request: its servers do not have the model. Empty where
    clients can bring them about, whose requests say what is to be found.
    """

    def parse(self, call: Call) -> Payload:
        """Read a request's body; BadRequest where it is not of this protocol."""

    def readdress(self, call: Call, path: bytes, model: str | None, payload: Payload) -> Call:
        """Return the call as the backend wants it: its base `path`, its name of the model."""

    def bound(self, call: Call, payload: Payload) -> Usage:
        """Return the most that a call can use, as its request says; 0 where it says nothing."""

    def output(self, call: Call, payload: Payload) -> Output | None:
        """Return what a request says of the length of its answers; None where nothing can."""

    def follow(self, payload: Payload) -> StreamReader | None:
        """Return a reader of the streamed reply that a request asks for; None: it asks for none."""

    def added(self, payload: Payload) -> tuple[Addition, ...]:
        """Return the fields that `readdress` adds of its own, which a backend may refuse."""

    def needs(self, call: Call, payload: Payload, room: float) -> Needs:
        """Return what a request needs of a model; `room` is the smallest context on its route."""

    def outgrown(self, refusal: bytes) -> bool:
        """Whether the body of a 4xx says that the request is too long for the model's context."""

    def prompt(self, payload: Payload) -> Prompt:
        """Return the prompt whose beginning a server may have cached; empty where there is none."""

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return what the reply says was used; None where it says nothing."""

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the answer; InvalidAnswer where it is none."""

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return (content type, body) of a refusal in the shape this protocol's clients read.

        `problem` is an RFC 9457 object: type, title, status, detail and extension members.
        """
