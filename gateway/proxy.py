"""The data plane: bytes to an Inference, its reply back to bytes. Plain ASGI, for it is hot.

Finds the route, names the tenant, reads the body within its limit, has the route's protocol read
it, and hands over to the router; then writes the backend's reply as it came, with what Tollway has
to say of it in header fields.
"""

import asyncio
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote

import orjson

from backends.documents import load_reply
from backends.types import BackendError, BadRequest, Call, Headers, Payload
from gateway import models
from gateway.auth import Authenticator
from gateway.errors import Refused, broken_off, no_backend, no_route, unprocessable
from gateway.headers import forwarded, returned
from gateway.ledger.types import NANO
from gateway.metrics import Metrics
from gateway.passage import Passage
from gateway.rates import Rate
from gateway.relay import Relay
from gateway.replays import Kept, Replays, fingerprint, key_of
from gateway.route import Inference, Route
from gateway.router import Router
from gateway.table import INFER, MODELS, READY, Match, RouteTable
from gateway.turn import Turn
from gateway.watch import Watch

Scope = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]

_SERVER: dict[bytes, dict[str, Any]] = {
    b"/v2": {
        "name": "tollway",
        "version": version("tollway"),
        "extensions": ["binary_tensor_data"],
    },
    b"/v2/health/live": {"live": True},
    b"/v2/health/ready": {"ready": True},
}


