"""The implementations of `Transport`, and how tests ask them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.http.factory import open_transport
from tollway.backends.http.httpcore2_pool import Httpcore2Pool
from tollway.backends.http.httpx_transport import HttpxTransport
from tollway.backends.ports import Transport
from tollway.backends.types import Call

STUCK_S = 20.0  # a test that takes this long hangs


@dataclass(frozen=True)
class Implementation:
    """One implementation, with the event loop that it runs on."""

    name: str
    loop: Callable[[], asyncio.AbstractEventLoop]
    open: Callable[..., Transport]

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run a test on the loop, within a bound."""

        async def bounded() -> None:
            async with asyncio.timeout(STUCK_S):
                await main()

        with asyncio.Runner(loop_factory=self.loop) as runner:
            runner.run(bounded())


def open_httpx(url: str, **options: Any) -> Transport:
    """Open the transport that carries HTTP/2, with a pool of its own."""
    idle_expiry_s = options.pop("idle_expiry_s", 4.0)
    connections = options.pop("connections", 100)
    pool = Httpcore2Pool(idle_expiry_s=idle_expiry_s, connections=connections)
    return HttpxTransport(pool, url, slots=ConcurrencyQueue(connections), **options)


IMPLEMENTATIONS = [
    Implementation("http1-uvloop", uvloop.new_event_loop, open_transport),
    Implementation("http1-asyncio", asyncio.new_event_loop, open_transport),
    Implementation("httpx", uvloop.new_event_loop, open_httpx),
]


def post(body: bytes = b"{}", **kwargs: bytes) -> Call:
    """Return a call."""
    return Call(
        kwargs.get("method", b"POST"), kwargs.get("target", b"/v2?q=1"), [(b"x-a", b"1")], body
    )


def soon(seconds: float = STUCK_S) -> float:
    """Return a deadline, by the loop's clock."""
    return asyncio.get_running_loop().time() + seconds


async def ask(transport: Transport, call: Call | None = None, seconds: float = STUCK_S) -> bytes:
    """Return the whole body of the reply to a call."""
    reply = await transport.send(call or post(), soon(seconds))
    return await reply.read(1 << 30)
