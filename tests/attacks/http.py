"""An HTTP client of the attacker's own: it sends the bytes it is given, and reads until the end."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollway.gateway import settings as config
from tollway.gateway.listener import server as front
from tollway.gateway.wiring import Gateway, build

Address = tuple[str, int]
WITHIN_S = 20


@dataclass(frozen=True)
class Reply:
    """What came back: the status (0 if nothing did), the head and the body."""

    status: int
    head: bytes
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


async def send(address: Address, request: bytes) -> Reply:
    """Send bytes on a new connection; return all that comes back until it is closed."""
    reader, writer = await asyncio.open_connection(*address)
    reply = b""
    try:
        async with asyncio.timeout(WITHIN_S):
            writer.write(request)
            with contextlib.suppress(ConnectionError):
                reply = await reader.read()
    finally:
        writer.close()
    head, _, body = reply.partition(b"\r\n\r\n")
    return Reply(int(head[9:12] or b"0"), head, body)


async def ask(  # noqa: PLR0917 - in the order in which they are sent
    address: Address,
    target: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    method: str = "",
    version: str = "1.1",
) -> Reply:
    """Send one request to a target, as it is spelled; Host names the address unless given."""
    fields = {"Host": f"{address[0]}:{address[1]}", "Connection": "close", **(headers or {})}
    if body:
        fields.setdefault("Content-Length", str(len(body)))
    lines = [f"{method or ('POST' if body else 'GET')} {target} HTTP/{version}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return await send(address, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)


@contextlib.asynccontextmanager
async def listening(toml: str, folder: Path) -> AsyncIterator[tuple[Gateway, Address]]:
    """Serve a gateway with its own listener; yield it and its address."""
    gateway = build(config.parse(toml, {}, folder=folder))
    async with front.serving(gateway.app, drain_s=0.5) as address:
        yield gateway, address
