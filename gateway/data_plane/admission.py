"""Admission: authenticates, authorizes and parses requests into `InferenceRequest` objects.

A request that is refused here has cost nothing and reached no backend.
"""

from collections.abc import Callable, Mapping

from tollway.backends.types import BadRequest, Call, Payload
from tollway.gateway.data_plane import model_list
from tollway.gateway.data_plane.asgi import Receive, Scope
from tollway.gateway.data_plane.authentication import Authenticator
from tollway.gateway.data_plane.headers import forwarded, passed_on
from tollway.gateway.data_plane.problems import HttpProblem, unprocessable
from tollway.gateway.data_plane.rate_limits import RateLimit
from tollway.gateway.data_plane.route_table import Match
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.routing.route import Route
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.security.loopback import trouble


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
        local_only: frozenset[str] = frozenset(),
    ) -> None:
        """`may_call` maps tenants with restricted access to the routes that they may call.

        `rates` maps rate-limited tenants to their limits. `local_only` names the routes that
        callers without a key may use only from this machine.
        """
        self._authenticator = authenticator
        self._metrics = metrics
        self._may_call = may_call
        self._rates = rates
        self._clock = clock
        self._body_bytes_max = body_bytes_max
        self._via = via
        self._local_only = local_only

    def known(self, scope: Scope, route: Route) -> str:
        """Return the tenant of the request's key; raise HttpProblem 401 if it has none."""
        tenant = self._authenticator.tenant(scope["headers"])
        if tenant is None:
            self._metrics.refused(route.name, "", "unauthorized")
            refused = HttpProblem(
                401,
                "Unauthorized",
                "send a key of this gateway as Authorization: Bearer KEY, x-api-key or api-key",
            )
            refused.headers.append((b"www-authenticate", b'Bearer realm="tollway"'))
            raise refused
        return tenant

    def tenant(self, scope: Scope, route: Route) -> str:
        """Return the tenant of the key; HttpProblem 401 or 403 if it may not call the route."""
        tenant = self.known(scope, route)
        if not self.may(tenant, route):
            self._metrics.refused(route.name, tenant, "forbidden")
            raise HttpProblem(403, "Forbidden", f"this key may not call route {route.name!r}")
        if tenant == ANONYMOUS:
            self._keep_local(scope, route, tenant)
        return tenant

    def _keep_local(self, scope: Scope, route: Route, tenant: str) -> None:
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

    def may(self, tenant: str, route: Route) -> bool:
        """Whether a tenant may call a route."""
        allowed = self._may_call.get(tenant)
        return allowed is None or route.name in allowed

    def _admit(self, route: Route, tenant: str) -> None:
        """Apply the tenant's rate limit; HttpProblem 429 above it (0.1 us if it has none)."""
        rate = self._rates.get(tenant)
        if rate is None:
            return
        try:
            rate.admit(self._clock())
        except HttpProblem as refused:
            self._metrics.refused(route.name, tenant, refused.reason)
            raise

    def charge(self, state: RequestState) -> None:
        """Charge a request's cost to its tenant's spending rate."""
        rate = self._rates.get(state.inference.tenant)
        if rate is not None:
            rate.charge(state)

    async def read(
        self, scope: Scope, receive: Receive, match: Match, tenant: str, received_s: float
    ) -> InferenceRequest:
        """Parse the request into an InferenceRequest; raise HttpProblem if it is invalid."""
        self._admit(match.route, tenant)
        route = match.route
        headers, options = forwarded(scope["headers"], self._via, scope["http_version"])
        target: bytes = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        call = Call(scope["method"].encode(), target, headers, await self._body(receive))
        try:
            call.payload = route.protocol.parse(call)
        except BadRequest as exc:
            self._metrics.refused(route.name, tenant, "bad_request")
            raise HttpProblem(400, "Bad request", str(exc)) from exc
        if match.shared is not None:
            route = self._of_model(match, call.payload, tenant)
            self._keep_local(scope, route, tenant)
        if route.forward_headers:
            call.headers += passed_on(
                scope["headers"], route.forward_headers, self._authenticator.is_ours
            )
        if route.request_schema is not None:
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
            tags=options.tags,
            floor=options.floor,
            cost_nano_max=options.cost_nano_max,
            client_deadline=options.deadline_s is not None,
            accepts=options.accepts,
            caller=caller_of(scope, tenant),
        )

    def _of_model(self, match: Match, payload: Payload, tenant: str) -> Route:
        """Return the route that a request selects by its model name, on a shared path."""
        document = payload.data
        name = document["model"] if isinstance(document, dict) else ""
        route = match.of_model(name)
        # A forbidden model is reported as unknown, so as not to reveal which models exist.
        if route is None or not self.may(tenant, route):
            self._metrics.refused(match.route.name, tenant, "no_model")
            raise model_list.unknown(name)
        return route

    async def _body(self, receive: Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if message["type"] == "http.disconnect":
                raise HttpProblem(
                    400, "Bad request", "the client disconnected before its request ended"
                )
            if len(body) > self._body_bytes_max:
                raise self._too_large()
            return body
        chunks, size = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HttpProblem(
                    400, "Bad request", "the client disconnected before its request ended"
                )
            size += len(message.get("body", b""))
            if size > self._body_bytes_max:
                raise self._too_large()
            chunks.append(message.get("body", b""))
        return b"".join(chunks)

    def _too_large(self) -> HttpProblem:
        return HttpProblem(
            413,
            "Content too large",
            f"the body of a request may have at most {self._body_bytes_max} bytes",
        )


def caller_of(scope: Scope, tenant: str) -> str:
    """Return the caller: the tenant, or the address of an anonymous client (0.2 us)."""
    if tenant != ANONYMOUS:
        return tenant
    client = scope.get("client")
    return client[0] if client else ""
