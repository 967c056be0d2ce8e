"""A rollout `next` of the backend `cheap`, and what tests do with it."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from tests.support.harness import Running, inference
from tests.support.http_client import http_client
from tests.support.until import until

CRITERIA = """
[{ metric = "error_rate", tolerance = 0.001, margin = 0.2 },
 { metric = "quality", tolerance = 0.005, margin = 0.3 }]"""


def rollout(url: str, more: str = "", criteria: str = CRITERIA, start: str = "auto") -> str:
    return f"""
[[rollouts]]
name = "next"
backend = "cheap"
candidate = {{ url = "{url}" }}
criteria = {" ".join(criteria.split())}
start = "{start}"
{more}
"""


async def serve(tollway: Running, count: int, *, right: int = 1, **headers: str) -> list[str]:
    """Make requests with labels; return which backends answered."""
    answered = []
    for number in range(count):
        reply = await tollway.infer(float(number), **headers)
        assert reply.status_code == 200, reply.text
        answered.append(reply.headers["x-tollway-backend"])
        decision = reply.headers["x-tollway-decision"]
        fed = await tollway.feedback({"decision": decision, "label": right})
        assert fed.status_code == 202, fed.text
    return answered


async def status(tollway: Running) -> Any:
    await tollway.gateway.rollouts.tick()
    return await tollway.get("/_tollway/rollouts/next")


async def act(tollway: Running, action: str) -> Any:
    document = {"action": action, "who": "kim", "why": "a test"}
    return await tollway.client.post(f"{tollway.url}/_tollway/rollouts/next", json=document)


LOADS = 4  # clients of a load
WITHIN_S = 300.0  # far more than any test of a load takes on a busy machine


async def fresh(url: str, path: str, document: Any = None) -> httpx.Response:
    """Send a request on a new connection, which any worker may get."""
    async with http_client(timeout=30) as client:
        if document is None:
            return await client.get(url + path)
        return await client.post(url + path, json=document)


class Load:
    """Clients that ask one request after another, on new connections, until they are stopped.

    `urls` are of the gateways, asked in turns; a test takes those out that it kills.
    """

    def __init__(self, *urls: str) -> None:
        self.urls = list(urls)
        self.answered: Counter[str] = Counter()
        self.wrong: list[Any] = []
        self.broken = 0
        self.stopped = False

    async def ask(self) -> None:
        """Ask; a connection that breaks with its process is no answer, and the client repeats."""
        async with asyncio.timeout(WITHIN_S):
            for turn in itertools.count():
                if self.stopped:
                    return
                url = self.urls[turn % len(self.urls)]
                try:
                    reply = await fresh(url, "/v2/models/m/infer", inference())
                except httpx.TransportError:
                    self.broken += 1
                    continue
                if reply.status_code != 200:
                    self.wrong.append((reply.status_code, reply.text))
                self.answered[reply.headers.get("x-tollway-backend", "none")] += 1

    async def more(self, count: int) -> Counter[str]:
        """Return what the next `count` answers, at least, were given by."""
        before = Counter(self.answered)
        await until(lambda: self.answered.total() - before.total() >= count, within_s=90)
        return self.answered - before

    async def settled(self, count: Callable[[], int]) -> int:
        """Return a count that many answers have not changed.

        A process that is slow to follow, or holds a call back, holds up the clients that ask it:
        in so many answers they have all come to it again.
        """

        async def is_settled() -> bool:
            before = count()
            await self.more(60)
            return count() == before

        await until(is_settled, within_s=90)
        return count()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Ask until the end of the block."""
        clients = [asyncio.create_task(self.ask()) for _ in range(LOADS)]
        try:
            yield self
        finally:
            self.stopped = True
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
