"""The values that pass between the gateway and a backend."""

from collections.abc import AsyncIterator, Callable, Container, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tollway.backends.bodies.form import Form
from tollway.backends.errors import BadReply, BadRequest
from tollway.backends.json_members import Pieces
from tollway.record import record

SMALL_BYTES = 16 << 10
"""Smaller bodies are not counted as held memory: 2,048 of them are 32 MiB, and nearly all are."""

Headers = list[tuple[bytes, bytes]]
"""Header fields in order, names in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What a request asks a server to do, by the table of its protocol.

    is_free: no server bills it: it reads, lists or deletes what is there. is_declared: neither the
    request nor the reply tells its cost, so only a declared price does. creates: its reply names an
    object, which only this server has. is_list: it lists them. unit: the unit of usage that its
    request or its reply names beside tokens; empty if there is none. is_open: tokens are not all
    that it may be billed for.
    """

    name: str = ""
    is_free: bool = False
    is_declared: bool = False
    creates: bool = False
    is_list: bool = False
    unit: str = ""
    is_open: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_open", self.is_declared or bool(self.unit))


INFERENCE = Endpoint()


@dataclass(slots=True, eq=False)
class Payload:
    """A request's body, parsed once. `data` is the parsed document, None if it was not parsed.

    If the body is a form, `data` is its fields. `refers`: the ids of the objects of
    servers that it names. `creates`: its reply names such an object. `defers`: the work may go on
    after the reply. `once`: names of members that the document does not have twice. `fault`: why
    the body is not what the protocol says; it is passed on all the same, because a server may take
    it, but no schema and no rules can look at it.
    """

    data: Any = None
    binary: dict[str, bytes] = field(default_factory=dict)
    endpoint: Endpoint = INFERENCE
    form: Form | None = None
    refers: Sequence[str] = ()
    creates: bool = False
    defers: bool = False
    once: Container[str] = ()
    fault: str = ""


UNPARSED = Payload()
"""The payload of a call that no protocol has parsed, such as a health check."""


@record
class Document:
    """A large JSON body as it was read in slices; `fault` says why it could not be.

    `is_whole`: nothing in it was too large to be kept (see `tollway.backends.sliced_json`).
    `repeats`: it, or an object that is a member of it, has a name more than once.
    `pieces`: where the members of an object lie (see `tollway.backends.json_members`).
    """

    value: Any = None
    is_whole: bool = True
    repeats: bool = False
    fault: str = ""
    pieces: Pieces = ()


@dataclass(slots=True)
class Call:
    """A request: origin-form target (raw path and query), end-to-end headers, body.

    `payload` is the body as the route's protocol parsed it, else UNPARSED: a backend inside the
    gateway (rules) need not parse it again. `caller` identifies the sender of the request, if
    known: it matters whether several callers or a single one see an address fail. `tenant` is the
    one whose call it is: tenants share a backend's slots fairly. `document` and `form` are those of
    a large body, if it was read in slices; of an invalid form, what is wrong with it.
    """

    method: bytes
    target: bytes
    headers: Headers
    body: bytes = b""
    payload: Payload = UNPARSED
    caller: str = ""
    tenant: str = ""
    document: Document | None = None
    form: Form | BadRequest | None = None

    @property
    def pieces(self) -> Pieces:
        """Where the members of a large document lie; empty for others."""
        return () if self.document is None else self.document.pieces


class ByteStream(Protocol):
    """The body of a reply. Its holder reads it to its end or closes it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield chunks as they arrive, undecoded; BackendError if the body breaks off."""

    async def aclose(self) -> None:
        """Return the connection, or cut it if the body was not read to its end."""


@dataclass(slots=True)
class HttpReply:
    """A reply's head, and its body as a stream; `whole`: the body, if it has ended already.

    `document` is the body's document, once it was read; that of a large one in slices. `followed`:
    the reader of a large stream that was read whole, and what of it goes to the client. `usage`:
    what its transport knows of the call's usage; it counts where the reply itself reports none.
    `is_echo`: the reply answers several calls at once, and another one of them counts as evidence.
    """

    status: int
    headers: Headers
    stream: ByteStream
    whole: bytes | None = None
    document: Document | None = None
    followed: tuple[Any, bytes] | None = None
    usage: "Usage | None" = None
    is_echo: bool = False

    async def read(self, limit_bytes: int, hold: Callable[[int], None] | None = None) -> bytes:
        """Return the whole body and end the stream; BadReply above `limit_bytes`.

        Of a reply above SMALL_BYTES, `hold` is told how many more bytes are held. What it raises
        ends the stream.
        """
        if self.whole is not None and len(self.whole) <= min(limit_bytes, SMALL_BYTES):
            return self.whole
        chunks: list[bytes] = []
        size = held = 0
        try:
            async for chunk in self.stream:
                size += len(chunk)
                if size > limit_bytes:
                    raise BadReply(f"the reply is larger than {limit_bytes} bytes")
                if hold is not None and size > SMALL_BYTES:
                    hold(size - held)
                    held = size
                chunks.append(chunk)
        finally:
            await self.stream.aclose()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


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


UNBOUND = Usage(exact=False)
"""The usage of a call whose request sets no bound."""


@record
class ModelAnswer:
    """The contents of a reply, in the form that policies and scores use.

    `value` is the answer itself (a label, a number, a text, or None if unknown); `features` are
    numbers of the order of 1 that express the reply's confidence: top probability, margin to the
    second, normalised entropy, ... (see the protocol), empty if none. `is_partial`: more of it is
    to come, as its stream has only begun.
    """

    value: Any = None
    features: tuple[float, ...] = ()
    is_partial: bool = False


Prompt = list[tuple[Hashable, int]]
"""The parts of a prompt in the order in which a model reads them, and how many characters each has;
parts are equal if the model reads the same.
"""


@record
class Created:
    """An object that a reply names. `is_pending`: its usage is known only when it is retrieved."""

    name: str
    is_pending: bool = False


@record
class Page:
    """The ids on a page of a list, and whether there are further pages."""

    names: tuple[str, ...]
    has_more: bool


@record
class Addition:
    """A field that the gateway itself adds to a request.

    `path` is the dotted name of the member to remove from the request again to undo it, and `words`
    are those by which a refusal would name it.
    """

    name: str
    path: str
    words: tuple[bytes, ...]
