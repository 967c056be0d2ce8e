"""Trials: checks a suspect backend's health path, to tell bad backends from bad requests.

A 2xx means healthy. A 5xx, no connection or no reply in time means unhealthy. Anything else (a 404
for a misspelt path, a 401) is no evidence, and the next request of another caller decides.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tollway.backends.errors import BackendError, Overloaded
from tollway.backends.http.load_balancer import CHECK_S, LoadBalancer, is_well
from tollway.backends.ports import Transport
from tollway.backends.types import Call, Headers
from tollway.gateway.routing.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)

EVERY_S = 1.0
"""The least time between two trials of a backend. Failures may come by the thousand, and a trial
per first pause of the breaker is often enough."""

REPLY_BYTES_MAX = 1 << 20

Ask = Callable[[], Awaitable[bool | None]]


class Trial:
    """Resolves the suspicions of a backend, outside the request path."""

    # The mutable state is the trial in progress, and when the last one began.
    __slots__ = ("_began_s", "_task", "ask")

    def __init__(self, ask: Ask) -> None:
        """`ask` returns whether the backend is healthy; None if that is unknown."""
        self.ask = ask
        self._task: asyncio.Task[None] | None = None
        self._began_s = float("-inf")

    def begin(self, breaker: CircuitBreaker, now_s: float, clock: Callable[[], float]) -> None:
        """Start a health check and report its result to the breaker.

        Do nothing if a check is in progress or the last one began less than EVERY_S ago.
        """
        if self._task is not None or now_s < self._began_s + EVERY_S:
            return
        self._began_s = now_s
        self._task = asyncio.create_task(self._decide(breaker, clock))

    @property
    def is_under_way(self) -> bool:
        """Whether a health check is in progress."""
        return self._task is not None

    async def _decide(self, breaker: CircuitBreaker, clock: Callable[[], float]) -> None:
        try:
            healthy = await self.ask()
            if healthy:
                breaker.cleared()
            elif healthy is not None:
                breaker.confirmed(clock())
        except Exception:  # a bug of ours leaves the decision to the next caller
            log.exception("a health check could not be made")
        finally:
            self._task = None


def of_one(transport: Transport, host: bytes, path: bytes, own: Callable[[], Headers]) -> Ask:
    """Return the health check of a backend with one address."""

    async def ask() -> bool | None:
        call = Call(b"GET", path, [(b"host", host), *own()])
        try:
            async with asyncio.timeout(CHECK_S):
                until_s = asyncio.get_running_loop().time() + CHECK_S
                reply = await transport.send(call, until_s)
                await reply.read(REPLY_BYTES_MAX)
        except Overloaded:
            return None  # our own concurrency limit: no evidence about the server
        except (BackendError, TimeoutError):
            return False
        return is_well(reply.status)

    return ask


def of_several(balanced: LoadBalancer) -> Ask:
    """Return the health check of a backend with several addresses: one healthy one is enough."""

    async def ask() -> bool | None:
        return await balanced.check()

    return ask
