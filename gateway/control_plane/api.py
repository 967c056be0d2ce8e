"""The control plane: feedback, budgets, decisions, spend, events, health, metrics.

It is served by Starlette, because it is called rarely, by people and scrapers. The admin key may
read and change everything; the viewer key may read. A tenant's key may send feedback on the
tenant's own decisions and read what they cost. Health and metrics need no key.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import nullcontext
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as Path

from tollway.backends.documents import load_request
from tollway.backends.errors import BadRequest
from tollway.backends.money import to_usd
from tollway.backends.sliced_json import LARGE_BYTES
from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.control_plane import acts, explain, openapi
from tollway.gateway.control_plane import scaling as scaling_view
from tollway.gateway.control_plane.budgets import BudgetEndpoints
from tollway.gateway.control_plane.dashboard import PAGE, POLICY
from tollway.gateway.control_plane.dashboard_data import RANGES, DashboardData, DashboardQuery
from tollway.gateway.control_plane.features import FeatureEndpoints
from tollway.gateway.control_plane.models import ModelEndpoints
from tollway.gateway.control_plane.rollouts import RolloutEndpoints
from tollway.gateway.control_plane.warm_up import WarmUpEndpoint
from tollway.gateway.data_plane.authentication import Authenticator
from tollway.gateway.data_plane.problems import HttpProblem, of_refusal
from tollway.gateway.data_plane.rate_limits import FeedbackRates
from tollway.gateway.features.online.entities import KEY_CHARS_MAX
from tollway.gateway.learning.feedback import ADMIN, LABELLER, TENANT, FeedbackLearner
from tollway.gateway.learning.feedback_items import FEEDBACK_MAX, LABEL_BYTES_MAX
from tollway.gateway.observability.exposition import Exposition
from tollway.gateway.routing.bodies.large_documents import LargeDocuments
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.scaling.scaler import Scaler
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.security.loopback import control_trouble, is_cross_site
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.storage.audit_log import Actor, AuditLog
from tollway.gateway.workers.group import WorkerGroup

FEEDBACK_BYTES_MAX = FEEDBACK_MAX * (LABEL_BYTES_MAX + 1024)  # 1024: an id, a source, the names
_SAFE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
LIVE_S = 2.0
_TENANTS_READ_MAX = 2  # look-ups of tenants at once: each may read 256 MiB of the journal
_INLINE_BYTES = 32 << 10  # larger bodies are compressed in a thread: 1 ms
_FED = {"learned": 202, "duplicate": 200, "unknown": 404, "unwritten": 503}
"""The status of each feedback result; anything else was refused."""


Reload = Callable[[Actor], Awaitable[list[str]]]


class _PathsAsSent(Starlette):
    """Starlette, comparing paths as they were sent: each has one spelling, here and in front."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(
            {**scope, "path": scope["raw_path"].decode("latin-1")}, receive, send
        )


