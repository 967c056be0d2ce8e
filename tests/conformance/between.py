"""A whole gateway between a raw client and a raw backend: every byte on both sides is seen."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.contracts import wire_server as wire
from tests.contracts.wire_server import Script, WireServer
from tests.support.raw_client import Client
from tollway.gateway import settings as config
from tollway.gateway.listener import server as front
from tollway.gateway.wiring import build

CONFIG = """
[server]
allow_anonymous = true

[journal]
dir = "journal"

[ledger]
url = "memory://"

[[backends]]
name = "one"
kind = "cpu"
protocol = "plain"
url = "{url}"
price = {{ per_request_usd = 0.001 }}

[[routes]]
name = "r"
path = "/*"
protocol = "plain"
backends = ["one"]
{route}
"""
REPLY = b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{"label":1}'


@dataclass
class Between:
    """What a test controls: a client of the gateway, and the backend behind it."""

    client: Client
    backend: WireServer

    async def say(self, *parts: bytes) -> bytes:
        """Send bytes to the gateway; return everything that it sends until it closes."""
        return await self.client.say(*parts)

    @property
    def heads(self) -> list[bytes]:
        """The request heads that the backend received, in lower case."""
        return [head.lower() for head, _ in self.backend.requests]


@asynccontextmanager
async def between(
    folder: Path, script: Script | None = None, *, route: str = "", **options: object
) -> AsyncIterator[Between]:
    async with wire.wire_server(script or wire.replies(REPLY)) as backend:
        text = CONFIG.format(url=backend.url, route=route)
        gateway = build(config.parse(text, {}, folder=folder), rng=random.Random(0))
        async with front.serving(gateway.app, drain_s=0.5, **options) as address:
            yield Between(Client(address), backend)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    uvloop.run(bounded())


def fields(reply: bytes) -> list[tuple[bytes, bytes]]:
    """Return the fields of a reply's head in order, with names in lower case."""
    lines = reply.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    pairs = [line.partition(b":") for line in lines]
    return [(name.lower(), value.strip()) for name, _, value in pairs]


def request(
    target: bytes = b"/infer",
    more: bytes = b"",
    body: bytes = b"{}",
    method: bytes = b"POST",
    version: bytes = b"HTTP/1.1",
) -> bytes:
    """Return a request that asks to close."""
    head = b"%b %b %b\r\nhost: a\r\nconnection: close\r\n" % (method, target, version)
    return head + more + b"content-length: %d\r\n\r\n" % len(body) + body
