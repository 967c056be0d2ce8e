"""The ports between the gateway and a backend.

Three parts make a backend: a `Price` (the cost of usage), a `WireProtocol` (how requests and
replies are read; pure) and a `Transport` (how bytes get there and back; I/O).
"""

import re
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any, Protocol

from tollway.backends.json_members import Edits
from tollway.backends.needs import NOTHING, Needs
from tollway.backends.output import Output
from tollway.backends.types import (
    UNBOUND,
    Addition,
    Call,
    Created,
    Headers,
    HttpReply,
    ModelAnswer,
    Page,
    Payload,
    Prompt,
    Usage,
)


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


REDIRECTS = frozenset({301, 302, 303, 307, 308})
FAILOVER_STATUSES = REDIRECTS | {404, 405, 410}
"""Statuses with which a server says that the requested resource is missing, or elsewhere: its URL
in the configuration is wrong, or the request's path.
"""


INFER, METADATA, READY, SERVER, STATISTICS = "infer", "metadata", "ready", "server", "statistics"
"""What a path asks for: a call, something that the gateway tells of a model or reads from one of
its backends, something about all models, or their statistics.
"""


class OnePath:
    """The common parts of protocols whose routes have one path, and whose replies name no model."""

    renames = False
    hides = False

    def hidden(self, payload: Payload, reply: HttpReply, body: bytes) -> bytes:
        """Return the body as it is: the gateway asked for nothing that it has to hide."""
        return body

    def paths(self, path: str) -> tuple[str, ...]:
        """Return nothing: no other path belongs to a route."""
        return ()

    def operation(self, path: bytes) -> str:
        """Return INFER: all that is asked of a server is a call."""
        return INFER

    def passes(self, method: str, path: bytes, pattern: str, *, is_written: bool) -> bool:
        """Return whether a method is one of calls, or reads."""
        return method in ("POST", "GET", "HEAD")

    def server(self, path: bytes, models: Mapping[str, bool], ready: str) -> tuple[int, Any]:
        """Raise AssertionError: no path asks about the server."""
        raise AssertionError("no path asks about the server")

    def readiness(self, path: bytes, is_up: bool) -> tuple[int, Any]:
        """Raise AssertionError: no path asks whether a model is ready."""
        raise AssertionError("no path asks whether a model is ready")

    def described(self, document: dict[str, Any], path: bytes) -> dict[str, Any]:
        """Return the description of a model as it is."""
        return document

    def named(self, path: str) -> str:
        """Return an empty name: no path of a route names its model."""
        return ""

    def renamed(self, call: Call, headers: Headers, body: bytes) -> tuple[Headers, bytes]:
        """Return the reply as it is."""
        return headers, body


class KeepsNothing(OnePath):
    """The common parts of protocols whose servers keep no objects."""

    lists: "Lists | None" = None

    def created(self, payload: Payload, body: bytes) -> Created | None:
        """Return None: no reply names an object."""
        return None


class UnaryProtocol(KeepsNothing):
    """The common parts of protocols with unary replies and without bounds in requests."""

    withholds: re.Pattern[bytes] | None = None
    statuses: Mapping[int, int] = {}
    query_credentials: Mapping[bytes, bytes] = {}

    def text(self, call: Call) -> bytes:
        """Return the JSON text of a request: its body."""
        return call.body

    def bound(self, call: Call, payload: Payload) -> Usage:
        """Return that no bound is known."""
        return UNBOUND

    def output(self, call: Call, payload: Payload) -> Output | None:
        """Return None: no request limits its reply."""
        return None

    def follow(self, payload: Payload) -> "StreamReader | None":
        """Return None: no reply is streamed."""
        return None

    def streams(self, payload: Payload) -> bool:
        """Return False: no request asks for a stream."""
        return False

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

    def model(self, call: Call, payload: Payload) -> str:
        """Return "": no request names a model that could select a route."""
        return ""

    def last_event(self, payload: Payload, problem: dict[str, Any]) -> bytes:
        """Raise AssertionError: no reply is streamed."""
        raise AssertionError("a unary reply has no events")


class StreamReader(Protocol):
    """Reads a streamed reply as it passes, and decides what of it goes to the client.

    `error` is the error that the stream reported, or None. `begun`: whether an event with data has
    come; a comment has none. `spoken_bytes`: how much text has come, in UTF-8. `media_type`: that
    of the streams that it reads. `is_media`: it reads a file rather than a stream of events (see
    `tollway.backends.bodies.media`). `object_id`: the object that the stream
    names, which the server keeps; empty if there is none.
    """

    object_id: str
    is_media: bool
    error: Any
    begun: bool
    spoken_bytes: int
    media_type: bytes

    def feed(self, chunk: bytes) -> bytes:
        """Read a chunk; return the part of all chunks so far to forward. ValueError if it is no
        stream.

        Whole events are forwarded: none is cut, none is changed. It takes some milliseconds at
        most if the chunk and what waits are small (`is_small`); call `feed_slices` otherwise.
        """

    def close(self) -> bytes:
        """Return what is left at the end: an event without its blank line."""

    def feed_slices(self, chunk: bytes) -> Generator[None, None, bytes]:
        """Do what `feed` does, and yield after each slice of some milliseconds."""

    def close_slices(self) -> Generator[None, None, bytes]:
        """Do what `close` does, and yield after each slice of some milliseconds."""

    def release(self) -> bytes:
        """Return whole events that wait for a later one, when that will not come."""

    def mute(self) -> None:
        """Store no more of the answer: from now on only the usage is needed."""

    def refusal(self) -> tuple[int, bytes]:
        """Return the status and body of a unary reply with the error that the stream reports."""

    @property
    def waiting(self) -> int:
        """How many bytes of an unfinished event are buffered."""

    def reported_usage(self, headers: Headers) -> Usage | None:
        """Return the usage: exact if the stream reported it, else at least what was seen.

        `headers` are the reply's: they may report device seconds.
        """

    def answer(self) -> ModelAnswer:
        """Return the answer so far; InvalidAnswer if there is none."""


