"""Admission: authenticates, authorizes and parses requests into `InferenceRequest` objects.

A request that is refused here has cost nothing and reached no backend.
"""

import asyncio
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from tollway.backends.bodies import multipart
from tollway.backends.documents import media_type
from tollway.backends.errors import BadRequest, UnknownCoding
from tollway.backends.sliced_json import LARGE_BYTES
from tollway.backends.types import SMALL_BYTES, Call, Headers
from tollway.gateway.data_plane import query_credentials
from tollway.gateway.data_plane.asgi import Receive, Scope
from tollway.gateway.data_plane.authentication import Authenticator
from tollway.gateway.data_plane.codings.requests import RequestCodings, unknown_coding
from tollway.gateway.data_plane.headers import RequestOptions, forwarded, passed_on, unwithheld
from tollway.gateway.data_plane.models import listing
from tollway.gateway.data_plane.problems import HttpProblem, unprocessable
from tollway.gateway.data_plane.rate_limits import RateLimit
from tollway.gateway.data_plane.route_table import Match
from tollway.gateway.listener.client import Client, WholeRequest
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.routing.bodies.buffers import BufferFull, Buffers, RequestMemory
from tollway.gateway.routing.bodies.large_documents import LargeDocuments
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.refusals import overloaded
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.security.loopback import trouble

ANONYMOUS_CALLERS = 8  # half of the callers whose failures open a circuit breaker
NO_KEY = "send a key of this gateway as Authorization: Bearer KEY, x-api-key or api-key"

_REQUEST = "http.request"


class Fused(Protocol):
    """Answers ordinary requests in one piece (see `fused.path`)."""

    @property
    def is_outdated(self) -> bool:
        """Whether it no longer holds."""

    def begin(self, client: Client, request: WholeRequest, judged: "Judgement") -> bool:
        """Begin to answer a request; False if nothing was done."""


@dataclass(slots=True)
class Judgement:
    """What a request's head means: its route, its tenant, and what goes on to a backend.

    `fields`: the fields for the backend and the options for the gateway, once they are read; they
    are not changed. `lasts`: it holds for all requests with this head. `direct`: whether the
    callback shell may begin them; None if that was not asked yet. `hits`: those of them that may
    be answered at once, by body. `fused`: the fused path of the tenant on the route, if they may
    take it; their `tags`, and the `heads` of their calls.
    """

    match: Match
    tenant: str
    method: bytes
    target: bytes
    lasts: bool
    fields: tuple[Headers, RequestOptions] | None = None
    direct: bool | None = None
    hits: dict[bytes, Any] | None = None
    fused: "Fused | None" = None
    tags: dict[str, str] = field(default_factory=dict)
    heads: dict[tuple[str, bytes, int], bytes] = field(default_factory=dict)


