"""Responses: writes the backend's reply unchanged, with Tollway's information in headers."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import orjson

from tollway.backends.documents import EVENT_STREAM
from tollway.backends.errors import BackendError
from tollway.backends.http.codings import Decoded
from tollway.backends.money import header_usd
from tollway.backends.types import Headers
from tollway.eager import Eager, Until, as_task, running, uncancel
from tollway.gateway.data_plane.asgi import Receive, Send
from tollway.gateway.data_plane.headers import returned
from tollway.gateway.data_plane.idempotency import StoredResponse
from tollway.gateway.data_plane.problems import HttpProblem, broken_off
from tollway.gateway.data_plane.rate_limits import RateLimit
from tollway.gateway.data_plane.reply_stamp import ReplyStamp
from tollway.gateway.listener.client import Client
from tollway.gateway.listener.cycle import encoded_head
from tollway.gateway.routing.metering import PENDING
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.replies.drains import Drains
from tollway.gateway.routing.replies.stream_relay import CLOSE, DRAIN, StreamRelay
from tollway.gateway.routing.request_state import Attempt, RequestState

BODILESS = frozenset((204, 304))
_COST = b"x-tollway-cost-usd: %b\r\n"
_DATE = b"\ndate: "
OFF, COMMENT, EVENT = "off", "comment", "event"
"""How a client is told the cost of a stream, which is known when it has ended."""


class KnownHead(Protocol):
    """The head of a backend's reply that came before; `made` is what `maker` has made of it."""

    status: int
    headers: Headers
    maker: object
    made: bytes