class ControlPlane:
    """The control plane's handlers, over the parts they read."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        learner: FeedbackLearner,
        reservations: Reservations,
        budget_endpoints: BudgetEndpoints,
        audit: AuditLog,
        exposition: Exposition,
        group: WorkerGroup,
        overview: DashboardData,
        devices: explain.Devices,
        routes: Callable[[], Iterable[dict[str, Any]]],
        scaling: Scaler,
        features: FeatureEndpoints,
        rollouts: RolloutEndpoints,
        ready: Callable[[], str],
        rates: FeedbackRates,
        clock: Callable[[], float],
        hides_amounts: Callable[[], bool],
        documents: LargeDocuments,
        warm_ups: WarmUpEndpoint,
    ) -> None:
        """`devices` tells how backends are priced that run on one; `routes` describes the routes.
        `scaling` recommends and sets replicas.

        `ready` returns why the gateway is not ready, or "" if it is. `rates` limit how fast tenants
        may send feedback, by `clock`. `hides_amounts` tells whether tenants see no amounts.
        `documents` reads large feedback.

        `reload`, if the gateway supports it, reloads the configuration.
        """
        self.reload: Reload | None = None
        self.models: ModelEndpoints
        self._authenticator = authenticator
        self._learner = learner
        self._reservations = reservations
        self._budget_endpoints = budget_endpoints
        self._audit = audit
        self._exposition = exposition
        self._group = group
        self._overview = overview
        self._devices = devices
        self._routes = routes
        self._scaling = scaling
        self._features = features
        self._rollouts = rollouts
        self._ready = ready
        self.rates = rates
        self._hides_amounts = hides_amounts
        self._documents = documents
        self._warm_ups = warm_ups
        self._tenants_read = asyncio.Semaphore(_TENANTS_READ_MAX)
        self._clock = clock

    def revise(self, authenticator: Authenticator, budget_endpoints: BudgetEndpoints) -> None:
        """Replace the keys and budgets with those of another configuration."""
        self._authenticator = authenticator
        self._budget_endpoints = budget_endpoints

    def app(self) -> Starlette:
        """Return the ASGI application."""
        app = _PathsAsSent(
            routes=[
                Path("/_tollway/feedback", self.feedback, methods=["POST"]),
                Path("/_tollway/budgets", self.budgets),
                Path("/_tollway/budgets/{name}", self.budget, methods=["GET", "POST"]),
                Path("/_tollway/decisions/{id}", self.decision),
                Path("/_tollway/spend", self.spend),
                Path("/_tollway/events", self.events),
                Path("/_tollway/audit", self.audit),
                Path("/_tollway/routes", self.routes),
                Path("/_tollway/scaling", self.all_scaling),
                Path("/_tollway/scaling/{backend}", self.scaling),
                Path("/_tollway/features", self.features),
                Path(
                    "/_tollway/features/{name}/{entity}",
                    self.feature,
                    methods=["GET", "PUT", "DELETE"],
                ),
                Path(
                    "/_tollway/features/{name}/{entity}/invalidate",
                    self.feature,
                    methods=["POST"],
                ),
                Path("/_tollway/models", self.all_models),
                Path("/_tollway/models/{name}", self.model, methods=["GET", "POST"]),
                Path("/_tollway/registry/webhook", self.registry_webhook, methods=["POST"]),
                Path("/_tollway/rollouts", self.rollouts),
                Path("/_tollway/rollouts/{name}", self.rollout, methods=["GET", "POST"]),
                Path("/_tollway/rollouts/{name}/history", self.rollout_history),
                Path("/_tollway/reload", self.reloaded, methods=["POST"]),
                Path("/_tollway/warmup", self.warm_up, methods=["POST"]),
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
                ClientDisconnect: _gone,
            },
            max_body_size=FEEDBACK_BYTES_MAX,
        )
        app.router.redirect_slashes = False
        app.add_middleware(
            GZipMiddleware, minimum_size=1024, compresslevel=6, thread_minimum_size=_INLINE_BYTES
        )
        return app

    def _admin(self, request: Request) -> None:
        headers = request.scope["headers"]
        if self._is_admin(request):
            return
        if self._authenticator.is_viewer(headers):
            if request.method in {"GET", "HEAD"}:
                return
            raise HttpProblem(403, "Forbidden", "this key is read-only")
        if self._authenticator.is_open_here:
            raise HttpProblem(
                403,
                "Forbidden",
                "without an admin key only local requests are accepted, and "
                f"{control_trouble(request.scope)}; send the admin key as Authorization: Bearer "
                "KEY: it is in admin.key in the state directory, or set server.admin_key_hash",
            )
        raise HttpProblem(401, "Unauthorized", "send the admin key as Authorization: Bearer KEY")

    def _is_admin(self, request: Request) -> bool:
        """Return whether a request has admin rights; if no key is set, local requests have them."""
        if self._authenticator.is_admin(request.scope["headers"]):
            return True
        return self._authenticator.is_open_here and not control_trouble(request.scope)

    def _actor(self, request: Request) -> Actor:
        """Return who sent a request that has admin rights."""
        by = "admin key"
        if not self._authenticator.is_admin(request.scope["headers"]):
            by = "this machine"
        return Actor(by, by, request.client.host if request.client else "")

    async def feedback(self, request: Request) -> Response:
        """Accept one item of feedback or a list; return a result for each, in order."""
        headers = request.scope["headers"]
        tenant, by = None, ADMIN
        if not self._is_admin(request):
            tenant = self._authenticator.tenant(headers)
            if tenant is None:
                raise HttpProblem(401, "Unauthorized", "send a key as Authorization: Bearer KEY")
            if tenant == ANONYMOUS and is_cross_site(headers):
                raise HttpProblem(403, "Forbidden", "a page of another origin sent this feedback")
            by = LABELLER if self._authenticator.is_labeller(tenant) else TENANT
        try:
            document = await self._document(tenant or "", await request.body())
        except BadRequest as exc:
            raise HttpProblem(400, "Bad feedback", str(exc)) from exc
        many = isinstance(document, list)
        items = document if many else [document]
        if len(items) > FEEDBACK_MAX:
            detail = f"{len(items)} items of feedback in one call; send at most {FEEDBACK_MAX}"
            raise HttpProblem(413, "Content too large", detail)
        if tenant is not None:
            self.rates.admit(tenant, len(items), self._clock())
        results = await self._group.teach(items, tenant, by)
        if many:
            return _json({"results": results})
        status = _FED.get(results[0]["result"], 422)
        return _json(results[0], status)

    async def warm_up(self, request: Request) -> Response:
        """Ask all backends of a route one request, or learn qualities that are known."""
        self._admin(request)
        try:
            document = await self._document("", await request.body())
        except BadRequest as exc:
            raise HttpProblem(400, "Bad warm-up", str(exc)) from exc
        return _json(await self._warm_ups.answer(document))

    async def _document(self, tenant: str, body: bytes) -> Any:
        """Return a tenant's JSON document, read in slices if it is large; BadRequest if invalid."""
        if len(body) <= LARGE_BYTES:
            return load_request(body)
        document = await self._documents.read(tenant, body)
        if document.fault:
            raise BadRequest(f"the body is not JSON: {document.fault}")
        if not document.is_whole:
            raise BadRequest("the body has more values than any feedback needs")
        return document.value

    async def budgets(self, request: Request) -> Response:
        """Return every budget's limit, spent, held and free, in nano-dollars and dollars."""
        self._admin(request)
        await self._group.settle()
        return _json(
            {"budgets": [explain.budget(status) for status in self._reservations.status()]}
        )

    async def budget(self, request: Request) -> Response:
        """Return one budget with its leases and changes; POST changes it."""
        self._admin(request)
        name = unquote(request.path_params["name"])
        await self._group.settle()
        if request.method == "POST":
            document = await self._budget_endpoints.change(
                name, await request.body(), self._actor(request)
            )
            await self._reservations.refresh(0.0)
            return _json(document)
        return _json(await self._budget_endpoints.show(name))

    async def decision(self, request: Request) -> Response:
        """Return what happened to one request, and why; to a tenant, the cost of its own."""
        tenant = self._tenant(request)
        if tenant is not None:
            self.rates.admit(tenant, 1, self._clock())
        async with nullcontext() if tenant is None else self._tenants_read:
            decision = unquote(request.path_params["id"])
            rows = await self._learner.looked_up(decision)
            if not rows or tenant not in (None, rows[0]["tenant"]):
                raise HttpProblem(404, "No decision", self._learner.absence(decision))
            if tenant is None or explain.is_open(rows):
                rows += await self._learner.followed(rows)
        if tenant is None:
            return _json(explain.decision(rows, self._devices))
        return _json(explain.own(rows, amounts=not self._hides_amounts()))

    def _tenant(self, request: Request) -> str | None:
        """Return the tenant whose decisions a request may read; None for an operator: all."""
        headers = request.scope["headers"]
        if not (self._is_admin(request) or self._authenticator.is_viewer(headers)):
            tenant = self._authenticator.tenant(headers)
            if tenant not in (None, ANONYMOUS):
                return tenant
        self._admin(request)
        return None

    async def spend(self, request: Request) -> Response:
        """Return the cost of each route, backend and tenant since the gateway started."""
        self._admin(request)
        spent = (await self._group.all()).spend
        rows = [
            {"route": route, "backend": backend, "tenant": tenant, "cost_nano": nano}
            for (route, backend, tenant), nano in spent.items()
        ]
        total = sum(spent.values())
        return _json({"cost_nano": total, "cost_usd": to_usd(total), "by": rows})

    async def events(self, request: Request) -> Response:
        """Return the newest events, newest first."""
        self._admin(request)
        return _json({"events": (await self._group.all()).events[:100]})

    async def audit(self, request: Request) -> Response:
        """Return the newest acts of operators, newest first: `?limit=100`."""
        self._admin(request)
        limit = request.query_params.get("limit", str(acts.USUAL))
        is_number = limit.isascii() and limit.isdigit() and len(limit) <= len(str(acts.MOST))
        if not (is_number and 1 <= int(limit) <= acts.MOST):
            raise HttpProblem(400, "Bad limit", f"limit must be a number from 1 to {acts.MOST}")
        try:
            return _json({"acts": await asyncio.to_thread(self._audit.newest, int(limit))})
        except OSError as exc:
            why = f"the audit log cannot be read: {exc.strerror}"
            raise HttpProblem(503, "Audit log not readable", why) from exc

    async def routes(self, request: Request) -> Response:
        """Return the routes with their backends, prices and learned policies."""
        self._admin(request)
        return _json({"routes": list(self._routes())})

    async def all_scaling(self, request: Request) -> Response:
        """Return the replicas that are recommended for each backend, and why."""
        self._admin(request)
        return _json(scaling_view.all_of(self._scaling))

    async def scaling(self, request: Request) -> Response:
        """Return the replicas that are recommended for a backend, and why."""
        self._admin(request)
        name = unquote(request.path_params["backend"])
        one = self._scaling.advisor.backends.get(name)
        if one is None:
            raise HttpProblem(404, "No scaling", "[[scaling]] has no entry for a backend so named")
        return _json(scaling_view.scaling(name, one, self._scaling))

    async def features(self, request: Request) -> Response:
        """Return the groups of features from outside, and what was counted of them."""
        self._admin(request)
        return _json(self._features.groups())

    async def feature(self, request: Request) -> Response:
        """Read, write, erase or invalidate the features of an entity; each needs the admin key."""
        self._admin(request)
        if not self._is_admin(request):
            raise HttpProblem(403, "Forbidden", "the values of entities need the admin key")
        name, entity = [unquote(request.path_params[part]) for part in ("name", "entity")]
        if len(entity) > KEY_CHARS_MAX:
            raise HttpProblem(400, "Bad entity", f"it is longer than {KEY_CHARS_MAX} characters")
        actor, endpoints = self._actor(request), self._features
        if request.method == "PUT":
            return _json(await endpoints.put(name, entity, await request.body(), actor))
        if request.method == "DELETE":
            return _json(await endpoints.erase(name, entity, actor))
        if request.method == "POST":
            return _json(await endpoints.invalidate(name, entity, actor))
        return _json(await endpoints.show(name, entity, actor))

    async def all_models(self, request: Request) -> Response:
        """Return the models of the registry, and the versions that serve."""
        self._admin(request)
        return _json({"models": await self.models.list()})

    async def model(self, request: Request) -> Response:
        """Return a model with its versions; POST moves an alias."""
        self._admin(request)
        name = unquote(request.path_params["name"])
        if request.method == "POST":
            return _json(await self.models.change(name, await request.body(), self._actor(request)))
        return _json(await self.models.show(name))

    async def registry_webhook(self, request: Request) -> Response:
        """Look at the registry, for a signed webhook."""
        await self.models.webhook(request.headers, await request.body())
        return _json({})

    async def rollouts(self, request: Request) -> Response:
        """Return the status of every rollout."""
        self._admin(request)
        return _json({"rollouts": await self._rollouts.all()})

    async def rollout(self, request: Request) -> Response:
        """Return where a rollout is; POST starts, pauses, resumes, promotes or aborts it."""
        self._admin(request)
        name = unquote(request.path_params["name"])
        if request.method == "POST":
            actor = self._actor(request)
            return _json(await self._rollouts.act(name, await request.body(), actor))
        return _json(await self._rollouts.show(name))

    async def rollout_history(self, request: Request) -> Response:
        """Return a rollout's moves, newest first."""
        self._admin(request)
        name = unquote(request.path_params["name"])
        return _json({"history": await self._rollouts.history(name)})

    async def reloaded(self, request: Request) -> Response:
        """Reload the configuration, or return its problems."""
        self._admin(request)
        if self.reload is None:
            raise HttpProblem(
                501, "No reload", "this gateway was started without a configuration file"
            )
        try:
            return _json({"changed": await self.reload(self._actor(request))})
        except ConfigError as exc:
            refused = HttpProblem(
                422, "Bad configuration", "the old configuration stays in effect; see `problems`"
            )
            document = {**refused.problem(), "problems": [p.document() for p in exc.problems]}
            return Response(orjson.dumps(document), 422, media_type="application/problem+json")
        except LedgerUnavailable as exc:
            raise HttpProblem(
                503, "Ledger unreachable", "the old configuration stays in effect"
            ) from exc

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
        """Return the metrics for Prometheus."""
        families = None
        if self._group.alone:
            await self._group.settle()
        else:
            families = (await self._group.all()).families
        accept = request.headers.get("accept", "")
        body, kind = await self._exposition.scrape(families, accept)
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


async def _gone(request: Request, exc: Exception) -> Response:
    """Return what nobody reads: a client that hangs up is no error of the gateway."""
    return Response(status_code=400)


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    detail = {404: "see /_tollway/openapi.json for the available paths"}.get(
        exc.status_code, exc.detail
    )
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