class Admission:
    """Admits requests to routes."""

    def __init__(
        self,
        authenticator: Authenticator,
        metrics: Metrics,
        *,
        may_call: Mapping[str, frozenset[str]],
        rates: Mapping[str, RateLimit],
        clock: Callable[[], float],
        body_bytes_max: int,
        via: bytes,
        buffers: Buffers,
        documents: LargeDocuments,
        codings: RequestCodings,
        local_only: frozenset[str] = frozenset(),
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`may_call` maps tenants with restricted access to the routes that they may call.

        `rates` maps rate-limited tenants to their limits. `buffers` limits the memory of bodies,
        `documents` reads large ones, and `codings` decodes compressed ones. `local_only` names the
        routes that callers without a key may use only from this machine. `tags` are those of every
        request, which clients cannot change.
        """
        self._authenticator = authenticator
        self._metrics = metrics
        self._may_call = may_call
        self._rates = rates
        self._clock = clock
        self._body_bytes_max = body_bytes_max
        self.small_bytes = min(SMALL_BYTES, body_bytes_max)
        self._via = via
        self._buffers = buffers
        self._documents = documents
        self._codings = codings
        self._local_only = local_only
        self._tags = dict(tags)

    def caller(self, scope: Scope, match: Match | None) -> str:
        """Return the tenant of a request's key, or one of a few callers without one."""
        named = None if match is None else match.route.protocol.query_credentials
        headers = credentials(scope, named) if named else scope["headers"]
        tenant = self._authenticator.tenant(headers)
        if tenant is None or tenant == ANONYMOUS:
            return anonymous_caller(address_of(scope))
        return tenant

    def knows(self, scope: Scope) -> bool:
        """Return whether a request may be anybody's, by its head alone: it names a tenant, or the
        gateway is open.
        """
        return self._authenticator.tenant(scope["headers"]) is not None

    def known(self, scope: Scope, route: RoutePlan) -> str:
        """Return the tenant of the request's key; raise HttpProblem 401 if it has none."""
        named = route.protocol.query_credentials
        tenant = self._authenticator.tenant(
            credentials(scope, named) if named else scope["headers"]
        )
        if tenant is None:
            self._metrics.refused(route.name, "", "unauthorized")
            refused = HttpProblem(
                401,
                "Unauthorized",
                NO_KEY,
            )
            refused.headers.append((b"www-authenticate", b'Bearer realm="tollway"'))
            raise refused
        return tenant

    def tenant(self, scope: Scope, route: RoutePlan) -> str:
        """Return the tenant of the key; HttpProblem 401 or 403 if it may not call the route."""
        named = route.protocol.query_credentials
        tenant = self._authenticator.tenant(
            credentials(scope, named) if named else scope["headers"]
        )
        if tenant is None:
            return self.known(scope, route)  # raises
        if tenant in self._may_call and not self.may(tenant, route):
            self._metrics.refused(route.name, tenant, "forbidden")
            raise HttpProblem(403, "Forbidden", f"this key may not call route {route.name!r}")
        if tenant == ANONYMOUS:
            self._keep_local(scope, route, tenant)
        return tenant

    def _keep_local(self, scope: Scope, route: RoutePlan, tenant: str) -> None:
        """Refuse remote callers without a key on routes that use the gateway's provider key."""
        if tenant != ANONYMOUS or route.name not in self._local_only:
            return
        why = trouble(scope)
        if why:
            self._metrics.refused(route.name, tenant, "forbidden")
            raise HttpProblem(
                403,
                "Forbidden",
                f"route {route.name!r} uses a provider key of the gateway, so calls without a key "
                f"are accepted only from this machine, and {why}; send a key of this gateway, or "
                "have its operator add a hard budget for tenant 'anonymous'",
            )

    def may(self, tenant: str, route: RoutePlan) -> bool:
        """Whether a tenant may call a route."""
        allowed = self._may_call.get(tenant)
        return allowed is None or route.name in allowed

    def permits(self, scope: Scope, route: RoutePlan) -> bool:
        """Whether the key of a request, or a caller without one, may call a route."""
        named = route.protocol.query_credentials
        tenant = self._authenticator.tenant(credentials(scope, named))
        if tenant == ANONYMOUS and route.name in self._local_only and trouble(scope):
            return False
        return tenant is not None and self.may(tenant, route)

    def _admit(self, route: RoutePlan, tenant: str) -> None:
        """Apply the tenant's rate limit; HttpProblem 429 above it."""
        try:
            self._rates[tenant].admit(self._clock())
        except HttpProblem as refused:
            self._metrics.refused(route.name, tenant, refused.reason)
            raise

    def charge(self, state: RequestState) -> None:
        """Charge a request's cost to its tenant's spending rate."""
        tenant = state.inference.tenant
        if tenant in self._rates:
            self._rates[tenant].charge(state)

    def judge(self, scope: Scope, match: Match) -> Judgement:
        """Judge the head of a request on a path that is served; HttpProblem 401 or 403."""
        judged = self.known if match.shared is not None else self.tenant
        tenant = judged(scope, match.route)
        target: bytes = match.path or scope["raw_path"]
        if query := scope["query_string"]:
            if names := match.route.protocol.query_credentials:
                query = query_credentials.without(query, names)
            target += b"?" + query if query else b""
        lasts = not self._authenticator.may_end(tenant) and tenant != ANONYMOUS
        return Judgement(match, tenant, scope["method"].encode(), target, lasts)

    def spare(self, judged: Judgement) -> None:
        """Refuse a request that would find no free slot, unread: the worker has too many.

        Only by its head, so not on a path on which the body selects the route.
        """
        route, tenant = judged.match.route, judged.tenant
        if judged.match.shared is None and route.is_full(tenant):
            self._metrics.refused(route.name, tenant, "overloaded")
            raise overloaded(f"every backend of route {route.name!r}")

    async def read(
        self, scope: Scope, receive: Receive, judged: Judgement, received_s: float
    ) -> InferenceRequest:
        """Receive and parse a request; raise HttpProblem or RequestRefused if it is refused.

        Whoever gets the request closes its `memory`.
        """
        tenant = judged.tenant
        if tenant in self._rates:
            self._admit(judged.match.route, tenant)
        fields = self.fields(scope, judged)
        message = await receive()
        body: bytes = message.get("body", b"")
        if (
            message.get("more_body")
            or len(body) > self.small_bytes
            or fields[1].is_coded
            or message["type"] != _REQUEST
        ):
            return await self._read_large(scope, receive, message, judged, received_s)
        return self.parsed(scope, judged, body, received_s)

    def fields(self, scope: Scope, judged: Judgement) -> tuple[Headers, RequestOptions]:
        """Return what goes on to a backend of a head; HttpProblem if that is invalid."""
        fields = judged.fields
        if fields is None:
            fields = forwarded(scope["headers"], self._via, scope["http_version"])
            judged.fields = fields
        return fields

    def tags(self, options: RequestOptions) -> dict[str, str]:
        """Return the tags of a request."""
        return options.tags | self._tags

    def is_limited(self, tenant: str) -> bool:
        """Whether a tenant has a rate limit."""
        return tenant in self._rates

    def parsed(
        self, scope: Scope, judged: Judgement, body: bytes, received_s: float
    ) -> InferenceRequest:
        """Parse a request with a small body that was read; HttpProblem if it is invalid."""
        assert judged.fields is not None
        headers = judged.fields[0].copy()
        call = Call(judged.method, judged.target, headers, body, tenant=judged.tenant)
        return self._inference(scope, judged, call, received_s, None)

    async def _read_large(
        self,
        scope: Scope,
        receive: Receive,
        message: dict[str, Any],
        judged: Judgement,
        received_s: float,
    ) -> InferenceRequest:
        """Receive a body in parts, a large or a compressed one, within its tenant's memory."""
        assert judged.fields is not None
        memory = RequestMemory(self._buffers, judged.tenant)
        try:
            body = await self._body(receive, message, memory)
            headers = judged.fields[0].copy()
            if judged.fields[1].is_coded:
                headers, body = await self._decoded(judged.match.route, headers, body, memory)
            call = Call(judged.method, judged.target, headers, body, tenant=judged.tenant)
            if len(body) > LARGE_BYTES:
                await self._read_slices(call, judged.match.route)
            inference = self._inference(scope, judged, call, received_s, memory)
            await asyncio.sleep(0)  # each step over 15 MiB takes 10 to 20 ms: no two at once
            return inference
        except BaseException:
            memory.close()
            raise

    async def _read_slices(self, call: Call, route: RoutePlan) -> None:
        """Read a large body's form, or its document, in slices."""
        if multipart.is_form(media_type(call.headers)):
            try:
                work = multipart.slices(call.headers, call.body)
                call.form = await self._documents.run(call.tenant, work)
            except BadRequest as exc:
                call.form = exc  # the protocol decides whether it is refused
            return
        text = route.protocol.text(call)
        if len(text) > LARGE_BYTES:
            call.document = await self._documents.read(call.tenant, text)

    def _inference(
        self,
        scope: Scope,
        judged: Judgement,
        call: Call,
        received_s: float,
        memory: RequestMemory | None,
    ) -> InferenceRequest:
        """Parse a request; HttpProblem if it is invalid."""
        match, tenant = judged.match, judged.tenant
        assert judged.fields is not None
        route, options = match.route, judged.fields[1]
        try:
            call.payload = route.protocol.parse(call)
        except UnknownCoding as exc:
            self._metrics.refused(route.name, tenant, "unsupported_media_type")
            raise unknown_coding(exc) from exc
        except BadRequest as exc:
            self._metrics.refused(route.name, tenant, "bad_request")
            raise HttpProblem(400, "Bad request", str(exc)) from exc
        is_free = call.payload.endpoint.is_free
        among: list[RoutePlan] = []
        if match.shared is not None:
            if is_free and not match.route.protocol.model(call, call.payload):
                among = self._among(match, tenant)
            route = among[0] if among else self._of_model(match, call, tenant)
            self._keep_local(scope, route, tenant)
        if route.protocol.withholds is not None:
            call.headers = unwithheld(call.headers, route.protocol.withholds, route.forward_headers)
        if route.forward_headers:
            call.headers += passed_on(
                scope["headers"], route.forward_headers, self._authenticator.is_ours
            )
        if route.request_schema is not None and not is_free:
            if call.payload.fault:
                self._metrics.refused(route.name, tenant, "unprocessable")
                raise unprocessable("the body", f"cannot be checked: {call.payload.fault}")
            breach = route.request_schema.breach(call.payload.data)
            if breach is not None:
                self._metrics.refused(route.name, tenant, "unprocessable")
                raise unprocessable(breach.field, breach.why)
        timeout_s = route.timeout_s
        if options.deadline_s is not None:
            timeout_s = min(timeout_s, options.deadline_s)
        return InferenceRequest(
            route=route,
            tenant=tenant,
            call=call,
            received_s=received_s,
            deadline_s=received_s + timeout_s,
            tags=self.tags(options),
            floor=options.floor,
            cost_nano_max=options.cost_nano_max,
            client_deadline=options.deadline_s is not None,
            accepts=options.accepts,
            cache_mode=options.cache_mode,
            among=among,
            caller=tenant if tenant != ANONYMOUS else anonymous_caller(address_of(scope)),
            memory=memory,
            feedback=options.feedback,
        )

    async def _decoded(
        self, route: RoutePlan, headers: Headers, body: bytes, memory: RequestMemory
    ) -> tuple[Headers, bytes]:
        """Return a compressed request decoded."""
        try:
            return await self._codings.decoded(headers, body, memory)
        except HttpProblem as refused:
            self._metrics.refused(route.name, memory.tenant, refused.reason)
            raise

    def _among(self, match: Match, tenant: str) -> list[RoutePlan]:
        """Return the routes of a shared path that a tenant may call."""
        routes = [route for route in match.routes if self.may(tenant, route)]
        if not routes:
            self._metrics.refused(match.route.name, tenant, "forbidden")
            raise HttpProblem(403, "Forbidden", "this key may not call any route of this path")
        return routes

    def _of_model(self, match: Match, call: Call, tenant: str) -> RoutePlan:
        """Return the route that a request selects by its model name, on a shared path."""
        name = match.route.protocol.model(call, call.payload)
        route = match.of_model(name)
        # A forbidden model is reported as unknown, so as not to reveal which models exist.
        if route is None or not self.may(tenant, route):
            self._metrics.refused(match.route.name, tenant, "no_model")
            raise listing.unknown(name)
        return route

    async def _body(
        self, receive: Receive, message: dict[str, Any], memory: RequestMemory
    ) -> bytes:
        body: bytes = message.get("body", b"")
        later: list[bytes] = []
        size = len(body)
        while True:
            if message["type"] == "http.disconnect":
                why = "the client disconnected before its request ended"
                raise HttpProblem(400, "Bad request", why)
            if size > self._body_bytes_max:
                await self._discard(receive, message)
                raise self._too_large()
            if size > SMALL_BYTES:
                try:
                    memory.add(size - memory.held)
                except BufferFull as full:
                    await self._discard(receive, message)
                    raise overloaded("this gateway") from full
            if not message.get("more_body"):
                return b"".join((body, *later)) if later else body
            message = await receive()
            later.append(message.get("body", b""))
            size += len(later[-1])

    async def _discard(self, receive: Receive, message: dict[str, Any]) -> None:
        """Receive the rest of a body that is too large, at most as much again as is allowed.

        A server that sends a refusal before the body has arrived closes the connection, and a
        client that is still sending gets an error in place of the reply. Tollway's own listener
        reads on by itself.
        """
        discarded = 0
        while message.get("more_body") and discarded <= self._body_bytes_max:
            message = await receive()
            discarded += len(message.get("body", b""))

    def _too_large(self) -> HttpProblem:
        return HttpProblem(
            413,
            "Content too large",
            f"the request body exceeds {self._body_bytes_max} bytes",
        )


def credentials(scope: Scope, named: query_credentials.Names) -> Headers:
    """Return the header fields of a request, and those that its query stands for."""
    headers: Headers = scope["headers"]
    return [*headers, *query_credentials.read(scope["query_string"], named)]


def address_of(scope: Scope) -> str:
    """Return the address of a client; empty if the server does not give it."""
    client = scope.get("client")
    return client[0] if client else ""


def anonymous_caller(address: str) -> str:
    """Return the identity of callers without a key, one of ANONYMOUS_CALLERS.

    Who has many addresses must not count as many: the failures of many independent callers count
    against a backend (see `routing/health/suspicion.py`).
    """
    return f"{ANONYMOUS} {zlib.crc32(address.encode()) % ANONYMOUS_CALLERS}"
