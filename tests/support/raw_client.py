"""A raw client of the listener, and an application that remembers what reached it."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any

from tollway.gateway.listener.request_head import HeadLimits

LIMITS = HeadLimits(body_bytes=20_000)


@dataclass
class Recorder:
    """An application that records every complete request."""

    begun: int = 0
    whole: list[tuple[bytes, bytes, dict[bytes, bytes]]] = field(default_factory=list)
    left: int = 0
    let_go: asyncio.Event | None = None
    reads_body: bool = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = await receive()
                await send({"type": message["type"] + ".complete"})
            return
        self.begun += 1
        body = b""
        more = self.reads_body
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            body += message["body"]
            more = message["more_body"]
        self.whole.append((scope["raw_path"], body, dict(scope["headers"])))
        if self.let_go is not None:
            await self.let_go.wait()
        reply = scope["raw_path"][:100]
        length = (b"content-length", b"%d" % len(reply))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": reply})


@dataclass
class Client:
    """Opens raw connections to the listener under test."""

    address: tuple[str, int]

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def say(self, *parts: bytes) -> bytes:
        """Send `parts` one by one on one connection; return all that comes until it is closed."""
        reader, writer = await self.open()
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.005)
        reply = await reader.read()
        writer.close()
        return reply


def statuses(reply: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", reply)]


async def client_deadline(client: Client, sent: bytes) -> bytes:
    """Send as much as nginx accepts: it refuses some requests before their end."""
    reader, writer = await client.open()
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
