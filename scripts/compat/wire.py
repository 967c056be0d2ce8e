"""A raw HTTP client, and what of two replies must be equal."""

import gzip
import json
import re
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPResponse

PATIENCE_S = 60.0

# Fields of one hop, and those that say when and by whom a message was sent. The gateway answers
# for its own origins (access-control-*), and a stream has no length.
ONE_HOP = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "via", "vary",
     "server-timing", "server", "content-encoding")
)  # fmt: skip
OWN = ("x-tollway-", "access-control-")
VARYING = ("-id", "-ms")  # of these fields only the presence is compared
# Ids, times, and figures that follow from times. Ids are long; names of models have other signs.
ID = re.compile(
    rb'("(?:id|[a-z]+_id)": ?)"[A-Za-z0-9_=-]{9,}"|'
    rb"\b(?:chatcmpl|cmpl|resp|msg|call|req|rs|fc|item)[-_][A-Za-z0-9_-]{6,}={0,2}"
)
TIME = re.compile(
    rb'("(?:created|[a-z]+_at|[a-z_]+_ms|[a-z_]+_per_second|t_[a-z_]+)": ?)'
    rb"-?[0-9][-+.0-9eE]*"
)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request; the client leaves after `leave_after` bytes of the reply, if that is not 0."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    leave_after: int = 0

    @property
    def raw(self) -> bytes:
        fields = {"host": "127.0.0.1", "content-type": "application/json", **self.headers}
        if self.chunked:
            fields["transfer-encoding"] = "chunked"
        elif self.body or self.method == "POST":
            fields["content-length"] = str(len(self.body))
        head = f"{self.method} {self.path} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
        body = self.body
        if self.chunked:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return head.encode() + b"\r\n" + body


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes
    closes: bool

    @property
    def told(self) -> tuple[object, ...]:
        """What must be equal: status, end-to-end fields and body, but for ids and times."""
        kept = {
            name: b"" if name.endswith(VARYING) else constant(value.encode())
            for name, value in self.headers.items()
            if name not in ONE_HOP and not name.startswith(OWN)
        }
        return self.status, tuple(sorted(kept.items())), constant(self.decoded)

    @property
    def decoded(self) -> bytes:
        coded = self.headers.get("content-encoding") == "gzip"
        return gzip.decompress(self.body) if coded and self.body else self.body


def constant(text: bytes) -> bytes:
    """Return a text without its ids and times."""
    known = ID.sub(lambda found: found[1] + b'"ID"' if found[1] else b"ID", text)
    return TIME.sub(rb"\g<1>0", known)


class Connection:
    """One connection to a server, kept as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def open(self) -> socket.socket:
        """Return the connection's socket, connected again if the server has closed it."""
        if self._socket is not None and select.select([self._socket], [], [], 0)[0]:
            self.close()  # nothing was asked: what there is to read is its end
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), PATIENCE_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def begin(self, ask: Ask) -> HTTPResponse:
        """Send a request; return its reply when the head is there."""
        link = self.open()
        link.sendall(ask.raw)
        reply = HTTPResponse(link, method=ask.method)
        reply.begin()
        return reply

    def ask(self, ask: Ask) -> Reply:
        """Send a request, and read its reply to the end, or as far as the client stays."""
        reply = self.begin(ask)
        body = reply.read(ask.leave_after or None)
        closes = reply.will_close or bool(ask.leave_after)
        headers = {name.lower(): value for name, value in reply.getheaders()}
        if closes:
            self.close()
        return Reply(reply.status, headers, body, closes)


def difference(direct: Reply, through: Reply) -> str:
    """Return the first difference between two replies; nothing if they tell the same."""
    parts = zip(("status", "fields", "body"), direct.told, through.told, strict=True)
    return next((f"{name}: {_apart(*pair)}" for name, *pair in parts if pair[0] != pair[1]), "")


def difference_of_lists(direct: Reply, through: Reply) -> str:
    """Return the first difference between the entries of two lists."""
    one, other = [json.loads(constant(reply.body))["data"] for reply in (direct, through)]
    return "" if one == other else f"entries: {_apart(one, other)}"


def _apart(one: object, other: object) -> str:
    if not isinstance(one, bytes) or not isinstance(other, bytes):
        if isinstance(one, tuple) and isinstance(other, tuple):
            return (
                f"direct {sorted(set(one) - set(other))}, through {sorted(set(other) - set(one))}"
            )
        return f"direct {one}, through {other}"
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
              min(len(one), len(other)))  # fmt: skip
    around = slice(max(at - 60, 0), at + 140)
    return f"at {at}: direct {one[around]!r}, through {other[around]!r}"


def document(**members: object) -> bytes:
    return json.dumps(members).encode()
