"""The data plane's request handler, written in plain ASGI because it is a hot path.

It matches the route, admits the request (authentication, authorization, parsing), passes it to the
router, and writes the reply.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson

from tollway.backends.ports import INFER
from tollway.eager import as_task
from tollway.gateway.data_plane import open_paths
from tollway.gateway.data_plane.admission import Admission, Judgement
from tollway.gateway.data_plane.asgi import Receive, Scope, Send
from tollway.gateway.data_plane.callback_shell import CallbackShell, Progress
from tollway.gateway.data_plane.codings.replies import ReplyCompression
from tollway.gateway.data_plane.fused.ordinary import is_ordinary
from tollway.gateway.data_plane.fused.path import FusedPath
from tollway.gateway.data_plane.idempotency import HEADER as IDEMPOTENCY_KEY
from tollway.gateway.data_plane.idempotency import (
    IdempotencyStore,
    StoredResponse,
    fingerprint,
    key_of,
)
from tollway.gateway.data_plane.in_flight import InFlight
from tollway.gateway.data_plane.model_metadata import ModelMetadata
from tollway.gateway.data_plane.problems import (
    HttpProblem,
    MethodNotAllowed,
    administration,
    no_route,
    of_refusal,
)
from tollway.gateway.data_plane.reply_stamp import ReplyStamp
from tollway.gateway.data_plane.responses import Responses
from tollway.gateway.data_plane.route_table import Match, RouteTable
from tollway.gateway.data_plane.server_models import ServerModels
from tollway.gateway.listener.client import Client, WholeRequest, client_of
from tollway.gateway.listener.known_heads import KnownHead
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.observability.request_trace import RequestTrace, TraceRecorder
from tollway.gateway.routing.cached.caching_driver import CachingDriver
from tollway.gateway.routing.driver import Driver
from tollway.gateway.routing.objects.free_calls import FreeCalls
from tollway.gateway.routing.objects.references import Objects
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.signals.guards import Guards

Answer = Callable[[InferenceRequest], Awaitable[RequestState]]


class DataPlane:
    """Serves the routes' paths."""

    def __init__(
        self,
        table: RouteTable,
        driver: Driver,
        free: FreeCalls,
        objects: Objects,
        listed: ServerModels,
        *,
        admission: Admission,
        replies: Responses,
        descriptions: ModelMetadata,
        metrics: Metrics,
        clock: Callable[[], float],
        stamp: ReplyStamp,
        in_flight: InFlight,
        caching: CachingDriver,
        guards: Guards | None = None,
        watch: TraceRecorder | None = None,
        idempotency: IdempotencyStore | None = None,
        compression: ReplyCompression | None = None,
        callbacks: bool = True,
    ) -> None:
        """`stamp` adds what every reply carries. `watch` traces requests, if tracing is on.

        `caching` is the driver of routes with a cache, and `guards` check the requests of routes
        that have some. `in_flight` limits the requests of each
        tenant. `idempotency` stores replies for retries, and `compression` compresses large ones.
        `callbacks`: whether requests that need no coroutine are answered without one.
        """
        self._table = table
        self._driver = driver
        self._caching = caching
        self._guards = guards
        self._free = free
        self._objects = objects
        self._listed = listed
        self._admission = admission
        self._replies = replies
        self._descriptions = descriptions
        self._metrics = metrics
        self._clock = clock
        self._stamp = stamp
        self._in_flight = in_flight
        self._watch = watch
        self._idempotency = idempotency
        self._compression = compression
        self._shell: CallbackShell | None = None
        self._paths: dict[tuple[str, str], FusedPath] = {}  # of routes and tenants that called
        if callbacks and watch is None and compression is None:
            self._shell = CallbackShell(
                driver,
                self.go_on,
                admission=admission,
                replies=replies,
                stamp=stamp,
                in_flight=in_flight,
                hits=caching.hits,
                clock=clock,
            )

    def shape(self, path: bytes, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the content type and body of a problem at a raw path."""
        match = self._table.match(path)
        if match is None:
            # Add `error`: the intended protocol is unknown, and some clients read only that member.
            document = {**problem, "error": problem["detail"]}
            return b"application/problem+json", orjson.dumps(document)
        return match.route.protocol.error(status, problem)

    def caller(self, scope: Scope, known: KnownHead | None) -> str:
        """Return who has sent a request, by its head alone; `known`: it was accepted before."""
        if known is not None and known.judge is self:
            tenant: str = known.judgement.tenant
            return tenant
        return self._admission.caller(scope, self._table.match(scope["raw_path"], scope["method"]))

    def knows(self, scope: Scope) -> bool:
        """Return whether a request may be anybody's, by its head alone."""
        return self._admission.knows(scope)

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, trace: RequestTrace | None = None
    ) -> None:
        """Answer one request; `trace`: its trace, once it has one."""
        if self._watch is not None and trace is None:
            await self._traced(self._watch, scope, receive, send)
            return
        received_s = self._clock()
        client = client_of(scope)
        known = None if client is None else client.serving.known
        try:
            if known is not None and known.judge is self:
                judged: Judgement | None = known.judgement
            else:
                judged = await self._judge(scope, send, known, trace)
            if judged is None:
                return
            tenant = judged.tenant
            if client is not None and client.serving.waited:
                self._admission.spare(judged)
            self._in_flight.enter(tenant)
            inference: InferenceRequest | None = None
            try:
                inference = await self._admission.read(scope, receive, judged, received_s)
                if trace is not None:
                    trace.route = inference.route.name
                    inference.trace = trace
                await self._infer(inference, client, receive, send)
            finally:
                self._in_flight.leave(tenant)
                if inference is not None and inference.memory is not None and inference.memory.held:
                    inference.memory.close()
        except (HttpProblem, RequestRefused) as exc:
            refused = of_refusal(exc) if isinstance(exc, RequestRefused) else exc
            if trace is not None:
                trace.reason = refused.reason
            route = self._speaker(scope, exc)
            await self._replies.refuse(refused, route, received_s, self._stamp.onto(send))

    def _speaker(self, scope: Scope, refused: Exception) -> RoutePlan | None:
        """Return the route in whose protocol a refusal is told; None if there is none."""
        if isinstance(refused, MethodNotAllowed):
            return refused.route
        match = self._table.match(scope["raw_path"], scope["method"])
        return self._descriptions.speaker(scope, match) if match else None

    async def _infer(
        self, inference: InferenceRequest, client: Client | None, receive: Receive, send: Send
    ) -> None:
        """Answer an admitted request."""
        payload = inference.call.payload
        if payload.refers:
            await as_task()
            await self._objects.resolve(inference)
        route = inference.route
        if route.serves_every and not inference.held_by:
            model = route.protocol.model(inference.call, inference.call.payload)
            inference.held_by = self._listed.holders(route, model)
        if self._idempotency is not None and (given := key_of(inference.call.headers)) is not None:
            await self._answer_idempotent(self._idempotency, given, inference, receive, send)
            return
        answer = self._answering(inference)
        if payload.endpoint.is_free:
            await as_task()
        state = await (
            answer(inference)
            if client is None  # this server does not report disconnects
            else self._route(inference, client, answer)
        )
        if state is not None:
            await self._respond(state, receive, send)

    def _answering(self, inference: InferenceRequest) -> Answer:
        """Return what answers a request: the driver of its route, or of free calls."""
        route, answer = inference.route, self._driver.answer
        is_guarded = route.is_guarded
        if inference.call.payload.endpoint.is_free:
            answer = self._free.answer
            # What a free call sends gets to a provider as what is charged does.
            is_guarded = bool(inference.call.body) and any(
                one.is_guarded for one in inference.among or (route,)
            )
        elif route.cache is not None:
            answer = self._caching.answer
        if is_guarded and self._guards is not None:
            return partial(self._guards.answer, answer)
        return answer

    async def _judge(
        self, scope: Scope, send: Send, known: KnownHead | None, trace: RequestTrace | None
    ) -> Judgement | None:
        """Return what a request's head means; None if that was answered already."""
        if scope["method"] == "OPTIONS":  # not for a model, so the gateway answers it
            await self._send(StoredResponse(204, [], b""), send)
            return None
        match = self._table.match(scope["raw_path"], scope["method"])
        if trace is not None and match is not None:
            trace.route = match.route.name
        if match is None or match.what is not INFER:
            await self._describe(scope, match, self._stamp.onto(send))
            return None
        judged = self._admission.judge(scope, match)
        if known is not None and judged.lasts:
            known.judge, known.judgement = self, judged
        return judged

    def begin(self, client: Client, request: WholeRequest) -> bool:
        """Begin to answer a request without a coroutine; False if nothing was done."""
        if self._shell is None or self._in_flight.count >= self._in_flight.most:
            return False
        known = request.known
        if known is not None and known.judge is self:
            judged: Judgement = known.judgement
        else:
            scope = request.head
            match = self._table.match(scope["raw_path"], scope["method"])
            if scope["method"] != "POST" or match is None or match.what is not INFER:
                return False
            received_s = self._clock()
            try:
                judged = self._admission.judge(scope, match)
            except HttpProblem as exc:
                request.hand_over(partial(self._refuse, exc, received_s))
                return True
            if known is not None and judged.lasts:
                known.judge, known.judgement = self, judged
        fused = judged.fused
        if judged.direct is None:
            judged.direct = self._is_direct(request.head, judged)
            if judged.direct:
                fused = judged.fused = self._fused(judged)
        elif fused is not None and fused.is_outdated:
            fused = judged.fused = self._fused(judged)
        if fused is not None and fused.begin(client, request, judged):
            return True
        return judged.direct and self._shell.begin(client, request, judged)

    def _is_direct(self, scope: Scope, judged: Judgement) -> bool:
        """Whether requests with a head may be begun without a coroutine."""
        try:
            fields, options = self._admission.fields(scope, judged)
        except HttpProblem:
            return False
        if (
            judged.method != b"POST"
            or options.is_coded
            or self._admission.is_limited(judged.tenant)
        ):
            return False
        return self._idempotency is None or all(name != IDEMPOTENCY_KEY for name, _ in fields)

    def _fused(self, judged: Judgement) -> FusedPath | None:
        """Return the fused path of requests with a head, if they may take it."""
        match, tenant = judged.match, judged.tenant
        assert judged.fields is not None and self._shell is not None
        options = judged.fields[1]
        if not judged.lasts or match.shared is not None or not options.is_ordinary:
            return None
        judged.tags = self._admission.tags(options)
        key = match.route.name, tenant
        path = self._paths.get(key)
        if path is None or path.is_outdated:
            if not is_ordinary(match.route):
                return None
            path = self._paths[key] = FusedPath(self._shell, match.route, tenant)
        return path

    async def go_on(self, progress: Progress, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that the callback shell has begun."""
        inference, state, client = progress.inference, progress.state, progress.client
        try:
            try:
                if inference is None or state is None:
                    if progress.error is not None:
                        raise progress.error
                    assert inference is not None
                    await self._infer(inference, client, receive, send)
                    return
                if not progress.is_recorded:  # also if the client has left: its call is charged
                    going_on = self._driver.go_on(
                        state, progress.step, progress.begun, progress.sending, progress.error
                    )
                    state = await self._until_left(client, going_on)
                elif progress.error is not None:
                    raise progress.error
                if state is not None:
                    await self._respond(state, receive, send)
            finally:
                self._in_flight.dismiss(progress.tenant)
                if inference is not None and inference.memory is not None and inference.memory.held:
                    inference.memory.close()
        except (HttpProblem, RequestRefused) as exc:
            received_s = self._clock() if inference is None else inference.received_s
            await self._refuse(exc, received_s, scope, receive, send)

    async def _refuse(
        self,
        exc: HttpProblem | RequestRefused,
        received_s: float,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Refuse a request."""
        refused = of_refusal(exc) if isinstance(exc, RequestRefused) else exc
        route = self._speaker(scope, exc)
        await self._replies.refuse(refused, route, received_s, self._stamp.onto(send))

    async def _traced(
        self, watch: TraceRecorder, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one request and trace it."""
        trace = watch.begin(scope, self._clock())
        try:
            await self(scope, receive, noting(send, trace), trace)
        finally:
            watch.end(trace, self._clock())

    async def _describe(self, scope: Scope, match: Match | None, send: Send) -> None:
        """Answer a request about a model or about the server.

        HttpProblem if it is neither: 405 on a path that a route of the caller has for other
        methods, else 404.
        """
        await as_task()
        if match is not None:
            await self._descriptions.answer(scope, match, send)
            return
        path: bytes = scope["raw_path"]
        if open_paths.administers(scope["method"], path):
            raise administration(path.decode("latin-1"))
        found = [one for one in self._table.methods(path) if self._admission.permits(scope, one[0])]
        if found:
            raise MethodNotAllowed(scope["method"], found[0][1], found[0][0])
        raise no_route(path.decode("latin-1"))

    async def _route(
        self, inference: InferenceRequest, client: Client, answer: Answer
    ) -> RequestState | None:
        """Return the request state to reply with; None if the client disconnected before a reply.

        Calls in progress are then cancelled, so that no model works on an answer that nobody reads.
        """
        inference.client = client
        return None if client.left else await self._until_left(client, answer(inference))

    async def _until_left(
        self, client: Client, answering: Awaitable[RequestState]
    ) -> RequestState | None:
        """Await a request state, and cancel that if the client disconnects; None without reply."""
        client.cancels = True
        try:
            state = await answering
        finally:
            client.cancels = False
        if state.held is None:
            self._admission.charge(state)
            return None
        return state

    async def _respond(self, state: RequestState, receive: Receive, send: Send) -> None:
        """Write a request's reply."""
        held = state.held
        assert held is not None
        try:
            if held.relay is not None:
                await self._replies.relay(state, held.relay, receive, self._stamp.onto(send))
            else:
                inference, whole = state.inference, self._replies.whole(state)
                if self._compression is not None:
                    whole = await self._compression.compressed(whole, inference.accepts)
                client = inference.client if inference.trace is None else None
                await self._send(whole, send, client)
        finally:
            self._admission.charge(state)

    async def _send(self, whole: StoredResponse, send: Send, client: Client | None = None) -> None:
        """Send a complete reply; at once if the server gives a `client` for that."""
        headers = self._stamp.stamped(whole.headers)
        if client is not None and client.reply(whole.status, headers, whole.body):
            return
        await send({"type": "http.response.start", "status": whole.status, "headers": headers})
        await send({"type": "http.response.body", "body": whole.body})

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
            await self._send(StoredResponse(stored.status, headers, stored.body), send)
            return
        try:
            # Not cancelled on disconnect: a client that retries gets this reply.
            state = await self._answering(inference)(inference)
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
