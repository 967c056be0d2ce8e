"""The control plane: feedback, budgets, decisions, spend, events, health, metrics.

It is served by Starlette, because it is called rarely, by people and scrapers. The admin key may
read and change everything; the viewer key may read. A tenant's key may send feedback on the
tenant's own decisions. Health and metrics need no key.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as Path

from tollway.backends.documents import load_request
from tollway.backends.types import BadRequest
from tollway.gateway.budgets.model import NANO
from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.control_plane import explain, openapi
from tollway.gateway.control_plane.budgets import BudgetEndpoints
from tollway.gateway.control_plane.dashboard import PAGE, POLICY
from tollway.gateway.control_plane.dashboard_data import RANGES, DashboardData, DashboardQuery
from tollway.gateway.data_plane.authentication import Authenticator
from tollway.gateway.data_plane.problems import HttpProblem, of_refusal
from tollway.gateway.data_plane.rate_limits import FeedbackRates
from tollway.gateway.learning.feedback import ADMIN, LABELLER, TENANT, FeedbackLearner
from tollway.gateway.learning.feedback_items import FEEDBACK_MAX, LABEL_BYTES_MAX
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.security.loopback import trouble
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.workers.group import WorkerGroup

FEEDBACK_BYTES_MAX = FEEDBACK_MAX * (LABEL_BYTES_MAX + 1024)  # 1024: an id, a source, the names
_SAFE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
LIVE_S = 2.0
_FED = {"learned": 202, "duplicate": 200, "unknown": 404, "unwritten": 503}
"""The status of each feedback result; anything else was refused."""


Reload = Callable[[], Awaitable[list[str]]]


class ControlPlane:
    """The control plane's handlers, over the parts they read."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        learner: FeedbackLearner,
        wallet: Reservations,
        counter: BudgetEndpoints,
        metrics: Metrics,
        group: WorkerGroup,
        overview: DashboardData,
        routes: Callable[[], Iterable[dict[str, Any]]],
        ready: Callable[[], str],
        rates: FeedbackRates,
        clock: Callable[[], float],
    ) -> None:
        """`routes` describes the routes. `ready` returns why the gateway is not ready, or "" if it
        is. `rates` limit how fast tenants may send feedback, by `clock`.

        `reload`, if the gateway supports it, reloads the configuration.
        """
        self.reload: Reload | None = None
        self._authenticator = authenticator
        self._learner = learner
        self._wallet = wallet
        self._counter = counter
        self._metrics = metrics
        self._group = group
        self._overview = overview
        self._routes = routes
        self._ready = ready
        self.rates = rates
        self._clock = clock

    def revise(self, authenticator: Authenticator, counter: BudgetEndpoints) -> None:
        """Replace the keys and budgets with those of another configuration."""
        self._authenticator = authenticator
        self._counter = counter

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Path("/_tollway/feedback", self.feedback, methods=["POST"]),
                Path("/_tollway/budgets", self.budgets),
                Path("/_tollway/budgets/{name}", self.budget, methods=["GET", "POST"]),
                Path("/_tollway/decisions/{id}", self.decision),
                Path("/_tollway/spend", self.spend),
                Path("/_tollway/events", self.events),
                Path("/_tollway/routes", self.routes),
                Path("/_tollway/reload", self.reloaded, methods=["POST"]),
                Path("/_tollway/dashboard", self.dashboard),
                Path("/_tollway/openapi.json", self.openapi),
                Path("/_tollway/overview", self.overview),
                Path("/_tollway/live", self.live),
                Path("/metrics", self.metrics),
                Path("/livez", self.livez),
                Path("/healthz", self.livez),
                Path("/readyz", self.readyz),
            ],
            exception_handlers={
                HttpProblem: _refused,
                RequestRefused: _learner_away,
                HTTPException: _http_error,
            },
            max_body_size=FEEDBACK_BYTES_MAX,
        )

    def _admin(self, request: Request) -> None:
        headers, reads = request.scope["headers"], request.method in {"GET", "HEAD"}
        if self._is_admin(request):
            return
        if self._authenticator.anyone_is_admin:
            why = trouble(request.scope)
            raise HttpProblem(
                403,
                "Forbidden",
                f"without an admin key this is for this machine alone, and {why}; "
                "set server.admin_key_hash (tollway keys new) and send that key",
            )
        if self._authenticator.is_viewer(headers):
            if reads:
                return
            raise HttpProblem(403, "Forbidden", "this key may read, and change nothing")
        raise HttpProblem(401, "Unauthorized", "send the admin key as Authorization: Bearer KEY")

    def _is_admin(self, request: Request) -> bool:
        """Return whether a request has admin rights; if no key is set, only local requests do."""
        if not self._authenticator.is_admin(request.scope["headers"]):
            return False
        return not (self._authenticator.anyone_is_admin and trouble(request.scope))

    async def feedback(self, request: Request) -> Response:
        """Accept one feedback or a list; each gets its own result, in order."""
        headers = request.scope["headers"]
        tenant, by = None, ADMIN
        if not self._is_admin(request):
            tenant = self._authenticator.tenant(headers)
            if tenant is None:
                raise HttpProblem(401, "Unauthorized", "send a key as Authorization: Bearer KEY")
            by = LABELLER if self._authenticator.is_labeller(tenant) else TENANT
        try:
            document = load_request(await request.body())
        except BadRequest as exc:
            raise HttpProblem(400, "Bad feedback", str(exc)) from exc
        many = isinstance(document, list)
        told = document if many else [document]
        if len(told) > FEEDBACK_MAX:
            detail = f"{len(told)} feedbacks in one call; send at most {FEEDBACK_MAX}"
            raise HttpProblem(413, "Content too large", detail)
        if tenant is not None:
            self.rates.admit(tenant, len(told), self._clock())
        results = await self._group.teach(told, tenant, by)
        if many:
            return _json({"results": results})
        status = _FED.get(results[0]["result"], 422)
        return _json(results[0], status)

    async def budgets(self, request: Request) -> Response:
        """Return every budget's limit, spent, held and free, in nano-dollars and dollars."""
        self._admin(request)
        await self._group.settle()
        return _json({"budgets": [explain.budget(status) for status in self._wallet.status()]})

    async def budget(self, request: Request) -> Response:
        """Return one budget with its leases and changes; POST changes it."""
        self._admin(request)
        name = request.path_params["name"]
        await self._group.settle()
        if request.method == "POST":
            return _json(await self._counter.change(name, await request.body()))
        return _json(await self._counter.show(name))

    async def decision(self, request: Request) -> Response:
        """Return what happened to one request, and why."""
        self._admin(request)
        found = await self._learner.found(request.path_params["id"])
        if not found:
            raise HttpProblem(404, "No decision", "no decision of this id is in the journal")
        return _json(explain.decision(found + await self._learner.followed(found)))

    async def spend(self, request: Request) -> Response:
        """Return the cost of each route, backend and tenant since the gateway started."""
        self._admin(request)
        spent = (await self._group.all()).spend
        rows = [
            {"route": route, "backend": backend, "tenant": tenant, "cost_nano": nano}
            for (route, backend, tenant), nano in spent.items()
        ]
        total = sum(spent.values())
        return _json({"cost_nano": total, "cost_usd": total / NANO, "by": rows})

    async def events(self, request: Request) -> Response:
        """Return the newest events, newest first."""
        self._admin(request)
        return _json({"events": (await self._group.all()).events[:100]})

    async def routes(self, request: Request) -> Response:
        """Return the routes with their backends, prices and learned policies."""
        self._admin(request)
        return _json({"routes": list(self._routes())})

    async def reloaded(self, request: Request) -> Response:
        """Reload the configuration, or return its problems."""
        self._admin(request)
        if self.reload is None:
            raise HttpProblem(501, "No reload", "this gateway was started without a file to read")
        try:
            return _json({"changed": await self.reload()})
        except ConfigError as exc:
            refused = HttpProblem(422, "Bad configuration", "the old one goes on; see problems")
            document = {**refused.problem(), "problems": [p.document() for p in exc.problems]}
            return Response(orjson.dumps(document), 422, media_type="application/problem+json")
        except LedgerUnavailable as exc:
            raise HttpProblem(503, "Ledger unreachable", "the old configuration goes on") from exc

    async def dashboard(self, request: Request) -> Response:
        """Return the page; it contains no figures, and prompts for the admin key if one is set."""
        headers = {
            "content-security-policy": POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }
        return Response(PAGE, headers=headers, media_type="text/html; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        """Return this control plane as an OpenAPI document."""
        return _json(openapi.document())

    async def overview(self, request: Request) -> Response:
        """Return the dashboard's data: `?range=1h&route=NAME&tenant=NAME`."""
        self._admin(request)
        return _json(await self._overview.document(_query(request)))

    async def live(self, request: Request) -> Response:
        """Stream the overview as server-sent events."""
        self._admin(request)
        query = _query(request)

        async def events() -> AsyncIterator[bytes]:
            while not self._ready():
                document = await self._overview.document(query)
                yield b"data: %b\n\n" % orjson.dumps(document)
                await asyncio.sleep(LIVE_S)

        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(events(), headers=headers, media_type="text/event-stream")

    async def metrics(self, request: Request) -> Response:
        """Return the metrics for Prometheus; rendered in a thread, since it takes milliseconds."""
        families = None if self._group.alone else (await self._group.all()).families
        accept = request.headers.get("accept", "")
        body, kind = await run_in_threadpool(self._metrics.exposition, families, accept)
        return Response(body, headers={"content-type": kind})

    async def livez(self, request: Request) -> Response:
        """Return 200 while the process runs."""
        return Response("ok\n", media_type="text/plain")

    async def readyz(self, request: Request) -> Response:
        """Return whether the gateway accepts new requests."""
        why = self._ready()
        return Response(f"{why or 'ok'}\n", 503 if why else 200, media_type="text/plain")


def _query(request: Request) -> DashboardQuery:
    given = request.query_params
    name = given.get("range", "1h")
    if name not in RANGES:
        raise HttpProblem(400, "Bad range", f"range must be one of {', '.join(RANGES)}")
    return DashboardQuery(RANGES[name], given.get("route", ""), given.get("tenant", ""))


def _json(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, _SAFE, media_type="application/json")


async def _refused(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HttpProblem)
    return _problem(exc)


async def _learner_away(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestRefused)
    return _problem(of_refusal(exc))


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    detail = {404: "see /_tollway/openapi.json for what there is"}.get(exc.status_code, exc.detail)
    problem = _problem(HttpProblem(exc.status_code, exc.detail, detail))
    problem.headers.update(exc.headers or {})
    return problem


def _problem(refused: HttpProblem) -> Response:
    headers = _SAFE | {name.decode(): value.decode() for name, value in refused.headers}
    return Response(
        orjson.dumps(refused.problem()),
        refused.status,
        headers=headers,
        media_type="application/problem+json",
    )
