"""The data plane: bytes to an Inference, its reply back to bytes. Plain ASGI, for it is hot.

Finds the route, has the request admitted (who asks, whether they may, what), hands it over to the
router, and has its reply written.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from gateway.admission import Admission
from gateway.asgi import Receive, Scope, Send
from gateway.client import Client, client_of
from gateway.descriptions import SERVER, Descriptions
from gateway.errors import Refused, no_route
from gateway.metrics import Metrics
from gateway.passage import Passage
from gateway.replays import Replays, fingerprint, key_of
from gateway.replies import Replies
from gateway.route import Inference
from gateway.router import Router
from gateway.table import INFER, Match, RouteTable
from gateway.turn import Turn
from gateway.watch import Watch


class Proxy:
    """Answers the routes' own paths."""

    def __init__(
        self,
        table: RouteTable,
        router: Router,
        *,
        admission: Admission,
        replies: Replies,
        descriptions: Descriptions,
        metrics: Metrics,
        clock: Callable[[], float],
        done: Callable[[Turn], None],
        watch: Watch | None = None,
        replays: Replays | None = None,
    ) -> None:
        """`done` is told of each turn once its reply is written; `watch` of each request, where
        somebody wants that; `replays` keeps answers for those who ask again.
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
        self._replays = replays

    def shape(self, path: bytes, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the content type and body of a problem at a raw path."""
        match = self._table.match(path)
        if match is None:
            # `error` too: whose protocol was meant cannot be told, and some clients read only that.
            told = {**problem, "error": problem["detail"]}
            return b"application/problem+json", orjson.dumps(told)
        return match.route.protocol.error(status, problem)

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
                if path in SERVER and self._table.speaks("oip"):
                    await self._descriptions.of_server(path, send)
                    return
                raise no_route(path.decode("latin-1"))
            if passage is not None:
                passage.route = match.route.name
            if match.what is not INFER:
                await self._descriptions.of_model(scope, match, send)
                return
            if match.shared is None:
                tenant = self._admission.tenant(scope, match.route)
            else:
                tenant = self._admission.known(scope, match.route)
            inference = await self._admission.read(scope, receive, match, tenant, received_s)
            if passage is not None:
                passage.route = inference.route.name
                inference.passage = passage
            if self._replays is not None and (given := key_of(inference.call.headers)) is not None:
                await self._once(self._replays, given, inference, receive, send)
                return
            client = client_of(scope) if "extensions" in scope else None
            turn = await (
                self._router.answer(inference)
                if client is None  # this server does not say when clients leave
                else self._route(inference, client)
            )
        except Refused as refused:
            if passage is not None:
                passage.reason = refused.reason
            await self._replies.refuse(refused, match.route if match else None, received_s, send)
            return
        if turn is not None:
            await self._hand_over(turn, receive, send)

    async def _route(self, inference: Inference, client: Client) -> Turn | None:
        """Return the turn whose reply is to be written; None: its client has left before one came.

        What was under way then is given up, so that a model stops whose answer nobody reads.
        """
        inference.client = client
        client.awaits(asyncio.current_task())
        try:
            turn = None if client.left else await self._router.answer(inference)
        finally:
            client.awaits(None)
        if turn is not None and turn.held is None:
            self._admission.charge(turn)
            return None
        return turn

    async def _hand_over(self, turn: Turn, receive: Receive, send: Send) -> None:
        """Write a turn's reply."""
        try:
            await self._replies.write(turn, receive, send)
        finally:
            self._admission.charge(turn)
            self._done(turn)

    async def _once(
        self, replays: Replays, given: bytes, inference: Inference, receive: Receive, send: Send
    ) -> None:
        """Answer a request that names its Idempotency-Key: asked and charged once."""
        inference.accepts = b""  # what is kept must suit whoever asks again
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
            # Not given up when the client leaves: it may ask again, and then gets this answer.
            turn = await self._router.answer(inference)
            held = turn.held
            if held is not None and held.relay is None and not held.error:
                kept = self._replies.whole(turn)
        finally:
            replays.end(key, kept, self._clock())
        await self._hand_over(turn, receive, send)


def noting(send: Send, passage: Passage) -> Send:
    """Return a `send` that notes the reply's status."""

    def noted(message: dict[str, Any]) -> Any:
        if message["type"] == "http.response.start":
            passage.status = message["status"]
        return send(message)

    return noted
