"""A pool of HTTP/1.1 connections to one origin.

Theory of operation. A call first takes one of the slots (`concurrency/queue.py`) in the order of
arrival and holds it until its reply has ended. It then takes the connection that was used last (the
one least likely to have been closed by its server), or opens one if none is idle. So busy + idle
connections never exceed the slots. Slots, not connections, are passed from one call to the next: a
connection may die on the way, a slot cannot.

An idle connection is dropped before its server drops it (most do after 5 s). It is not kept at all
after replies after which the server closes silently (`reuse.py` learns that). If the server was
faster, the call on the closed connection is repeated once on a new one, provided that nothing of a
reply was seen and repeating is safe: the method is idempotent, or the close crossed the request on
the wire, which the kernel reports. Otherwise a model might run, and be paid for, twice.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.errors import ConnectFailed, DeadlineExceeded, mark_unsent
from tollway.backends.http.connection import Connection, StaleConnection
from tollway.backends.http.exchange import Exchange
from tollway.backends.http.request_head import known_request_head, request_head
from tollway.backends.http.reuse import SOON_S, Reuse
from tollway.backends.types import Call, HttpReply
from tollway.eager import as_task

Connect = Callable[[asyncio.AbstractEventLoop, Callable[[], Connection]], Awaitable[None]]
"""Opens a socket and connects it to the protocol that the factory creates."""

Rewrite = Callable[[Call], Call]
"""Returns a call in the form that a proxy needs."""

_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


@dataclass(slots=True, eq=False)
class Sent:
    """A call that was sent on a connection of a pool.

    Its reply is taken once: by `take`, when `exchange.head` has come, or by `receive`.
    """

    pool: "Http1Transport"
    connection: Connection
    exchange: Exchange
    head: bytes
    call: Call
    deadline_s: float
    entered_s: float

    def take(self) -> HttpReply | None:
        """Return the reply if all of it has come, and it is no stream; else None."""
        whole = self.exchange.whole
        if whole is None or self.connection.streamed:
            return None
        return self.pool.answered(self, whole)

    async def receive(self) -> HttpReply:
        """Return the reply once its head has arrived; BackendError as of `Transport.send`."""
        return await self.pool.receive(self)

    async def cancel(self) -> HttpReply:
        """End the call as if the coroutine that waits for its reply had been cancelled."""
        await self.exchange.aclose()
        raise asyncio.CancelledError


class Http1Transport:
    """Carries calls to one origin over plain HTTP/1.1.

    `host` is the Host field for calls without one. Times in seconds: `connect_timeout_s` limits
    opening a connection, `idle_expiry_s` how long an unused one is kept, `stream_idle_s` the
    silence between two parts of a stream of events. (A whole reply may be silent until its
    deadline: some servers send its head at once, and its body when the model has finished.)
    `keep_alive`: whether connections are reused; None: learned.
    """

    # The mutable state of a pool is its slots and its connections.
    def __init__(
        self,
        connect: Connect,
        host: bytes,
        *,
        slots: ConcurrencyQueue,
        owns_slots: bool = True,
        connect_timeout_s: float = 2.0,
        idle_expiry_s: float = 4.0,
        stream_idle_s: float = 60.0,
        rewrite: Rewrite | None = None,
        keep_alive: bool | None = None,
        url: str = "",
    ) -> None:
        """`owns_slots`: whether the slots are used here only, so that they close with this
        transport.

        `url`: the address by which a transport with other settings recognizes this one.
        """
        self.reuse = Reuse(keep_alive)
        self._open_socket = connect
        self._rewrite = rewrite
        self._host = host
        self.slots = slots
        self.url = url
        self._owns_slots = owns_slots
        self._connect_timeout_s = connect_timeout_s
        self._idle_expiry_s = idle_expiry_s
        self._stream_idle_s = stream_idle_s
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    @property
    def busy(self) -> int:
        """Slots in use: calls that are connecting or have a reply that has not ended."""
        return self.slots.busy

    @property
    def opened(self) -> int:
        """Open connections, busy or idle."""
        return len(self._open)

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Send `call` and return its reply once the head has arrived (see `Transport`)."""
        if self._rewrite is not None:
            call = self._rewrite(call)
        head = request_head(call, self._host)
        return await self.receive(await self._begin(head, call, deadline_s))

    def send_now(self, call: Call, deadline_s: float, head: bytes | None = None) -> "Sent | None":
        """Send `call` if there is a free slot and an idle connection; None if it must wait.

        `head`: that of the call, if it is known.
        """
        idle = self._idle
        if self._rewrite is not None or not idle:
            return None
        if head is None:
            head = known_request_head(call, self._host)
        slots = self.slots
        if slots.busy >= slots.limit:
            return None
        connection = self._take()
        if connection is None:
            return None
        slots.busy += 1
        connection.entered_s = entered_s = connection.loop.time()
        connection.tenant = call.tenant
        exchange = connection.send(head, call, deadline_s)
        return Sent(self, connection, exchange, head, call, deadline_s, entered_s)

    async def receive(self, sent: "Sent") -> HttpReply:
        """Return the reply to a call that was sent, once its head has arrived."""
        try:
            return await self._received(sent)
        except StaleConnection as exc:
            self.reuse.closed(exc.chunked, asyncio.get_running_loop().time())
            self._drop_idle()  # as old or older: likely dead too, and a repeat needs a new one
            call = sent.call
            if call.method not in _IDEMPOTENT and exc.unheard < len(sent.head) + len(call.body):
                raise
        return await self._received(await self._begin(sent.head, call, sent.deadline_s))

    async def aclose(self) -> None:
        """Close every connection; running calls fail, and those that wait for its own slots."""
        if self._sweep is not None:
            self._sweep.cancel()
        if self._owns_slots:
            self.slots.close()
        if self._open:
            self._emptied = asyncio.Event()
            for connection in list(self._open):
                connection.close()
            await self._emptied.wait()

    # -- called by connections

    def ended(self, connection: Connection, reusable: bool) -> None:
        """Take a connection back, and pass its slot to the next call in the queue."""
        if not reusable:
            pass
        elif not self.reuse.allows(connection.chunked, connection.idle_since_s):
            connection.close()
        else:
            self._idle.append(connection)
            if self._sweep is None:
                self._arm_sweep()
        self.slots.leave(connection.idle_since_s - connection.entered_s, connection.tenant)

    def lost(self, connection: Connection) -> None:
        """Remove a connection that is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            now_s = asyncio.get_running_loop().time()
            if now_s < connection.idle_since_s + SOON_S:
                self.reuse.closed(connection.chunked, now_s)
        if not self._open and self._emptied is not None:
            self._emptied.set()

    # -- internal

    async def _begin(self, head: bytes, call: Call, deadline_s: float) -> "Sent":
        """Send a call as soon as there is a slot and a connection for it."""
        loop = asyncio.get_running_loop()  # once: before Python 3.12 each costs a system call
        try:
            if not self.slots.enter_now():
                await self.slots.enter(deadline_s, call.tenant)
            entered_s = loop.time()
            try:
                connection = self._take()
                if connection is None:
                    await as_task()
                    connection = await self._connect(deadline_s)
            except BaseException:
                self.slots.leave(loop.time() - entered_s, call.tenant)
                raise
        except asyncio.CancelledError as exc:
            mark_unsent(exc)
            raise
        return self._sent(connection, head, call, deadline_s, entered_s)

    def _sent(
        self, connection: Connection, head: bytes, call: Call, deadline_s: float, entered_s: float
    ) -> "Sent":
        # From here on the exchange owns the slot: `ended` returns it, once.
        connection.entered_s, connection.tenant = entered_s, call.tenant
        exchange = connection.send(head, call, deadline_s)
        return Sent(self, connection, exchange, head, call, deadline_s, entered_s)

    async def _received(self, sent: "Sent") -> HttpReply:
        exchange = sent.exchange
        try:
            await exchange.head
        except BaseException:
            await exchange.aclose()
            raise
        if exchange.error is not None:
            raise exchange.error
        return self.answered(sent, exchange.whole)

    def answered(self, sent: "Sent", whole: bytes | None) -> HttpReply:
        """Return a reply that has begun well, and tell the slots; `whole`: its body if it ended."""
        exchange, call, entered_s = sent.exchange, sent.call, sent.entered_s
        loop, slots, streamed = sent.connection.loop, self.slots, sent.connection.streamed
        self.note(sent)
        if streamed and exchange.status < 400 and slots.awaits_events:
            exchange.on_first(lambda: slots.begun(loop.time() - entered_s, call.tenant))
        return HttpReply(exchange.status, exchange.headers, exchange, whole)

    def note(self, sent: "Sent") -> None:
        """Tell the slots that a reply has begun well."""
        connection, exchange = sent.connection, sent.exchange
        self.slots.answered(
            connection.loop.time() - sent.entered_s,
            exchange.status,
            streamed=connection.streamed,
            tenant=sent.call.tenant,
        )

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self, deadline_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        until_s = min(deadline_s, loop.time() + self._connect_timeout_s)
        connection = Connection(self, loop, self._stream_idle_s)
        self._open.add(connection)
        try:
            async with asyncio.timeout_at(until_s):
                await self._open_socket(loop, lambda: connection)
        except BaseException as exc:
            connection.close()
            self.lost(connection)
            if isinstance(exc, TimeoutError) and until_s == deadline_s:
                raise DeadlineExceeded("not connected within the deadline", ran=False) from exc
            if isinstance(exc, TimeoutError) and not str(exc):  # our own, which has no message
                limit = f"within {self._connect_timeout_s:g} s (connect_timeout_s)"
                raise ConnectFailed(f"no connection {limit}") from exc
            if isinstance(exc, OSError):  # includes a failed look-up and a refusal
                raise ConnectFailed(f"no connection: {str(exc) or type(exc).__name__}") from exc
            raise
        return connection

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _arm_sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(self._idle_expiry_s / 4, self._expire)

    def _expire(self) -> None:
        """Close connections idle for too long: the front of the list, in order of return."""
        self._sweep = None
        oldest_s = asyncio.get_running_loop().time() - self._idle_expiry_s
        stale = [connection for connection in self._idle if connection.idle_since_s < oldest_s]
        del self._idle[: len(stale)]
        for connection in stale:
            connection.close()
        if self._idle:
            self._arm_sweep()
