"""Responses: writes the backend's reply unchanged, with Tollway's information in headers."""

import asyncio
from collections.abc import Callable, Mapping

import orjson

from tollway.backends.money import header_usd
from tollway.backends.types import BackendError, Headers
from tollway.gateway.data_plane.asgi import Receive, Send
from tollway.gateway.data_plane.headers import returned
from tollway.gateway.data_plane.idempotency import StoredResponse
from tollway.gateway.data_plane.problems import HttpProblem, broken_off
from tollway.gateway.data_plane.rate_limits import RateLimit
from tollway.gateway.routing.replies.drains import Drains
from tollway.gateway.routing.replies.stream_relay import CLOSE, DRAIN, StreamRelay
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.routing.route import Route


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
    ) -> None:
        """`rates` maps rate-limited tenants to their limits.

        `drains` keeps reading streams whose clients disconnect, if the backend is configured so.
        """
        self._rates = rates
        self._clock = clock
        self._via = via
        self._hide_amounts = hide_amounts
        self._drains = drains

    async def write(self, state: RequestState, receive: Receive, send: Send) -> None:
        """Write a request's reply."""
        if state.held is not None and state.held.relay is not None:
            await self._relay(state, state.held.relay, receive, send)
        else:
            await self._write(state, send)

    async def _write(self, state: RequestState, send: Send) -> None:
        whole = self.whole(state)
        await send(
            {"type": "http.response.start", "status": whole.status, "headers": whole.headers}
        )
        await send({"type": "http.response.body", "body": whole.body})

    def whole(self, state: RequestState) -> StoredResponse:
        """Return a complete reply as it is sent to the client."""
        held = state.held
        assert held is not None, "a request without a reply is refused"
        headers = returned(held.headers, self._via)
        headers += self._gateway_headers(state)
        # 204 and 304 have no body and no length.
        if held.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(held.body)))
        return StoredResponse(held.status, headers, held.body)

    async def _relay(
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
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        serving = asyncio.current_task()
        assert serving is not None

        def leave(done: asyncio.Task[None]) -> None:
            serving.cancel()

        leaving = asyncio.create_task(_disconnected(receive))
        leaving.add_done_callback(leave)
        error, abandoned = "the stream was not read to its end", ""
        try:
            async with asyncio.timeout_at(state.inference.deadline_s):
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                while chunk := await relay.read():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            error = ""
        except TimeoutError:
            error = "the request's time is up"
        except BackendError as exc:
            error = str(exc) or type(exc).__name__
        except asyncio.CancelledError:
            if not leaving.done():
                raise
            serving.uncancel()
            error, abandoned = "", CLOSE
            if await self._drains.drain(relay, state.inference.tenant):
                abandoned = DRAIN
        finally:
            leaving.remove_done_callback(leave)
            leaving.cancel()
            await relay.close(error, abandoned=abandoned)
        if not abandoned:
            if error:
                _, problem = route.protocol.error(502, broken_off(error).problem())
                event = b"data: %b\n\n" % problem
                await send({"type": "http.response.body", "body": event, "more_body": True})
                return  # without a last chunk
            await send({"type": "http.response.body", "body": b""})

    def _gateway_headers(self, state: RequestState) -> Headers:
        """Return Tollway's own response headers."""
        held = state.held
        assert held is not None
        upstream_s = state.upstream_s
        gateway_s = self._clock() - state.inference.received_s - upstream_s
        fields = [
            *([(b"x-tollway-decision", state.id.encode())] if state.id else ()),
            (b"x-tollway-backend", held.backend.encode()),
            (b"x-tollway-reason", state.reason.encode()),
            (
                b"server-timing",
                b"gateway;dur=%.3f, upstream;dur=%.3f" % (gateway_s * 1e3, upstream_s * 1e3),
            ),
        ]
        if held.output_limit:
            fields.append((b"x-tollway-output-limit", b"%d" % held.output_limit))
        if (rate := self._rates.get(state.inference.tenant)) is not None:
            fields += rate.fields()
        if not self._hide_amounts:
            if held.relay is not None:
                quote_nano = state.cost_nano + held.quote.expected_nano
                fields.append((b"x-tollway-quote-usd", header_usd(quote_nano)))
            else:
                fields.append((b"x-tollway-cost-usd", header_usd(state.cost_nano)))
        return fields

    async def refuse(
        self, refused: HttpProblem, route: Route | None, received_s: float, send: Send
    ) -> None:
        """Write a refusal in the format of the route's protocol."""
        problem = refused.problem()
        if self._hide_amounts:
            problem = {k: v for k, v in problem.items() if not k.endswith("_usd")}
        if route is None:
            content_type, body = b"application/problem+json", orjson.dumps(problem)
        else:
            content_type, body = route.protocol.error(refused.status, problem)
        headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-tollway-reason", refused.reason.encode()),
            (b"server-timing", b"total;dur=%.3f" % ((self._clock() - received_s) * 1e3)),
            *refused.headers,
        ]
        if not self._hide_amounts:
            headers.append((b"x-tollway-cost-usd", header_usd(refused.cost_nano)))
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _disconnected(receive: Receive) -> None:
    """Return when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
