"""Model metadata: answers protocol requests about the server and its models."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import orjson

from tollway.backends.documents import load_reply
from tollway.backends.errors import BackendError
from tollway.backends.ports import READY, SERVER, STATISTICS
from tollway.backends.types import Call, Payload
from tollway.gateway.data_plane.admission import Admission
from tollway.gateway.data_plane.asgi import Scope, Send
from tollway.gateway.data_plane.models import listing, shapes
from tollway.gateway.data_plane.models.shapes import ModelShape
from tollway.gateway.data_plane.problems import HttpProblem, MethodNotAllowed, of_refusal
from tollway.gateway.data_plane.route_table import MODELS, Match, RouteTable
from tollway.gateway.data_plane.server_models import ServerModels
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.refusals import no_backend

DESCRIPTION_S = 10.0
DESCRIPTION_BYTES_MAX = 1 << 20  # of a model with thousands of inputs
_PROBES = (b"/v2", b"/health/live", b"/health/ready")


class ModelMetadata:
    """Serves metadata, readiness and model lists."""

    def __init__(
        self,
        table: RouteTable,
        admission: Admission,
        listed: ServerModels,
        *,
        ready: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        """`ready` returns why the gateway is not ready, or "" if it is."""
        self._table = table
        self._admission = admission
        self._listed = listed
        self._ready = ready
        self._clock = clock

    async def answer(self, scope: Scope, match: Match, send: Send) -> None:
        """Answer a request about the server or about models."""
        route = match.route
        if match.what is MODELS:
            await _send_json(send, 200, await self._models(scope, match))
            return
        path: bytes = scope["raw_path"]
        if match.what == SERVER and path.endswith(_PROBES):  # probes have no key
            status, document = route.protocol.server(path, {}, self._ready())
            await _send_json(send, status, orjson.dumps(document))
            return
        tenant = self._admission.tenant(scope, route)
        if match.what == SERVER:
            status, document = route.protocol.server(path, self._up(route, tenant), self._ready())
        elif match.what == STATISTICS:
            status, document = 200, await self._statistics(route, tenant)
        elif match.what == READY:
            up = self._is_up(route)
            status, document = route.protocol.readiness(path, up)
        else:
            status, document = 200, await self._metadata(route, path)
        await _send_json(send, status, orjson.dumps(document))

    def _is_up(self, route: RoutePlan) -> bool:
        return any(backend.allows(self._clock()) for backend in route.backends.values())

    def _named(self, route: RoutePlan, tenant: str) -> list[tuple[str, str, RoutePlan]]:
        """Return (name, path, route) of each model of a protocol that a tenant may call."""
        return [
            (name, path, one)
            for path, one in self._table.named(route.protocol.name)
            if (name := one.protocol.named(path)) and self._admission.may(tenant, one)
        ]

    def _up(self, route: RoutePlan, tenant: str) -> dict[str, bool]:
        """Return the models of a protocol that a tenant may call, and whether they are up."""
        return {name: self._is_up(one) for name, _, one in self._named(route, tenant)}

    async def _statistics(self, route: RoutePlan, tenant: str) -> dict[str, Any]:
        """Return the statistics of all models whose backends tell them."""
        stats: list[Any] = []
        for name, _, one in self._named(route, tenant):
            try:
                told = await self._metadata(
                    one, f"/v2/models/{quote(name, safe='')}/stats".encode()
                )
            except HttpProblem:
                continue
            listed = told.get("model_stats")
            stats += listed if isinstance(listed, list) else []
        return {"model_stats": stats}

    async def _models(self, scope: Scope, match: Match) -> bytes:
        """Return the models that a key may call, or the one that is requested."""
        path: bytes = match.path or scope["raw_path"]
        shape, routes = self._asked(scope, path)
        tenant = self._admission.known(scope, routes[0])
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed(scope["method"], ["GET", "HEAD"], routes[0])
        routes = [route for route in routes if self._admission.may(tenant, route)]
        listed = await self._listed.of(routes)
        levels = match.at.count("/") + 1
        name = "".join(path.decode("latin-1").split("/", levels)[levels:])
        if name:
            return listing.one(routes, listed, shape, unquote(name))
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        return listing.every(routes, listed, shape, query)

    def _asked(self, scope: Scope, path: bytes) -> tuple[ModelShape, list[RoutePlan]]:
        """Return the shape in which models are asked for, and the routes that have it.

        If no route has it, all of the path are listed: their names are the same in any shape.
        """
        routes = self._table.listed(path)
        shape = shapes.asked(scope["headers"], [route.protocol.name for route in routes])
        return shape, [one for one in routes if one.protocol.name == shape.protocol] or routes

    def speaker(self, scope: Scope, match: Match) -> RoutePlan:
        """Return the route in whose protocol a refusal is told."""
        if match.what is not MODELS:
            return match.route
        return self._asked(scope, match.path or scope["raw_path"])[1][0]

    async def _metadata(self, route: RoutePlan, path: bytes) -> dict[str, Any]:
        """Ask the backends for a description, most expensive first; keep the requested name."""
        for backend in reversed(route.backends.values()):
            if backend.is_refused:
                continue
            credential = backend.credential
            call = Call(b"GET", path, [], payload=Payload())
            try:
                deadline_s = self._clock() + min(backend.timeout_s, DESCRIPTION_S)
                reply = await backend.transport.send(backend.address(call), deadline_s)
                body = await reply.read(DESCRIPTION_BYTES_MAX)
                document = load_reply(body if credential is None else credential.hide_in(body))
            except (BackendError, ValueError):
                continue
            if reply.status == 200 and isinstance(document, dict):
                return route.protocol.described(document, path)
        raise of_refusal(no_backend(route.name, "none of them describes the model"))


async def _send_json(send: Send, status: int, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    headers = [(b"content-type", b"application/json"), length]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
