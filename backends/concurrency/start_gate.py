"""The start gate: lets calls wait for a server that is starting, instead of failing.

While a backend is cold, its servers refuse connections: nothing was sent, so a call may try again
for free until its deadline. All waiting calls together knock a few times a second; when one gets
through, the others follow. A limit bounds how many wait.

Whoever scales the backend says when it is cold, and reads how many calls wait.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from tollway.backends.errors import ConnectFailed, DeadlineExceeded, Overloaded, mark_unsent
from tollway.backends.ports import Transport
from tollway.backends.types import Call, HttpReply

KNOCK_S = 0.25  # between two attempts: a start takes seconds, so this delays it by little
LEFT_S = 0.05  # of the deadline, to send and fail instead of only failing


def nothing() -> None:
    """Do nothing."""


@dataclass(slots=True)
class StartState:
    """Whether a backend is starting, and who waits for it.

    `wait_s`: how long a call may wait; `most`: how many calls may. `surcharge_usd`: by how much
    more a call is offered to a policy, for the replica that would have to be started and the wait.
    `on_wait` is called when the first call begins to wait.
    """

    # The mutable state is all of it.
    wait_s: float
    most: int
    is_cold: bool = False
    surcharge_usd: float = 0.0
    waiting: int = 0
    waited_s: float = 0.0
    refused: int = 0
    on_wait: Callable[[], None] = nothing
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    knocked_s: float = -math.inf


class StartGate:
    """A transport that waits where its server is starting."""

    # The mutable state is that of its StartState.

    def __init__(self, inner: Transport, state: StartState) -> None:
        self.inner = inner
        self.state = state

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Send a call; while the backend is cold, wait until it can be sent (see `Transport`)."""
        try:
            return await self.inner.send(call, deadline_s)
        except Overloaded:
            raise
        except ConnectFailed as exc:
            if not self.state.is_cold:
                raise
            return await self._wait(call, deadline_s, exc)

    async def aclose(self) -> None:
        """Close every connection."""
        await self.inner.aclose()

    async def _wait(self, call: Call, deadline_s: float, why: ConnectFailed) -> HttpReply:
        state, loop = self.state, asyncio.get_running_loop()
        if state.waiting >= state.most:
            state.refused += 1
            raise Overloaded(f"{state.waiting} calls already wait for the first replica") from why
        began_s = loop.time()
        until_s = min(deadline_s - LEFT_S, began_s + state.wait_s)
        state.waiting += 1
        if state.waiting == 1:
            state.on_wait()
        try:
            while True:
                await self._pause(until_s)
                now_s = loop.time()
                if now_s >= until_s:
                    break
                if state.is_cold and now_s < state.knocked_s + KNOCK_S:
                    continue  # another call has just found out
                state.knocked_s = now_s
                try:
                    reply = await self.inner.send(call, deadline_s)
                except Overloaded:
                    raise
                except ConnectFailed as exc:
                    why = exc
                else:
                    self._open()
                    return reply
        finally:
            state.waiting -= 1
            state.waited_s += loop.time() - began_s
        if until_s < began_s + state.wait_s:
            raise DeadlineExceeded("no replica had started within the deadline", ran=False) from why
        raise ConnectFailed(f"no replica had started after {state.wait_s:g} s") from why

    async def _pause(self, until_s: float) -> None:
        """Wait until it is time to knock, or a call got through."""
        left_s = until_s - asyncio.get_running_loop().time()
        opened = self.state.opened
        try:
            async with asyncio.timeout(max(0.0, min(KNOCK_S, left_s))):
                await opened.wait()
        except TimeoutError:
            return
        except asyncio.CancelledError as exc:
            mark_unsent(exc)
            raise

    def _open(self) -> None:
        """Have all waiting calls sent."""
        self.state.is_cold = False
        self.state.opened.set()
        self.state.opened = asyncio.Event()
