"""Carries calls that our own HTTP/1.1 does not support: HTTP/2, and through a proxy.

Any `httpx.AsyncBaseTransport` works. This module adds what a gateway's transport needs: slots with
a queue in order of arrival, one absolute deadline for the whole attempt, a limit on silence, a
refusal of heads that HTTP does not allow, and a record of whether a request was sent.
"""

import asyncio
import math
from collections.abc import AsyncIterator

import httpx

from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.documents import streams_events
from tollway.backends.errors import BadReply, ConnectFailed, DeadlineExceeded, mark_unsent
from tollway.backends.http.connection import MAX_FIELDS
from tollway.backends.http.httpcore2_pool import Httpcore2Pool
from tollway.backends.http.request_head import OWN_FRAMING, needs_length, request_head
from tollway.backends.types import Call, Headers, HttpReply
from tollway.eager import as_task

_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class HttpxTransport:
    """Carries calls to the origin of `url` over an httpx transport; see `Transport`.

    `pool` is closed with this transport. `slots` limit the concurrent calls; times are in seconds,
    `stream_idle_s` is the silence allowed between two parts of a stream of events.
    """

    # The mutable state of this transport is its slots and whether it is closed.
    def __init__(
        self,
        pool: httpx.AsyncBaseTransport,
        url: str,
        *,
        slots: ConcurrencyQueue,
        owns_slots: bool = True,
        connect_timeout_s: float = 2.0,
        stream_idle_s: float = 60.0,
    ) -> None:
        self._pool = pool
        self._origin = httpx.URL(url).copy_with(raw_path=b"/")
        self.slots = slots
        self._owns_slots = owns_slots
        self._timeout = {"connect": connect_timeout_s}
        self._stream_idle_s = stream_idle_s
        self._closed = False

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Send `call` and return its reply once the head has arrived (see `Transport`)."""
        request_head(call, b"")  # raises ValueError for a request that would split
        slot = await self._enter(deadline_s, call.tenant)
        try:
            response = await self._ask(call, deadline_s)
        except BaseException:
            slot.leave()
            raise
        streamed = streams_events(response.headers.raw)
        self.slots.answered(
            slot.held_s, response.status_code, streamed=streamed, tenant=call.tenant
        )
        idle_s = self._stream_idle_s if streamed else math.inf
        tells = streamed and response.status_code < 400 and self.slots.awaits_events
        body = _Body(response, slot, deadline_s, idle_s, tells=tells)
        try:
            return HttpReply(response.status_code, _head(response), body)
        except BaseException:
            await body.aclose()
            raise

    async def aclose(self) -> None:
        """Close every connection; running calls fail, and those that wait for its own slots."""
        self._closed = True
        if self._owns_slots:
            self.slots.close()
        await self._pool.aclose()

    async def _enter(self, deadline_s: float, tenant: str) -> "_Slot":
        try:
            await self.slots.enter(deadline_s, tenant)
        except asyncio.CancelledError as exc:
            mark_unsent(exc)
            raise
        slot = _Slot(self.slots, tenant)
        if self._closed:
            slot.leave()
            raise ConnectFailed("the transport is closed")
        return slot

    async def _ask(self, call: Call, deadline_s: float) -> httpx.Response:
        sent = False

        async def trace(event: str, info: object) -> None:
            nonlocal sent
            sent = sent or event.endswith("send_request_headers.started")

        headers = [pair for pair in call.headers if pair[0] not in OWN_FRAMING]
        if needs_length(call):
            headers.append((b"content-length", b"%d" % len(call.body)))
        request = httpx.Request(
            call.method.decode("ascii"),
            self._origin,
            headers=headers,
            content=call.body,
            extensions={"timeout": self._timeout, "target": call.target, "trace": trace},
        )
        await as_task()
        began_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self._pool.handle_async_request(request)
        except asyncio.CancelledError as exc:
            if not sent:
                mark_unsent(exc)
            raise
        except TimeoutError as exc:
            if isinstance(self._pool, Httpcore2Pool):  # the connection it waited for may be dead
                self._pool.leave_silent(began_s)
            raise DeadlineExceeded("no reply within the deadline", ran=sent) from exc
        except _NOT_CONNECTED as exc:
            raise ConnectFailed(f"no connection: {exc}") from exc
        except httpx.TransportError as exc:
            if sent:
                raise BadReply(f"{type(exc).__name__}: {exc}") from exc
            raise ConnectFailed(f"{type(exc).__name__}: {exc}") from exc


def _head(response: httpx.Response) -> Headers:
    """Return the fields in the port's form; BadReply for an invalid head."""
    if not 200 <= response.status_code < 600:
        raise BadReply(f"status {response.status_code}")
    headers = [(name.lower(), value) for name, value in response.headers.raw]
    if len(headers) > MAX_FIELDS:
        raise BadReply(f"more than {MAX_FIELDS} header fields")
    names = {name for name, _ in headers}
    if names >= OWN_FRAMING:
        raise BadReply("a length and a transfer coding")
    if response.status_code in (204, 304):
        return [pair for pair in headers if pair[0] != b"content-length"]
    return headers


class _Slot:
    """A slot that one call holds."""

    def __init__(self, slots: ConcurrencyQueue, tenant: str) -> None:
        self._slots = slots
        self._tenant = tenant
        self._loop = asyncio.get_running_loop()
        self._since_s = self._loop.time()

    @property
    def held_s(self) -> float:
        """How long it has been held."""
        return self._loop.time() - self._since_s

    def begun(self) -> None:
        """Record that the first event of a stream has arrived."""
        self._slots.begun(self.held_s, self._tenant)

    def leave(self) -> None:
        """Return it."""
        self._slots.leave(self.held_s, self._tenant)


class _Body:
    """The body of a reply, under the attempt's deadline; holds its slot until it ends."""

    # The mutable state of a body is the response it still has to close; None once it is.
    def __init__(
        self,
        response: httpx.Response,
        slot: _Slot,
        deadline_s: float,
        stream_idle_s: float,
        *,
        tells: bool,
    ) -> None:
        """`tells`: whether to notify the slots when the first part has arrived."""
        self._tells = tells
        self._response: httpx.Response | None = response
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._parts = aiter(response.stream)
        self._slot = slot
        self._deadline_s = deadline_s
        self._idle_s = stream_idle_s

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._response is None:
            raise StopAsyncIteration
        until_s = min(self._deadline_s, asyncio.get_running_loop().time() + self._idle_s)
        try:
            async with asyncio.timeout_at(until_s):
                part = await anext(self._parts)
            if self._tells:
                self._tells = False
                self._slot.begun()
            return part
        except StopAsyncIteration:
            await self.aclose()
            raise
        except TimeoutError as exc:
            await self.aclose()
            if until_s == self._deadline_s:
                late = "no whole reply within the deadline"
                raise DeadlineExceeded(late, ran=True) from exc
            raise BadReply(f"silent for {self._idle_s} s in the middle of a body") from exc
        except httpx.TransportError as exc:
            await self.aclose()
            raise BadReply(f"{type(exc).__name__}: {exc}") from exc

    async def aclose(self) -> None:
        """Return the connection, or cut it if the body was not read to its end."""
        response, self._response = self._response, None
        if response is not None:
            try:
                await response.aclose()
            finally:
                self._slot.leave()
