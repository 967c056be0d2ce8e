"""Model metadata: answers protocol requests about the server and its models."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote

import orjson

from tollway.backends.documents import load_reply
from tollway.backends.types import BackendError, Call, Payload
from tollway.gateway.data_plane import model_list
from tollway.gateway.data_plane.admission import Admission
from tollway.gateway.data_plane.asgi import Scope, Send
from tollway.gateway.data_plane.problems import HttpProblem, of_refusal
from tollway.gateway.data_plane.route_table import MODELS, READY, Match, RouteTable
from tollway.gateway.routing.refusals import no_backend

SERVER: dict[bytes, dict[str, Any]] = {
    b"/v2": {
        "name": "tollway",
        "version": version("tollway"),
        "extensions": ["binary_tensor_data"],
    },
    b"/v2/health/live": {"live": True},
    b"/v2/health/ready": {"ready": True},
}


class ModelMetadata:
    """Serves metadata, readiness and model lists."""

    def __init__(
        self,
        table: RouteTable,
        admission: Admission,
        *,
        ready: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        """`ready` returns why the gateway is not ready, or "" if it is."""
        self._table = table
        self._admission = admission
        self._ready = ready
        self._clock = clock

    async def of_server(self, path: bytes, send: Send) -> None:
        """Answer Open Inference Protocol requests about the server as a whole."""
        why = self._ready() if path == b"/v2/health/ready" else ""
        await _send_json(send, 503 if why else 200, orjson.dumps(SERVER[path]))

    async def of_model(self, scope: Scope, match: Match, send: Send) -> None:
        """Answer requests about models: the list, readiness, and metadata."""
        route = match.route
        if match.what is MODELS:
            await _send_json(send, 200, self._models(scope, match))
            return
        self._admission.tenant(scope, route)
        if match.what is READY:
            up = any(b.allows(self._clock()) for b in route.backends.values())
            status, body = (200, {}) if up else (503, {"error": "no backend is up"})
            await _send_json(send, status, orjson.dumps(body))
            return
        await _send_json(send, *await self._metadata(scope, match))

    def _models(self, scope: Scope, match: Match) -> bytes:
        """Return the models that a key may call, or the one that is requested."""
        tenant = self._admission.known(scope, match.route)
        if scope["method"] not in ("GET", "HEAD"):
            refused = HttpProblem(405, "Method not allowed", "models can be read here, with GET")
            refused.headers.append((b"allow", b"GET, HEAD"))
            raise refused
        routes = [r for r in self._table.listed(match.model) if self._admission.may(tenant, r)]
        name = unquote(scope["raw_path"].decode("latin-1")[len(match.model) + 1 :])
        return model_list.one(routes, name) if name else model_list.every(routes)

    async def _metadata(self, scope: Scope, match: Match) -> tuple[int, bytes]:
        """Request the metadata from the backends, most expensive first; keep the requested name."""
        for backend in reversed(match.route.backends.values()):
            credential = backend.credential
            if credential is not None and credential.is_refused:
                continue
            call = Call(b"GET", scope["raw_path"], [], payload=Payload())
            try:
                deadline_s = self._clock() + backend.timeout_s
                reply = await backend.transport.send(backend.address(call), deadline_s)
                body = await reply.read(1 << 20)
                document = load_reply(body if credential is None else credential.hide_in(body))
            except (BackendError, ValueError):
                continue
            if reply.status == 200 and isinstance(document, dict):
                return 200, orjson.dumps({**document, "name": match.model})
        raise of_refusal(no_backend(match.route.name, "none of them describes the model"))


async def _send_json(send: Send, status: int, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    headers = [(b"content-type", b"application/json"), length]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