class Lists(Protocol):
    """Reads and merges the pages of lists of objects."""

    def page(self, body: bytes) -> Page | None:
        """Return what a page holds; None if the body is none."""

    def merged(self, pages: Sequence[tuple[bytes, Collection[str]]]) -> bytes:
        """Return one page with the entries of several, each without those whose ids are hidden."""

    def cursor(self, target: bytes) -> str:
        """Return the id after which a request wants to read on; empty if from the beginning."""

    def after(self, target: bytes, name: str) -> bytes:
        """Return a target that reads on after an object; from the beginning if empty."""


class WireProtocol(Protocol):
    """Reads the requests and replies of one protocol. Pure: bytes and values in, values out."""

    name: str
    failover_statuses: frozenset[int]
    """Refusals that are not the request's fault: the backend's servers do not have the model. Empty
    if clients can cause them, because their requests name the resource.
    """
    withholds: re.Pattern[bytes] | None
    """Header fields that reach a backend only if the route names them; None: no field is withheld.
    """
    statuses: Mapping[int, int]
    """The statuses that its clients know, by those of the gateway's refusals that they do not."""
    query_credentials: Mapping[bytes, bytes]
    """The parameters of a query that hold a credential, and the header field each stands for."""

    def text(self, call: Call) -> bytes:
        """Return the JSON text of a request; if it is large, `parse` uses `call.document`."""

    def parse(self, call: Call) -> Payload:
        """Read a request's body; BadRequest if it is not of this protocol."""

    def readdress(
        self, call: Call, base: bytes, model: str | None, payload: Payload
    ) -> tuple[bytes, Edits]:
        """Return the target that the backend expects, and the edits of the body.

        Both have the backend's own name of the model.
        `base`: the path below which it answers, without a slash at its end; may be empty.
        """

    def bound(self, call: Call, payload: Payload) -> Usage:
        """Return the maximum that a call can use, from its request; 0 if the request sets none."""

    def output(self, call: Call, payload: Payload) -> Output | None:
        """Return a request's limits on the length of its answers; None if the protocol has none."""

    renames: bool
    """Whether its replies name the model, so that `renamed` is asked."""

    hides: bool
    """Whether requests ask for what their clients did not, so that `hidden` is asked."""

    def hidden(self, payload: Payload, reply: HttpReply, body: bytes) -> bytes:
        """Return a reply's body without what only the gateway asked for."""

    def paths(self, path: str) -> tuple[str, ...]:
        """Return the other paths that belong to a route at `path`, in the same form."""

    def operation(self, path: bytes) -> str:
        """Return what a path of its routes asks for: INFER, METADATA, READY, ..."""

    def passes(self, method: str, path: bytes, pattern: str, *, is_written: bool) -> bool:
        """Return whether a request that a pattern of paths matches may be passed on.

        `is_written`: the pattern is a route's own, rather than one of its `paths`.
        """

    def server(self, path: bytes, models: Mapping[str, bool], ready: str) -> tuple[int, Any]:
        """Return (status, document) for a path about the server.

        `models`: the names of its models, and whether they are ready; `ready`: why the gateway is
        not ready, empty if it is.
        """

    def readiness(self, path: bytes, is_up: bool) -> tuple[int, Any]:
        """Return (status, document) for a path that asks whether a model is ready."""

    def described(self, document: dict[str, Any], path: bytes) -> dict[str, Any]:
        """Return a backend's description of a model, with the name in the client's path."""

    def named(self, path: str) -> str:
        """Return the name of the model in a route's path; empty if it has none."""

    def renamed(self, call: Call, headers: Headers, body: bytes) -> tuple[Headers, bytes]:
        """Return a reply with the model's name that its request `call` asked for."""

    def follow(self, payload: Payload) -> StreamReader | None:
        """Return a reader of the stream that a request may be answered with; None if of none."""

    def streams(self, payload: Payload) -> bool:
        """Return whether a request asks for a stream."""

    def added(self, payload: Payload) -> tuple[Addition, ...]:
        """Return the fields that `readdress` itself adds, which a backend may refuse."""

    def needs(self, call: Call, payload: Payload, room: float) -> Needs:
        """Return what a request needs of a model; `room` is the smallest context on its route."""

    def outgrown(self, refusal: bytes) -> bool:
        """Whether the body of a 4xx says that the request is too long for the model's context."""

    def model(self, call: Call, payload: Payload) -> str:
        """Return the name of the model that a request asks for; empty if it names none."""

    def last_event(self, payload: Payload, problem: dict[str, Any]) -> bytes:
        """Return the event that tells a client why its stream broke off; see `error`."""

    def created(self, payload: Payload, body: bytes) -> Created | None:
        """Return the object that a reply names, if the request `creates` one; None if not."""

    lists: "Lists | None"
    """How pages of lists are read and merged; None if no endpoint is one."""

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