class Proxy:
    """Answers the routes' own paths."""

    def __init__(
        self,
        table: RouteTable,
        router: Router,
        authenticator: Authenticator,
        metrics: Metrics,
        *,
        may_call: Mapping[str, frozenset[str]],
        rates: Mapping[str, Rate],
        ready: Callable[[], str],
        clock: Callable[[], float],
        body_bytes_max: int,
        via: bytes,
        done: Callable[[Turn], None],
        hide_amounts: bool = False,
        watch: Watch | None = None,
        replays: Replays | None = None,
    ) -> None:
        """`may_call` names the routes of those tenants that may not call all, `rates` are those of
        tenants that may not call as fast as they like; `ready` says why the
        gateway is not, "" where it is; `done` is told of each turn once its reply is written;
        `watch` of each request, where somebody wants that; `replays` keeps answers for those
        who ask again.
        """
        self._done = done
        self._table = table
        self._may_call = may_call
        self._rates = rates
        self._ready = ready
        self._router = router
        self._authenticator = authenticator
        self._metrics = metrics
        self._clock = clock
        self._body_bytes_max = body_bytes_max
        self._via = via
        self._hide_amounts = hide_amounts
        self._watch = watch
        self._replays = replays

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        received_s = self._clock()
        if self._watch is None:
            await self._answer(scope, receive, send, received_s, None)
            return
        passage = self._watch.begin(scope, received_s)
        try:
            await self._answer(scope, receive, noting(send, passage), received_s, passage)
        finally:
            self._watch.end(passage, self._clock())

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        received_s: float,
        passage: Passage | None,
    ) -> None:
        match: Match | None = None
        try:
            path: bytes = scope["raw_path"]
            if scope["method"] == "OPTIONS":  # asks nothing of a model, so it is ours to answer
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
            match = self._table.match(path)
            if match is None:
                if path in _SERVER and self._table.speaks("oip"):
                    await self._describe_server(path, send)
                    return
                raise no_route(path.decode("latin-1"))
            if passage is not None:
                passage.route = match.route.name
            if match.what is not INFER:
                await self._describe(scope, match, send)
                return
            if match.shared is None:
                tenant = self._tenant(scope, match.route)
            else:
                tenant = self._known(scope, match.route)
            inference = await self._read(scope, receive, match, tenant, received_s)
            if passage is not None:
                passage.route = inference.route.name
                inference.passage = passage
            if self._replays is not None and (given := key_of(inference.call.headers)) is not None:
                await self._once(self._replays, given, inference, receive, send)
                return
            # Not cancelled when the client leaves: what was begun is paid for, so it is settled.
            turn = await self._router.answer(inference)
        except Refused as refused:
            if passage is not None:
                passage.reason = refused.reason
            await self._refuse(refused, match.route if match else None, received_s, send)
            return
        await self._hand_over(turn, receive, send)

    async def _hand_over(self, turn: Turn, receive: Receive, send: Send) -> None:
        """Write a turn's reply."""
        try:
            if turn.held is not None and turn.held.relay is not None:
                await self._relay(turn, turn.held.relay, receive, send)
            else:
                await self._reply(turn, send)
        finally:
            self._ended(turn)

    async def _once(
        self, replays: Replays, given: bytes, inference: Inference, receive: Receive, send: Send
    ) -> None:
        """Answer a request that names its Idempotency-Key: asked and charged once."""
        route, tenant = inference.route.name, inference.tenant
        key = tenant, route, given
        try:
            kept = replays.begin(key, fingerprint(inference.call), self._clock())
        except Refused as refused:
            self._metrics.refused(route, tenant, refused.reason)
            raise
        if kept is not None:
            self._metrics.refused(route, tenant, "replayed")
            headers = [*kept.headers, (b"idempotency-replayed", b"true")]
            await send({"type": "http.response.start", "status": kept.status, "headers": headers})
            await send({"type": "http.response.body", "body": kept.body})
            return
        try:
            turn = await self._router.answer(inference)
            held = turn.held
            if held is not None and held.relay is None and not held.error:
                kept = self._whole(turn)
        finally:
            replays.end(key, kept, self._clock())
        await self._hand_over(turn, receive, send)

    def _tenant(self, scope: Scope, route: Route) -> str:
        """Return who may call the route with this key; Refused where nobody may."""
        tenant = self._known(scope, route)
        if not self._may(tenant, route):
            self._metrics.refused(route.name, tenant, "forbidden")
            raise Refused(403, "Forbidden", f"this key may not call route {route.name!r}")
        return tenant

    def _may(self, tenant: str, route: Route) -> bool:
        allowed = self._may_call.get(tenant)
        return allowed is None or route.name in allowed

    def _known(self, scope: Scope, route: Route) -> str:
        """Return whose key it is; Refused where it is nobody's."""
        tenant = self._authenticator.tenant(scope["headers"])
        if tenant is None:
            self._metrics.refused(route.name, "", "unauthorized")
            refused = Refused(
                401, "Unauthorized", "send a key of this gateway as Authorization: Bearer KEY"
            )
            refused.headers.append((b"www-authenticate", b'Bearer realm="tollway"'))
            raise refused
        return tenant

    def _admit(self, route: Route, tenant: str) -> None:
        """Take a request in; Refused where its tenant calls too fast (0.1 us where none may)."""
        rate = self._rates.get(tenant)
        if rate is None:
            return
        try:
            rate.admit(self._clock())
        except Refused as refused:
            self._metrics.refused(route.name, tenant, refused.reason)
            raise

    def _ended(self, turn: Turn) -> None:
        rate = self._rates.get(turn.inference.tenant)
        if rate is not None:
            rate.charge(turn)
        self._done(turn)

    async def _read(
        self, scope: Scope, receive: Receive, match: Match, tenant: str, received_s: float
    ) -> Inference:
        """Read the request into an Inference; Refused where it is none."""
        self._admit(match.route, tenant)
        route = match.route
        headers, demands = forwarded(scope["headers"], self._via, scope["http_version"])
        target: bytes = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        call = Call(scope["method"].encode(), target, headers, await self._body(receive))
        try:
            call.payload = route.protocol.parse(call)
        except BadRequest as exc:
            self._metrics.refused(route.name, tenant, "bad_request")
            raise Refused(400, "Bad request", str(exc)) from exc
        if match.shared is not None:
            route = self._of_model(match, call.payload, tenant)
        if route.accepts is not None:
            breach = route.accepts.breach(call.payload.data)
            if breach is not None:
                self._metrics.refused(route.name, tenant, "unprocessable")
                raise unprocessable(breach.field, breach.why)
        timeout_s = route.timeout_s
        if demands.deadline_s is not None:
            timeout_s = min(timeout_s, demands.deadline_s)
        return Inference(
            route=route,
            tenant=tenant,
            call=call,
            received_s=received_s,
            deadline_s=received_s + timeout_s,
            tags=demands.tags,
            floor=demands.floor,
            cost_nano_max=demands.cost_nano_max,
            hurried=demands.deadline_s is not None,
        )

    def _of_model(self, match: Match, payload: Payload, tenant: str) -> Route:
        """Return which of the routes that share a path a request means, by its model's name."""
        document = payload.data
        name = document["model"] if isinstance(document, dict) else ""
        route = match.of_model(name)
        # One that may not be called is as unknown as one that is not: what there is, is not told.
        if route is None or not self._may(tenant, route):
            self._metrics.refused(match.route.name, tenant, "no_model")
            raise models.unknown(name)
        return route

    async def _body(self, receive: Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if message["type"] == "http.disconnect":
                raise Refused(400, "Bad request", "the client left before its request was whole")
            if len(body) > self._body_bytes_max:
                raise self._too_large()
            return body
        chunks, size = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "Bad request", "the client left before its request was whole")
            size += len(message.get("body", b""))
            if size > self._body_bytes_max:
                raise self._too_large()
            chunks.append(message.get("body", b""))
        return b"".join(chunks)

    def _too_large(self) -> Refused:
        return Refused(
            413, "Content too large", f"a request has at most {self._body_bytes_max} bytes here"
        )

    async def _reply(self, turn: Turn, send: Send) -> None:
        whole = self._whole(turn)
        await send(
            {"type": "http.response.start", "status": whole.status, "headers": whole.headers}
        )
        await send({"type": "http.response.body", "body": whole.body})

    def _whole(self, turn: Turn) -> Kept:
        """Return a reply as it goes to the client."""
        held = turn.held
        assert held is not None, "a turn without a reply is refused"
        headers = returned(held.headers, self._via)
        headers += self._told(turn)
        # 204 and 304 have no body and no length.
        if held.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(held.body)))
        return Kept(held.status, headers, held.body)

    async def _relay(self, turn: Turn, relay: Relay, receive: Receive, send: Send) -> None:
        """Hand a stream on as it comes; end it when the client leaves or its time is up.

        One that breaks off ends without its last chunk, so that nobody takes it for whole; before
        that an event tells why.
        """
        held, route = turn.held, turn.inference.route
        assert held is not None
        headers = [*returned(held.headers, self._via), *self._told(turn)]
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        serving = asyncio.current_task()
        assert serving is not None

        def leave(done: asyncio.Task[None]) -> None:
            serving.cancel()

        leaving = asyncio.create_task(_left(receive))
        leaving.add_done_callback(leave)
        error, left = "the stream was not read to its end", False
        try:
            async with asyncio.timeout_at(turn.inference.deadline_s):
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                while chunk := await relay.read():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            error = "" if relay.complete else "the stream was cut"
        except TimeoutError:
            error = "the request's time is up"
        except BackendError as exc:
            error = str(exc) or type(exc).__name__
        except asyncio.CancelledError:
            if not leaving.done():
                raise
            serving.uncancel()
            error, left = "", True
        finally:
            leaving.remove_done_callback(leave)
            leaving.cancel()
            await relay.close(error, left=left)
        if not left:
            if error:
                _, problem = route.protocol.error(502, broken_off(error).problem())
                event = b"data: %b\n\n" % problem
                await send({"type": "http.response.body", "body": event, "more_body": True})
                return  # without a last chunk
            await send({"type": "http.response.body", "body": b""})

    def _told(self, turn: Turn) -> Headers:
        """Return what Tollway says of a turn."""
        held = turn.held
        assert held is not None
        upstream_s = turn.upstream_s
        gateway_s = self._clock() - turn.inference.received_s - upstream_s
        told = [
            *([(b"x-tollway-decision", turn.id.encode())] if turn.id else ()),
            (b"x-tollway-backend", held.backend.encode()),
            (b"x-tollway-reason", turn.reason.encode()),
            (
                b"server-timing",
                b"gateway;dur=%.3f, upstream;dur=%.3f" % (gateway_s * 1e3, upstream_s * 1e3),
            ),
        ]
        if (rate := self._rates.get(turn.inference.tenant)) is not None:
            told += rate.fields()
        if not self._hide_amounts:
            if held.relay is not None:
                quote_nano = turn.cost_nano + held.quote.expected_nano
                told.append((b"x-tollway-quote-usd", dollars(quote_nano)))
            else:
                told.append((b"x-tollway-cost-usd", dollars(turn.cost_nano)))
        return told

    async def _refuse(
        self, refused: Refused, route: Route | None, received_s: float, send: Send
    ) -> None:
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
            headers.append((b"x-tollway-cost-usd", dollars(refused.cost_nano)))
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _describe_server(self, path: bytes, send: Send) -> None:
        """Answer what the Open Inference Protocol asks about the server as a whole."""
        why = self._ready() if path == b"/v2/health/ready" else ""
        await _send_json(send, 503 if why else 200, orjson.dumps(_SERVER[path]))

    async def _describe(self, scope: Scope, match: Match, send: Send) -> None:
        """Answer what a protocol asks about models: which there are, is one ready, what is it."""
        route = match.route
        if match.what is MODELS:
            await _send_json(send, 200, self._models(scope, match))
            return
        self._tenant(scope, route)
        if match.what is READY:
            up = any(b.breaker.allows(self._clock()) for b in route.backends.values())
            status, body = (200, {}) if up else (503, {"error": "no backend is up"})
            await _send_json(send, status, orjson.dumps(body))
            return
        await _send_json(send, *await self._metadata(scope, match))

    def _models(self, scope: Scope, match: Match) -> bytes:
        """Return the models that a key may call, or the one that is asked for."""
        tenant = self._known(scope, match.route)
        if scope["method"] not in ("GET", "HEAD"):
            refused = Refused(405, "Method not allowed", "models can be read here, with GET")
            refused.headers.append((b"allow", b"GET, HEAD"))
            raise refused
        allowed = self._may_call.get(tenant)
        routes = [
            r for r in self._table.listed(match.model) if allowed is None or r.name in allowed
        ]
        name = unquote(scope["raw_path"].decode("latin-1")[len(match.model) + 1 :])
        return models.one(routes, name) if name else models.every(routes)

    async def _metadata(self, scope: Scope, match: Match) -> tuple[int, bytes]:
        """Ask the backends, dearest first, what the model is; it has the name it was asked by."""
        for backend in reversed(match.route.backends.values()):
            call = Call(b"GET", scope["raw_path"], [], payload=Payload())
            try:
                deadline_s = self._clock() + backend.timeout_s
                reply = await backend.transport.send(backend.address(call), deadline_s)
                body = await reply.read(1 << 20)
                document = load_reply(body)
            except (BackendError, ValueError):
                continue
            if reply.status == 200 and isinstance(document, dict):
                return 200, orjson.dumps({**document, "name": match.model})
        raise no_backend(match.route.name, "none of them describes the model")


def noting(send: Send, passage: Passage) -> Send:
    """Return a `send` that notes the reply's status."""

    def noted(message: dict[str, Any]) -> Any:
        if message["type"] == "http.response.start":
            passage.status = message["status"]
        return send(message)

    return noted


async def _left(receive: Receive) -> None:
    """Return when the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass


def dollars(nano: int) -> bytes:
    """Return an amount as it is written in a field: exactly, with nine decimals."""
    return b"%d.%09d" % divmod(nano, NANO)


async def _send_json(send: Send, status: int, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    headers = [(b"content-type", b"application/json"), length]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
