"""Trials: asks a suspect backend's health path whether the backend or the requests are at fault.

A 2xx is good. A 5xx, no connection or no reply in time is bad. Anything else (a 404 of a path that
is written wrong, a 401) says nothing, and the next request of another caller decides.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tollway.backends.http.load_balancer import CHECK_S, LoadBalancer, is_well
from tollway.backends.types import BackendError, Call, Headers, Overloaded, Transport
from tollway.gateway.routing.circuit_breaker import CircuitBreaker

log = logging.getLogger("tollway.trial")

EVERY_S = 1.0
"""Between two trials of a backend: failures may come by the thousand, and as often as a breaker's
first pause is soon enough."""

REPLY_BYTES_MAX = 1 << 20

Ask = Callable[[], Awaitable[bool | None]]


class Trial:
    """Decides about a backend's suspicions, off the path of requests."""

    # The mutable state is the trial under way, and when the last began.
    __slots__ = ("_ask", "_began_s", "_task")

    def __init__(self, ask: Ask) -> None:
        """`ask` returns whether the backend is well; None where it cannot be told."""
        self._ask = ask
        self._task: asyncio.Task[None] | None = None
        self._began_s = float("-inf")

    def begin(self, breaker: CircuitBreaker, now_s: float, clock: Callable[[], float]) -> None:
        """Ask, unless that is under way or has been done just now; tell the breaker the answer."""
        if self._task is not None or now_s < self._began_s + EVERY_S:
            return
        self._began_s = now_s
        self._task = asyncio.create_task(self._decide(breaker, clock))

    @property
    def is_under_way(self) -> bool:
        """Whether the health path is being asked."""
        return self._task is not None

    async def _decide(self, breaker: CircuitBreaker, clock: Callable[[], float]) -> None:
        try:
            said = await self._ask()
            if said:
                breaker.cleared()
            elif said is not None:
                breaker.confirmed(clock())
        except Exception:  # a mistake of ours leaves the decision to the next caller
            log.exception("a health path could not be asked")
        finally:
            self._task = None


def of_one(transport: Transport, host: bytes, path: bytes, own: Callable[[], Headers]) -> Ask:
    """Return how to ask a backend with one address."""

    async def ask() -> bool | None:
        call = Call(b"GET", path, [(b"host", host), *own()])
        try:
            async with asyncio.timeout(CHECK_S):
                until_s = asyncio.get_running_loop().time() + CHECK_S
                reply = await transport.send(call, until_s)
                await reply.read(REPLY_BYTES_MAX)
        except Overloaded:
            return None  # our own slots are taken: that says nothing of the server
        except (BackendError, TimeoutError):
            return False
        return is_well(reply.status)

    return ask


def of_several(balanced: LoadBalancer) -> Ask:
    """Return how to ask a backend with several addresses: it is well where one of them is."""

    async def ask() -> bool | None:
        return await balanced.check()

    return ask
