"""A small HTTP/1.1 client over connections that are kept alive: JSON out, JSON in.

The demo sends some twenty thousand requests while the gateway and three model servers share the
machine with it, so its own cost counts: this takes a tenth of a general client's.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

HEAD_BYTES_MAX = 1 << 16
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Response:
    """A status, header fields by lower-case name, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, read as JSON."""
        return json.loads(self.body)


class Http:
    """Sends requests to one http:// address; as many connections as requests under way."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.scheme == "http" and parts.hostname, url
        self._host, self._port = parts.hostname, parts.port or 80
        # The mutable state of a client is the connections that wait to be used again.
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Response:
        """Ask for a path."""
        return await self._send("GET", path, b"", headers or {})

    async def post(
        self, path: str, document: object, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a document as JSON."""
        body = json.dumps(document, separators=(",", ":")).encode()
        return await self._send("POST", path, body, headers or {})

    async def aclose(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Response:
        fields = {
            "host": f"{self._host}:{self._port}",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        request = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await self._connection()
            try:
                writer.write(request)
                response = await _receive(reader)
            except BaseException:
                writer.close()
                raise
        if response.headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return response

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():  # closed by the server while it waited
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port, limit=HEAD_BYTES_MAX)


async def _receive(reader: asyncio.StreamReader) -> Response:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Response(int(status_line.split(" ", 2)[1]), headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass  # trailers, which nobody here reads
    return body
