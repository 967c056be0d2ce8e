"""A client that sees what a gateway sends, byte for byte."""

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

WAIT_S = 40.0  # one rival takes 20 s for a reply of 3 MB


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: `whole` is false where it ended before its framing said so."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The events of a stream that are JSON."""
        data = [line[5:].strip() for line in self.body.splitlines() if line.startswith(b"data:")]
        return [json.loads(one) for one in data if one != b"[DONE]"]


@dataclass(frozen=True, slots=True)
class Client:
    """Asks one gateway: `headers` by dialect, as its configuration wants them."""

    port: int
    headers: Mapping[str, Mapping[str, str]]

    def ask(
        self,
        path: str,
        body: object = None,
        dialect: str = "openai",
        method: str = "POST",
        **headers: str,
    ) -> Reply:
        """Return the reply to a request; a body that is neither bytes nor None goes as JSON."""
        connection = self.opened(path, body, dialect, method, **headers)
        try:
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            try:
                return Reply(answer.status, fields, answer.read(), whole=True)
            except http.client.IncompleteRead as cut:
                return Reply(answer.status, fields, cut.partial, whole=False)
        finally:
            connection.close()

    def opened(
        self,
        path: str,
        body: object = None,
        dialect: str = "openai",
        method: str = "POST",
        **headers: str,
    ) -> http.client.HTTPConnection:
        """Return a connection on which a request has been sent."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        fields = {"content-type": "application/json", **self.headers[dialect], **named}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        connection.request(method, path, data, fields)
        return connection

    def parts(self, path: str, body: object) -> Iterator[tuple[float, bytes]]:
        """Yield the seconds since the request, and what came then."""
        begun = time.monotonic()
        connection = self.opened(path, body)
        try:
            answer = connection.getresponse()
            while data := answer.read1(65536):
                yield time.monotonic() - begun, data
        finally:
            connection.close()

    def raw(self, head: str, body: bytes, later: bytes = b"") -> bytes:
        """Return all that comes until the gateway closes, or is silent for 3 s.

        `head` is the request's line and fields without the gateway's own; `later` is sent once the
        first bytes of the reply are there.
        """
        own = "".join(f"{n}: {v}\r\n" for n, v in self.headers["openai"].items())
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as connection:
            connection.sendall((head.replace("\n", "\r\n") + own + "\r\n").encode() + body)
            out = b""
            try:
                while data := connection.recv(65536):
                    out += data
                    if later:
                        connection.sendall(later)
                        later = b""
                    connection.settimeout(3)
            except TimeoutError:
                pass
            return out
