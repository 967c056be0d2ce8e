"""The batcher: a transport that joins calls before it passes them to another transport.

Theory of operation. A call waits in the line of those that it can be joined with. The line is sent
as one call when it holds as many rows as a batch may have (`size.py`), or when its first call has
waited `max_wait_s`. While all slots of the backend are taken, nothing is gained by sending: lines
then grow, and whenever a batch ends, the next one is led by the call whose tenant's turn it is
(`fair_line.py`); the others of its line fill it up. So a tenant with many calls, or with calls that
nothing can be joined with, delays those of another by one batch.

    the batch                               each of its calls
    is answered, and the reply is split     gets its rows, and its share of the device time
    is refused (400, 413, 500, ...), cut    goes alone, once, and bears its share of the first try
    off, or answered by other rows
    finds a server that is down, overloaded gets that reply or error; one of them is evidence
    or has no such model (503, 429, ...)
    contains it no more                     a call whose client left or whose deadline passed takes
                                            only its row along; without calls a batch is cancelled

If all of a failed batch succeed alone, such calls are not joined for a while; if some fail alone,
the calls of their tenants are not.

Device time is what the reply reports for the batch, else the time from sending it to its last byte;
waiting in a line is not charged.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tollway.backends.batching.line import Line, Member, fail, give, is_good, is_open, waits
from tollway.backends.batching.parts import Joiner, Part, Unsplittable
from tollway.backends.batching.rests import Rests
from tollway.backends.batching.shares import divided
from tollway.backends.batching.size import BatchSize
from tollway.backends.concurrency.fair_line import FairLine
from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.concurrency.start_gate import StartGate
from tollway.backends.devices.reply_time import TimedTransport
from tollway.backends.documents import header, streams_events
from tollway.backends.errors import (
    BackendError,
    BadReply,
    ConnectFailed,
    DeadlineExceeded,
    Overloaded,
    SharedFailure,
    mark_unsent,
)
from tollway.backends.ports import Transport, WireProtocol
from tollway.backends.price import Price
from tollway.backends.types import Call, HttpReply, Usage
from tollway.backends.usage_headers import DEVICE_SECONDS

FOR_ALL = frozenset((401, 403, 404, 405, 410, 429, 502, 503, 504, 529))
"""Statuses that are about the server or its URL: a call alone would be answered alike."""

WAITING_MAX = 10_000  # calls of some kilobytes: a limit of last resort
CLOCK_S = 0.0005  # timers may come early by the clock's resolution


class Histogram(Protocol):
    """Counts values."""

    def observe(self, value: float) -> None:
        """Count a value."""


@dataclass(slots=True)
class BatchStats:
    """What is counted: rows of batches, seconds that calls waited, and calls by what came of them.

    Ends: `alone` (not joined), `joined`, `retried` (alone, after its batch failed), `failed` (with
    its batch), `left`.
    """

    rows: Histogram
    waits: Histogram
    ends: Counter[str] = field(default_factory=Counter)


class Batcher:
    """Joins the calls of one backend. `inner` carries batches; `size` limits their rows."""

    # The mutable state: the lines, whether one of them waits for a slot, batches in progress, what
    # is not joined at present, and the price by which shares are rounded.

    def __init__(
        self,
        inner: Transport,
        wire: WireProtocol,
        joiner: Joiner,
        *,
        size: BatchSize,
        max_wait_s: float,
        reply_bytes_max: int,
        stats: BatchStats,
        slots: ConcurrencyQueue | None = None,
    ) -> None:
        """`slots`: those that `inner` takes; None: there is no limit of concurrent calls.

        `reply_bytes_max` limits the reply to each call of a batch.
        """
        self.inner = inner
        self.size = size
        self.stats = stats
        self._wire = wire
        self._joiner = joiner
        self._max_wait_s = max_wait_s
        self._reply_bytes_max = reply_bytes_max
        self._slots = slots
        self._lines: dict[object, Line] = {}
        self._waiting: FairLine[Member] = FairLine()
        self._blocked = self._closed = False
        self._flying = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._rests = Rests()
        self._rate_nano = 0.0

    def priced(self, price: Price) -> None:
        """Take the price in force, by which shares of device time are rounded."""
        self._rate_nano = price.per_device_s_nano

    @property
    def waiting(self) -> int:
        """Calls that wait to be sent."""
        return self._waiting.count

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Return the reply to a call that was sent alone or in a batch (see `Transport`)."""
        part = self._joiner.part(call)
        now_s = asyncio.get_running_loop().time()
        if (
            part is None
            or part.rows > self.size.rows
            or self._rests.has(part.key, now_s)
            or self._rests.has((part.key, call.tenant), now_s)
        ):
            self.stats.ends["alone"] += 1
            return await self.inner.send(call, deadline_s)
        member = self._enter(part, deadline_s, now_s)
        try:
            return await member.future
        except asyncio.CancelledError as exc:
            self.stats.ends["left"] += 1
            if waits(member):
                mark_unsent(exc)
            raise
        finally:
            self._leave(member)

    async def aclose(self) -> None:
        """Fail the calls that wait, cancel those in progress, and close every connection."""
        self._closed = True
        for member in self._waiting.items():
            fail(member, ConnectFailed("the transport is closed"))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.inner.aclose()

    # ------------------------------------------------------------------ lines

    def _enter(self, part: Part, deadline_s: float, now_s: float) -> Member:
        """Add a call to its line, and send the line if it is full. Raises Overloaded."""
        tenant = part.call.tenant
        self._check(tenant)
        loop = asyncio.get_running_loop()
        line = self._lines.get(part.key)
        if line is None:
            line = self._lines[part.key] = Line()
        member = Member(part, deadline_s, now_s, loop.create_future(), line, tenant)
        line.members.append(member)
        line.rows += part.rows
        self._waiting.push(tenant, member)
        patience_s = None if self._slots is None else self._slots.patience_s
        until_s = deadline_s
        if patience_s is not None:
            until_s = min(deadline_s, now_s + self._max_wait_s + patience_s)
        member.timer = loop.call_at(until_s, self._expire, member)
        self._send_due(line, now_s)
        return member

    def _check(self, tenant: str) -> None:
        """Raise Overloaded if a tenant's call would wait too long, ConnectFailed if closed."""
        if self._closed:
            raise ConnectFailed("the transport is closed")
        if self._has_room():
            return
        ahead = self._waiting.ahead(tenant)
        is_late = self._slots is not None and self._slots.is_too_long(ahead / self.size.rows)
        if is_late or ahead >= WAITING_MAX:
            if self._slots is not None:
                self._slots.refused += 1
            raise Overloaded(f"{self.waiting} calls are waiting for a batch")

    def _has_room(self) -> bool:
        """Whether a batch would be sent at once."""
        slots = self._slots
        if self._closed:
            return False
        return not self._flying or slots is None or max(self._flying, slots.busy) < slots.limit

    def _send_due(self, line: Line, now_s: float) -> None:
        """Send what of a line is full or due, as far as there are slots."""
        while (first := line.first()) is not None:
            due_s = first.arrived_s + self._max_wait_s
            if line.rows < self.size.rows and now_s < due_s:
                if line.timer is None:
                    loop = asyncio.get_running_loop()
                    line.timer = loop.call_at(due_s, self._ring, line)
                return
            if not self._has_room():
                self._blocked = True
                return
            self._fly(first)

    def _ring(self, line: Line) -> None:
        line.timer = None
        self._send_due(line, asyncio.get_running_loop().time() + CLOCK_S)

    def _pump(self) -> None:
        """Send what waits for slots, in the order of the tenants' turns."""
        while self._blocked and self._waiting.count and self._has_room():
            tenant, lead = self._waiting.pop()
            self._waiting.push(tenant, lead, first=True)  # `_fly` takes it out with the others
            self._fly(lead)
        if not self._waiting.count:
            self._blocked = False

    def _fly(self, lead: Member) -> None:
        """Send a batch: a call, and of its line the first ones that fit beside it."""
        line, room = lead.line, self.size.rows - lead.part.rows
        batch = [lead]
        for member in line.members:
            if room <= 0:
                break
            if member is not lead and waits(member) and member.part.rows <= room:
                batch.append(member)
                room -= member.part.rows
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for member in batch:
            self._take(member)
            member.batch = batch
            self.stats.waits.observe(now_s - member.arrived_s)
        self._flying += 1
        task = self._begin(self._carry(batch))
        for member in batch:
            member.task = task

    def _take(self, member: Member) -> None:
        """Remove a call from its line."""
        line = member.line
        line.rows -= member.part.rows
        self._waiting.discard(member.tenant, member)
        self._waiting.charge(member.tenant, member.part.rows)
        if not line.rows:
            if line.timer is not None:
                line.timer.cancel()
            self._lines.pop(member.part.key, None)

    def _leave(self, member: Member) -> None:
        """Drop a call that has ended; a batch without calls is cancelled."""
        if member.timer is not None:
            member.timer.cancel()
        if member.batch is None:
            member.batch = []
            self._take(member)
        elif member.task is not None and not any(map(is_open, member.batch)):
            member.task.cancel()

    def _expire(self, member: Member) -> None:
        """Fail a call that has waited too long for a slot, or for its reply."""
        loop = asyncio.get_running_loop()
        waiting = waits(member)
        if loop.time() >= member.deadline_s - CLOCK_S:
            late = "no slot became free" if waiting else "no whole reply"
            fail(member, DeadlineExceeded(f"{late} within the deadline", ran=not waiting))
        elif waiting:
            if self._slots is not None:
                self._slots.refused += 1
            fail(member, Overloaded("no slot became free in time"))
        else:
            member.timer = loop.call_at(member.deadline_s, self._expire, member)

    # ------------------------------------------------------------------ batches

    def _begin(self, work: "asyncio._CoroutineLike[None]") -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _carry(self, batch: list[Member]) -> None:
        """Send a batch, and give each of its calls its reply, or send it alone."""
        try:
            try:
                retried, spent_s = await self._ask(batch)
            finally:
                self._flying -= 1
                self._pump()
            if retried:
                await self._retry(retried, batch, spent_s)
        except asyncio.CancelledError:
            for member in batch:
                fail(member, ConnectFailed("the transport is closed"))
            raise
        except Exception as exc:  # a bug of ours; each call tells of it
            for member in batch:
                fail(member, exc)

    async def _ask(self, batch: list[Member]) -> tuple[list[Member], float]:
        """Send a batch; return the calls to send alone, and the device time that was lost."""
        loop = asyncio.get_running_loop()
        rows = [member.part.rows for member in batch]
        self.stats.rows.observe(sum(rows))
        last = max(batch, key=lambda member: member.deadline_s)
        began_s = loop.time()
        try:
            reply = await self.inner.send(self._joined(batch, last), last.deadline_s)
            if len(batch) == 1 and streams_events(reply.headers):
                batch[0].future.set_result(reply)
                return [], 0.0
            body = await reply.read(self._reply_bytes_max * len(batch))
        except BackendError as exc:
            spent_s = loop.time() - began_s
            if len(batch) > 1 and isinstance(exc, BadReply):
                return batch, spent_s
            if isinstance(exc, DeadlineExceeded):
                self.size.observe(sum(rows), spent_s)
            self._fail_all(batch, exc)
            return [], 0.0
        spent_s = loop.time() - began_s
        if reply.status < 400:
            self.size.observe(sum(rows), spent_s)
        if len(batch) == 1:
            give(batch[0], reply, reply.headers, body, Usage(device_s=spent_s, exact=False))
            self.stats.ends["alone"] += 1
            return [], 0.0
        total_s = self._reported(batch[0], reply, body)
        used_s = spent_s if total_s is None else total_s
        shares = divided(used_s, rows, self._rate_nano)
        if reply.status in FOR_ALL or 300 <= reply.status < 400:
            self._refuse(batch, reply, body, shares)
        elif not self._divide(batch, reply, body, shares, is_reported=total_s is not None):
            return batch, used_s
        return [], 0.0

    def _joined(self, batch: Sequence[Member], last: Member) -> Call:
        """Return the call of a batch; that of `last` gives the head."""
        if len(batch) == 1:
            return last.part.call
        joined = self._joiner.join([member.part for member in batch], last.part.call)
        callers = {member.part.call.caller for member in batch}
        joined.caller = callers.pop() if len(callers) == 1 else ""
        joined.tenant = batch[0].tenant
        return joined

    def _divide(
        self,
        batch: Sequence[Member],
        reply: HttpReply,
        body: bytes,
        shares_s: Sequence[float],
        *,
        is_reported: bool,
    ) -> bool:
        """Give each call its part of a reply; return whether that was possible."""
        if reply.status != 200 or header(reply.headers, b"content-encoding") is not None:
            return False
        try:
            parts = [member.part for member in batch]
            replies = self._joiner.split(parts, reply.headers, body, shares_s)
        except Unsplittable:
            return False
        for member, (headers, own), share_s in zip(batch, replies, shares_s, strict=True):
            if is_reported:
                headers.append((DEVICE_SECONDS, repr(share_s).encode()))
            give(member, reply, headers, own, Usage(device_s=share_s, exact=False))
            self._rests.end((member.part.key, member.tenant))
        self._rests.end(batch[0].part.key)
        self.stats.ends["joined"] += len(batch)
        return True

    def _reported(self, member: Member, reply: HttpReply, body: bytes) -> float | None:
        """Return the device seconds that a reply reports; None if it reports none."""
        try:
            usage = self._wire.usage(member.part.call.payload, reply, body)
        except ValueError:
            return None
        return usage.device_s if usage is not None and usage.device_s > 0.0 else None

    def _refuse(
        self, batch: Sequence[Member], reply: HttpReply, body: bytes, seconds: Sequence[float]
    ) -> None:
        """Give the same reply to all calls of a batch."""
        headers = [pair for pair in reply.headers if pair[0] != DEVICE_SECONDS]
        for at, (member, share_s) in enumerate(zip(batch, seconds, strict=True)):
            usage = Usage(device_s=share_s, exact=False)
            give(member, reply, list(headers), body, usage, is_echo=at > 0)
        self.stats.ends["failed"] += len(batch)

    def _fail_all(self, batch: Sequence[Member], failure: BackendError) -> None:
        """Give the same failure to all calls of a batch; the first counts as evidence."""
        fail(batch[0], failure)
        for member in batch[1:]:
            why = str(failure)
            is_full = isinstance(failure, Overloaded)
            fail(member, Overloaded(why) if is_full else SharedFailure(why, ran=failure.ran))
        self.stats.ends["failed"] += len(batch)

    async def _retry(
        self, retried: Sequence[Member], batch: Sequence[Member], spent_s: float
    ) -> None:
        """Send each call of a failed batch alone; it bears its share of the time that was lost."""
        shares = divided(spent_s, [member.part.rows for member in batch], self._rate_nano)
        lost = dict(zip(map(id, batch), shares, strict=True))
        alone = [member for member in retried if is_open(member)]
        self.stats.ends["retried"] += len(alone)
        for member in alone:
            member.batch = [member]  # if its client leaves now, it is cancelled by itself
            member.task = self._begin(self._alone(member, lost[id(member)]))
        tasks = [member.task for member in alone if member.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        now_s = asyncio.get_running_loop().time()
        faulty = [member for member in alone if not is_good(member)]
        if not faulty:
            self._rests.begin(retried[0].part.key, now_s)
        elif len(faulty) < len(alone):
            for tenant in {member.tenant for member in faulty}:
                self._rests.begin((retried[0].part.key, tenant), now_s)

    async def _alone(self, member: Member, lost_s: float) -> None:
        """Send one call."""
        began_s = asyncio.get_running_loop().time()
        try:
            reply = await self.inner.send(member.part.call, member.deadline_s)
            body = await reply.read(self._reply_bytes_max)
        except asyncio.CancelledError:
            fail(member, ConnectFailed("the transport is closed"))
            raise
        except Exception as exc:
            fail(member, exc)
            return
        spent_s = asyncio.get_running_loop().time() - began_s
        headers, total_s = list(reply.headers), self._reported(member, reply, body)
        if total_s is not None:
            headers = [pair for pair in headers if pair[0] != DEVICE_SECONDS]
            headers.append((DEVICE_SECONDS, repr(total_s + lost_s).encode()))
        usage = Usage(device_s=spent_s + lost_s, exact=False)
        give(member, reply, headers, body, usage)


def unwrapped(transport: Transport) -> Transport:
    """Return the transport that carries calls, without what joins them or reads their time."""
    while isinstance(transport, Batcher | TimedTransport | StartGate):
        transport = transport.inner
    return transport
