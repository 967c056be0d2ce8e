"""The data plane's request handler, written in plain ASGI because it is a hot path.

It matches the route, admits the request (authentication, authorization, parsing), passes it to the
router, and writes the reply.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from tollway.gateway.data_plane.admission import Admission
from tollway.gateway.data_plane.asgi import Receive, Scope, Send
from tollway.gateway.data_plane.idempotency import IdempotencyStore, fingerprint, key_of
from tollway.gateway.data_plane.model_metadata import SERVER, ModelMetadata
from tollway.gateway.data_plane.problems import HttpProblem, no_route, of_refusal
from tollway.gateway.data_plane.responses import Responses
from tollway.gateway.data_plane.route_table import INFER, Match, RouteTable
from tollway.gateway.listener.client import Client, client_of
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.observability.request_trace import RequestTrace
from tollway.gateway.observability.watch import TraceRecorder
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.routing.router import Router


class DataPlane:
    """Serves the routes' paths."""

    def __init__(
        self,
        table: RouteTable,
        router: Router,
        *,
        admission: Admission,
        replies: Responses,
        descriptions: ModelMetadata,
        metrics: Metrics,
        clock: Callable[[], float],
        done: Callable[[RequestState], None],
        watch: TraceRecorder | None = None,
        idempotency: IdempotencyStore | None = None,
    ) -> None:
        """`done` is called with each request state once its reply is written.

        `watch` traces requests, if tracing is on. `idempotency` stores replies for retries.
        """
        self._table = table
        self._router = router
        self._admission = admission
        self._replies = replies
        self._descriptions = descriptions
        self._metrics = metrics
        self._clock = clock
        self._done = done
        self._watch = watch
        self._idempotency = idempotency

    def shape(self, path: bytes, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the content type and body of a problem at a raw path."""
        match = self._table.match(path)
        if match is None:
            # Add `error`: the intended protocol is unknown, and some clients read only that member.
            document = {**problem, "error": problem["detail"]}
            return b"application/problem+json", orjson.dumps(document)
        return match.route.protocol.error(status, problem)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        received_s = self._clock()
        if self._watch is None:
            await self._answer(scope, receive, send, received_s, None)
            return
        trace = self._watch.begin(scope, received_s)
        try:
            await self._answer(scope, receive, noting(send, trace), received_s, trace)
        finally:
            self._watch.end(trace, self._clock())

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        received_s: float,
        trace: RequestTrace | None,
    ) -> None:
        match: Match | None = None
        try:
            path: bytes = scope["raw_path"]
            if scope["method"] == "OPTIONS":  # not for a model, so the gateway answers it
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
            match = self._table.match(path)
            if match is None:
                if path in SERVER and self._table.speaks("oip"):
                    await self._descriptions.of_server(path, send)
                    return
                raise no_route(path.decode("latin-1"))
            if trace is not None:
                trace.route = match.route.name
            if match.what is not INFER:
                await self._descriptions.of_model(scope, match, send)
                return
            if match.shared is None:
                tenant = self._admission.tenant(scope, match.route)
            else:
                tenant = self._admission.known(scope, match.route)
            inference = await self._admission.read(scope, receive, match, tenant, received_s)
            if trace is not None:
                trace.route = inference.route.name
                inference.trace = trace
            if (
                self._idempotency is not None
                and (given := key_of(inference.call.headers)) is not None
            ):
                await self._answer_idempotent(self._idempotency, given, inference, receive, send)
                return
            client = client_of(scope) if "extensions" in scope else None
            state = await (
                self._router.answer(inference)
                if client is None  # this server does not report disconnects
                else self._route(inference, client)
            )
        except (HttpProblem, RequestRefused) as exc:
            refused = of_refusal(exc) if isinstance(exc, RequestRefused) else exc
            if trace is not None:
                trace.reason = refused.reason
            await self._replies.refuse(refused, match.route if match else None, received_s, send)
            return
        if state is not None:
            await self._respond(state, receive, send)

    async def _route(self, inference: InferenceRequest, client: Client) -> RequestState | None:
        """Return the request state to reply with; None if the client disconnected before a reply.

        Calls in progress are then cancelled, so that no model works on an answer that nobody reads.
        """
        inference.client = client
        client.awaits(asyncio.current_task())
        try:
            state = None if client.left else await self._router.answer(inference)
        finally:
            client.awaits(None)
        if state is not None and state.held is None:
            self._admission.charge(state)
            return None
        return state

    async def _respond(self, state: RequestState, receive: Receive, send: Send) -> None:
        """Write a request's reply."""
        try:
            await self._replies.write(state, receive, send)
        finally:
            self._admission.charge(state)
            self._done(state)

    async def _answer_idempotent(
        self,
        idempotency: IdempotencyStore,
        given: bytes,
        inference: InferenceRequest,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer a request with an Idempotency-Key: it is routed and charged once."""
        inference.accepts = b""  # the stored reply must suit any client that retries
        route, tenant = inference.route.name, inference.tenant
        key = tenant, route, given
        try:
            stored = idempotency.begin(key, fingerprint(inference.call), self._clock())
        except HttpProblem as refused:
            self._metrics.refused(route, tenant, refused.reason)
            raise
        if stored is not None:
            self._metrics.refused(route, tenant, "replayed")
            headers = [*stored.headers, (b"idempotency-replayed", b"true")]
            await send({"type": "http.response.start", "status": stored.status, "headers": headers})
            await send({"type": "http.response.body", "body": stored.body})
            return
        try:
            # Not cancelled on disconnect: a client that retries gets this reply.
            state = await self._router.answer(inference)
            held = state.held
            if held is not None and held.relay is None and not held.error:
                stored = self._replies.whole(state)
        finally:
            idempotency.end(key, stored, self._clock())
        await self._respond(state, receive, send)


def noting(send: Send, trace: RequestTrace) -> Send:
    """Return a `send` that records the reply's status in the trace."""

    def noted(message: dict[str, Any]) -> Any:
        if message["type"] == "http.response.start":
            trace.status = message["status"]
        return send(message)

    return noted
