"""Simulated model servers: their latency, their queues, their failures.

A server works on a fixed number of calls at once; the rest wait in order of arrival. Because the
queue is first in, first out, a call's start is known on arrival: it is when the first slot becomes
free (a heap holds these times). So a call is a single wait, however long the queue.

The servers take the place of transports and use a protocol without bytes: a request carries its
predrawn outcome at each backend, and a reply carries its answer and usage.
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from tollway.backends.errors import BackendError, ConnectFailed, DeadlineExceeded, InvalidAnswer
from tollway.backends.json_members import NO_EDITS, Edits
from tollway.backends.ports import UnaryProtocol
from tollway.backends.rules.backend import WholeRequestRules
from tollway.backends.types import Call, HttpReply, ModelAnswer, Payload, Usage
from tollway.simulations.world.clock import Until, VirtualLoop
from tollway.simulations.world.truth import Condition, usage

CONNECT_S = 0.003  # how long a refused connection takes to be noticed, on one network
SAY_BUSY_S = 0.001  # how long a server takes to answer 503
NO_BODY = WholeRequestRules(b"")


class Said(HttpReply):
    """A reply without bytes: its answer and its usage."""

    def __init__(self, status: int, answer: ModelAnswer | None, usage: Usage | None) -> None:
        super().__init__(status, [], NO_BODY, b"")
        self.answer = answer
        self.usage = usage

    async def read(self, limit_bytes: int, hold: Callable[[int], None] | None = None) -> bytes:
        """Return nothing: there are no bytes."""
        return b""


class Wire(UnaryProtocol):
    """The protocol of simulated servers."""

    name = "simulated"
    failover_statuses: frozenset[int] = frozenset()

    def parse(self, call: Call) -> Payload:
        """Return the payload that the call carries."""
        return call.payload

    def readdress(
        self, call: Call, base: bytes, model: str | None, payload: Payload
    ) -> tuple[bytes, Edits]:
        """Return the target as it is, and no edits."""
        return call.target, NO_EDITS

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the reported usage."""
        assert isinstance(reply, Said)
        return reply.usage

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Return the answer."""
        assert isinstance(reply, Said)
        if reply.answer is None:
            raise InvalidAnswer("an error with status 200")
        return reply.answer

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return an empty refusal: it is never read."""
        return b"", b""


@dataclass(slots=True)
class Load:
    """The work that a server has done."""

    calls: int = 0
    turned_away: int = 0
    waited_s: float = 0.0
    busy_s: float = 0.0


class Server:
    """One backend's servers and their queue, shared by all gateways."""

    # The mutable state is when each slot is free, the queued calls, the condition and the load.

    def __init__(
        self,
        rng: Random,
        *,
        places: int,
        queue: int,
        condition: Condition,
    ) -> None:
        self._rng = rng
        self._free_at_s = [0.0] * places
        self._begins_s: list[float] = []
        self._queue = queue
        self.condition = condition
        self.load = Load()

    def admit(self, now_s: float, service_s: float) -> float | None:
        """Accept a call; return when it will be done, None if the queue is full."""
        begins = self._begins_s
        while begins and begins[0] <= now_s:
            heapq.heappop(begins)
        starts_s = self._free_at_s[0]
        if starts_s <= now_s:
            starts_s = now_s
        elif len(begins) >= self._queue:
            self.load.turned_away += 1
            return None
        else:
            heapq.heappush(begins, starts_s)
        done_s = starts_s + service_s
        heapq.heapreplace(self._free_at_s, done_s)
        load = self.load
        load.calls += 1
        load.waited_s += starts_s - now_s
        load.busy_s += service_s
        return done_s

    @property
    def fails(self) -> bool:
        """Draw whether a call fails."""
        return self.condition.errors > 0 and self._rng.random() < self.condition.errors


@dataclass(slots=True)
class Lot:
    """A request's predrawn outcome per backend; see `truth.Truth` and `workload.Requests`."""

    service_s: list[float]
    quality: list[float]
    output_tokens: list[float]
    tokens: float
    luck: float
    sure: float

    def reply(self, arm: int, cascade: bool) -> Said:
        """Return the reply of a backend."""
        right = self.luck < self.quality[arm]
        used = usage(self.service_s[arm], self.tokens, self.output_tokens[arm])
        return Said(200, ModelAnswer(right, self._confidence(arm) if cascade else ()), used)

    def _confidence(self, arm: int) -> tuple[float]:
        """Return a reply's stated confidence, which is informative but noisy."""
        return (1.0 / (1.0 + math.exp(-6.0 * (self.quality[arm] - self.luck) - self.sure)),)


class Arrival:
    """What comes of a call, and when: a reply, or a failure."""

    __slots__ = ("_comes", "at_s")

    def __init__(self, at_s: float, comes: Callable[[], Said] | BackendError) -> None:
        self.at_s = at_s
        self._comes = comes

    def take(self) -> Said:
        """Return the reply, at the time that it arrives; BackendError if there is none."""
        comes = self._comes
        if isinstance(comes, BackendError):
            raise comes
        return comes()


class Line:
    """A transport to a server, for one gateway's calls to one backend."""

    def __init__(self, loop: VirtualLoop, server: Server, arm: int, cascade: bool) -> None:
        self._loop = loop
        self._server = server
        self._arm = arm
        self._cascade = cascade

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Return the reply when it arrives; see the port."""
        arrival = self.send_now(call, deadline_s)
        await Until(arrival.at_s)
        return arrival.take()

    def send_now(self, call: Call, deadline_s: float) -> Arrival:
        """Send a call; return when its reply arrives."""
        server, now_s = self._server, self._loop.now_s
        if not server.condition.up:
            return Arrival(now_s + CONNECT_S, ConnectFailed("connection refused"))
        lot: Lot = call.payload.data["lot"]
        done_s = server.admit(now_s, lot.service_s[self._arm])
        if done_s is None:
            return Arrival(now_s + SAY_BUSY_S, busy)
        if done_s > deadline_s:
            return Arrival(deadline_s, DeadlineExceeded("the deadline passed", ran=True))
        return Arrival(done_s, partial(self._said, lot))

    def _said(self, lot: Lot) -> Said:
        return Said(500, None, None) if self._server.fails else lot.reply(self._arm, self._cascade)

    async def aclose(self) -> None:
        """Do nothing."""


def busy() -> Said:
    """Return the reply of a server with too many calls."""
    return Said(503, None, None)
