"""What plain httpx gets wrong under cancellation and load, and our transports do not.

httpx 0.28's own pool keeps the slot of a request that was cancelled at the wrong moment, for good,
and searches all its requests at every step. The first test shows that this is still so; should it
ever fail, the choice of docs/decisions/0300 can be made again.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
import uvloop

from tests.contracts import wire_server as wire
from tests.contracts.wire_server import OK, Wire
from tests.support.transports import IMPLEMENTATIONS, Implementation, ask, soon
from tollway.backends.errors import BackendError
from tollway.backends.ports import Transport
from tollway.backends.types import Call

pytestmark = pytest.mark.integration

SLOTS = 10
CALLS, CLIENTS = 2400, 40

Ask = Callable[[float], Awaitable[object]]
"""Makes one call with so many seconds of time."""


async def answers_late(one: Wire) -> None:
    rng = random.Random(one.server.accepted)
    while True:
        await one.request()
        await asyncio.sleep(rng.random() * 0.02)
        await one.say(OK)


async def slots_left(ask: Ask) -> int:
    """Cancel calls at random times, then return how many concurrent calls still succeed."""
    rng = random.Random(1)

    async def hasty() -> None:
        for _ in range(CALLS // CLIENTS):
            try:
                async with asyncio.timeout(rng.random() * 0.05):
                    await ask(5.0)
            except (TimeoutError, httpx.TransportError, BackendError):
                pass

    await asyncio.gather(*(hasty() for _ in range(CLIENTS)))
    done = await asyncio.gather(*(ask(2.0) for _ in range(SLOTS)), return_exceptions=True)
    return sum(not isinstance(one, BaseException) for one in done)


def test_plain_httpx_loses_slots_to_cancelled_requests() -> None:
    async def main() -> int:
        async with wire.wire_server(answers_late) as server:
            limits = httpx.Limits(max_connections=SLOTS)
            async with httpx.AsyncClient(limits=limits, trust_env=False) as client:
                return await slots_left(lambda s: client.post(server.url, content=b"{}", timeout=s))

    assert uvloop.run(main()) < SLOTS


@pytest.mark.parametrize("over", IMPLEMENTATIONS, ids=lambda one: one.name)
def test_our_transports_lose_no_slots(over: Implementation) -> None:
    async def main() -> None:
        async with wire.wire_server(answers_late) as server:
            transport = over.open(server.url, connections=SLOTS)
            try:
                assert await slots_left(lambda s: ask(transport, seconds=s)) == SLOTS
            finally:
                await transport.aclose()

    over.run(main)


@pytest.mark.alone
@pytest.mark.parametrize("over", IMPLEMENTATIONS, ids=lambda one: one.name)
def test_our_transports_do_not_collapse_at_32_connections(over: Implementation) -> None:
    async def main() -> None:
        async with wire.wire_server(wire.replies(OK)) as server:
            transport = over.open(server.url, connections=32)
            try:
                alone, together = [await rate(transport, count) for count in (1, 32)]
            finally:
                await transport.aclose()
            # httpx as it comes: 0.36, and less with every connection more.
            assert together > 0.5 * alone

    over.run(main)


async def rate(transport: Transport, count: int, calls: int = 640) -> float:
    """Return calls per second of processor time, `count` at a time."""

    async def some() -> None:
        for _ in range(calls // count):
            reply = await transport.send(Call(b"POST", b"/", [], b"{}"), soon())
            await reply.read(100)

    await asyncio.gather(*(some() for _ in range(count)))  # connections are opened
    began_s = time.process_time()
    await asyncio.gather(*(some() for _ in range(count)))
    return calls / (time.process_time() - began_s)
