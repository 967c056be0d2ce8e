"""A model server that answers each request with exact bytes, and keeps what it was sent."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HANG_UP = "hang up"
Part = bytes | float | str
"""Bytes to send, seconds to wait, or `HANG_UP`."""
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the upstream read it."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Asked], Sequence[Part]]
"""Returns what a request is answered with."""


def reply(
    body: object, status: int = 200, kind: str | None = "application/json", **headers: str
) -> list[Part]:
    """Return a whole reply; a body that is not bytes is written as JSON, `_` is `-` in names."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"content-length": str(len(data))}
    if kind is not None:
        fields["content-type"] = kind
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields.items())
    return [head.encode() + b"\r\n" + data]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(document: object, name: str = "") -> bytes:
    """Return an event of a stream."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return (b"event: %b\n" % name.encode() if name else b"") + b"data: %b\n\n" % data


def stream(*events: object, done: bool = True, pause_s: float = 0.0) -> list[Part]:
    """Return a chunked stream, one chunk an event; bytes are sent as they are."""
    out: list[Part] = [CHUNKED]
    for one in events:
        out += [chunk(one if isinstance(one, bytes) else event(one)), pause_s]
    if done:
        out.append(chunk(b"data: [DONE]\n\n"))
    return [*out, END]


@dataclass
class Upstream:
    """Serves on a port of its own until the process ends.

    Its mutable state is what it answers, what it was asked, and the sends that failed because the
    gateway had hung up. It is set from one thread, between requests.
    """

    answer: Answer = lambda _: reply({})
    asked: list[Asked] = field(default_factory=list)
    cut: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as source:
            try:
                while (asked := read(source)) is not None:
                    self.asked.append(asked)
                    for part in self.answer(asked):
                        if isinstance(part, str):
                            return
                        if isinstance(part, float):
                            time.sleep(part)
                        else:
                            connection.sendall(part)
            except OSError:
                self.cut += 1


def read(source: Any) -> Asked | None:
    """Return the next request of a connection; None at its end."""
    line = source.readline().decode("latin-1").split()
    if not line:
        return None
    headers: dict[str, str] = {}
    while (raw := source.readline().rstrip(b"\r\n").decode("latin-1")) != "":
        name, _, value = raw.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while (size := int(source.readline().split(b";")[0], 16)) > 0:
            body += source.read(size)
            source.readline()
        source.readline()
    else:
        body = source.read(int(headers.get("content-length", 0)))
    return Asked(line[0], line[1], headers, body)