class Responses:
    """Writes the responses to clients."""

    def __init__(
        self,
        *,
        rates: Mapping[str, RateLimit],
        clock: Callable[[], float],
        via: bytes,
        hide_amounts: bool,
        drains: Drains,
        stream_cost: str = OFF,
    ) -> None:
        """`rates` maps rate-limited tenants to their limits.

        `stream_cost`: how the cost of a stream follows its last event: OFF, COMMENT or EVENT.

        `drains` keeps reading streams whose clients disconnect, if the backend is configured so.
        """
        self._rates = rates
        self._clock = clock
        self._via = via
        self._hide_amounts = hide_amounts
        self._drains = drains
        self._stream_cost = stream_cost

    def whole(self, state: RequestState) -> StoredResponse:
        """Return a complete reply as it is sent to the client, but for its stamp."""
        held = state.held
        assert held is not None, "a request without a reply is refused"
        headers = returned(held.headers, self._via) + self._gateway_headers(state)
        if state.inference.call.method == b"HEAD" and not held.body:
            # The length that GET's reply would have, or none (RFC 9110 8.6).
            headers += [pair for pair in held.headers if pair[0] == b"content-length"]
        elif held.status not in (204, 304):  # which have no body and no length
            headers.append((b"content-length", b"%d" % len(held.body)))
        return StoredResponse(held.status, headers, held.body)

    def encoded(self, state: RequestState, known: KnownHead, stamp: ReplyStamp) -> bytes | None:
        """Return a complete reply as it is sent, made from a head that is `known`.

        It is what `whole`, the stamp and the listener make; None if they must.
        """
        held, inference = state.held, state.inference
        assert held is not None
        if (
            stamp.leaving
            or held.outcome.provenance == PENDING
            or inference.tenant in self._rates
            or held.status in BODILESS
        ):
            return None
        upstream_s = state.upstream_s
        gateway_s = self._clock() - inference.received_s - upstream_s
        return self.composed(state, held, known, stamp, gateway_s, upstream_s, state.cost_nano)

    def composed(  # noqa: PLR0917 - called once a request, where keywords take time
        self,
        state: RequestState,
        held: Attempt,
        known: KnownHead,
        stamp: ReplyStamp,
        gateway_s: float,
        upstream_s: float,
        cost_nano: int,
    ) -> bytes:
        """Return a complete reply as it is sent, where nothing else is to be told."""
        if known.maker is not self:
            known.made = self._made(known)
            known.maker = self
        cost = b"" if self._hide_amounts else _COST % header_usd(cost_nano)
        if held.output_limit:
            cost = b"x-tollway-output-limit: %d\r\n%b" % (held.output_limit, cost)
        inference = state.inference
        if inference.cache_result:
            cost = b"x-tollway-cache: %b\r\n%b" % (inference.cache_result.encode(), cost)
        date = b"" if _DATE in known.made else b"date: %b\r\n" % stamp.date()[1]
        return b"%b%b%bserver-timing: gateway;dur=%.3f, upstream;dur=%.3f\r\n%b%b%b" % (
            known.made,
            b"x-tollway-decision: %b\r\n" % state.id.encode() if state.id else b"",
            _own(held.backend, state.reason),
            gateway_s * 1e3,
            upstream_s * 1e3,
            cost,
            b"content-length: %d\r\n%b\r\n" % (len(held.body), date),
            held.body,
        )

    def _made(self, known: KnownHead) -> bytes:
        """Return the status line and the fields of a backend's reply that go to the client."""
        return encoded_head(known.status, returned(known.headers, self._via))

    async def relay(
        self, state: RequestState, relay: StreamRelay, receive: Receive, send: Send
    ) -> None:
        """Relay a stream as it arrives, and end it at the request's deadline.

        When the client disconnects, close or drain the stream, as its backend is configured. A
        stream that breaks off ends with an event that gives the reason and without its last chunk,
        so that no client takes it for complete.
        """
        held, route = state.held, state.inference.route
        assert held is not None
        headers = [*returned(held.headers, self._via), *self._gateway_headers(state)]
        is_media = relay.follower.is_media
        if is_media and type(relay.reply.stream) is not Decoded:
            headers += [pair for pair in held.headers if pair[0] == b"content-length"]
        error, abandoned, last = "the stream was not read to its end", "", b""
        try:
            with _cancelling(running(), state.inference.client, receive) as left:
                try:
                    async with Until(state.inference.deadline_s):
                        start = {"type": "http.response.start", "status": held.status}
                        await send({**start, "headers": headers})
                        while chunk := await relay.read():
                            part = {"type": "http.response.body", "body": chunk, "more_body": True}
                            await send(part)
                            last = chunk
                    error = ""
                except TimeoutError:
                    error = "the request's deadline has passed"
                except BackendError as exc:
                    error = str(exc) or type(exc).__name__
                except asyncio.CancelledError:
                    if not left():
                        raise
                    uncancel()
                    error, abandoned = "", CLOSE
                    await as_task()  # for the timeout of a drain
                    if await self._drains.drain(relay, state.inference.tenant):
                        abandoned = DRAIN
        finally:
            await relay.close(error, abandoned=abandoned)
        if not abandoned:
            if error and is_media:
                return  # a file has no place for the reason
            if error:
                event = route.protocol.last_event(
                    state.inference.call.payload, broken_off(error).problem()
                )
                body = relay.follower.release() + self._cost(state, relay, last) + event
                await send({"type": "http.response.body", "body": body, "more_body": True})
                return  # without a last chunk
            await send({"type": "http.response.body", "body": self._cost(state, relay, last)})

    def _cost(self, state: RequestState, relay: StreamRelay, last: bytes) -> bytes:
        """Return what tells the client the cost of a stream that has ended; empty if it is off.

        `last`: the last bytes of the stream. Only streams of events have a place for it.
        """
        held = state.held
        if self._stream_cost == OFF or held is None or held.outcome.provenance == PENDING:
            return b""
        if relay.follower.is_media or relay.follower.media_type != EVENT_STREAM:
            return b""
        cost, why = header_usd(state.cost_nano), held.outcome.provenance.encode()
        apart = b"" if last.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")) else b"\n\n"
        if self._stream_cost == COMMENT:
            told = b": tollway decision=%b cost_usd=%b provenance=%b\n\n"
        else:
            told = (
                b'event: tollway.cost\ndata: {"decision":"%b","cost_usd":%b,"provenance":"%b"}\n\n'
            )
        return apart + told % (state.id.encode(), cost, why)

    def _gateway_headers(self, state: RequestState) -> Headers:
        """Return Tollway's own response headers."""
        held = state.held
        assert held is not None
        upstream_s = state.upstream_s
        gateway_s = self._clock() - state.inference.received_s - upstream_s
        fields = [
            *([(b"x-tollway-decision", state.id.encode())] if state.id else ()),
            _field("x-tollway-backend", held.backend),
            _field("x-tollway-reason", state.reason),
            (
                b"server-timing",
                b"gateway;dur=%.3f, upstream;dur=%.3f" % (gateway_s * 1e3, upstream_s * 1e3),
            ),
        ]
        if state.inference.cache_result:
            fields.append(_field("x-tollway-cache", state.inference.cache_result))
        if held.output_limit:
            fields.append((b"x-tollway-output-limit", b"%d" % held.output_limit))
        tenant = state.inference.tenant
        if tenant in self._rates:
            fields += self._rates[tenant].fields()
        if not self._hide_amounts:
            if held.outcome.provenance == PENDING:
                quote_nano = state.cost_nano + held.quote.expected_nano
                fields.append((b"x-tollway-quote-usd", header_usd(quote_nano)))
            else:
                fields.append((b"x-tollway-cost-usd", header_usd(state.cost_nano)))
        return fields

    async def refuse(
        self, refused: HttpProblem, route: RoutePlan | None, received_s: float, send: Send
    ) -> None:
        """Write a refusal in the format of the route's protocol."""
        problem = refused.problem()
        if self._hide_amounts:
            problem = {k: v for k, v in problem.items() if not k.endswith("_usd")}
        status = refused.status
        if route is None:
            content_type, body = b"application/problem+json", orjson.dumps(problem)
        else:
            status = problem["status"] = route.protocol.statuses.get(status, status)
            content_type, body = route.protocol.error(status, problem)
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-tollway-reason", refused.reason.encode()),
            (b"server-timing", b"total;dur=%.3f" % ((self._clock() - received_s) * 1e3)),
            *refused.headers,
        ]
        if not self._hide_amounts:
            headers.append((b"x-tollway-cost-usd", header_usd(refused.cost_nano)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def _cancelling(
    serving: Eager | asyncio.Task[Any], client: Client | None, receive: Receive
) -> Iterator[Callable[[], bool]]:
    """Cancel a task when its client disconnects; yield whether it has.

    If `client` is None, another task waits for the server's message: the server has no `Client`, or
    the request is to be answered even if its client is gone.
    """
    if client is not None:
        client.cancels = True
        if client.left:
            serving.cancel()
        try:
            yield lambda: client.left
        finally:
            client.cancels = False
        return

    def leave(done: asyncio.Task[None]) -> None:
        serving.cancel()

    leaving = asyncio.create_task(_disconnected(receive))
    leaving.add_done_callback(leave)
    try:
        yield leaving.done
    finally:
        leaving.remove_done_callback(leave)
        leaving.cancel()


@lru_cache(1024)
def _own(backend: str, reason: str) -> bytes:
    """Return the lines that say who answered, and why it was asked."""
    return b"x-tollway-backend: %b\r\nx-tollway-reason: %b\r\n" % (
        backend.encode(),
        reason.encode(),
    )


@lru_cache(1024)
def _field(name: str, value: str) -> tuple[bytes, bytes]:
    """Return a field with one of the few values that it may have."""
    return name.encode(), value.encode()


async def _disconnected(receive: Receive) -> None:
    """Return when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
