"""The endpoint of warm-ups: estimates, calls to all backends, and qualities that are known.

`POST /_tollway/warmup` takes a document with a `route` and one of

    {"requests": [...]}                      what asking all backends would cost
    {"request": {...}}                       ask all backends; returns a decision and the replies
    {"request": {...}, "backends": [NAME]}   ask these only, such as a judge; nothing to label
    {"request": {...}, "qualities": {...}}   learn the qualities of backends, without a call
    {"context": {...}, "qualities": {...}}   the same, with the features of another journal

The replies of the second are labelled by feedback with `qualities`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tollway.backends.errors import BadRequest
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.learning.warm_up import QUOTED_MAX, WarmUps
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.workers.group import WorkerGroup

SOURCE = "warm-up"
_MEMBERS = {"route", "path", "tenant", "request", "requests", "backends", "qualities", "context"}
_TEXTS = ("route", "path", "tenant")


class WarmUpEndpoint:
    """Answers the endpoint."""

    def __init__(
        self,
        warm_ups: WarmUps,
        group: WorkerGroup,
        reservations: Reservations,
        *,
        routes: Callable[[], Mapping[str, RoutePlan]],
        path: Callable[[str], str],
        backends: Callable[[], Mapping[str, Any]],
        tags: Mapping[str, str],
    ) -> None:
        """`path` returns the path of a route in the configuration; `tags`: those of all calls."""
        self._tags = tags
        self._warm_ups = warm_ups
        self._group = group
        self._reservations = reservations
        self._routes = routes
        self._path = path
        self._backends = backends

    async def answer(self, document: Any) -> dict[str, Any]:
        """Return the reply to a document. Raises HttpProblem."""
        if not isinstance(document, dict) or (unknown := document.keys() - _MEMBERS):
            named = f": unknown member {min(unknown)[:64]!r}" if isinstance(document, dict) else ""
            raise _bad(f"send an object with a route and a request{named}")
        for name in _TEXTS:
            if not isinstance(document.get(name, ""), str):
                raise _bad(f"{name} must be a string")
        route = self._routes().get(document.get("route", ""))
        if route is None:
            raise HttpProblem(404, "No route", f"there is no route {document.get('route')!r}")
        path = document.get("path") or self._path(route.name)
        if "{" in path or "*" in path or not path.startswith("/"):
            raise _bad(f"the route's path {path} is a pattern; send the path to call as `path`")
        try:
            return await self._done(route, path, document)
        except BadRequest as exc:
            raise _bad(str(exc)) from exc

    async def _done(self, route: RoutePlan, path: str, document: dict[str, Any]) -> dict[str, Any]:
        tenant = document.get("tenant") or ANONYMOUS
        if "qualities" in document:
            return await self._recorded(route, path, document, tenant)
        among = self._among(document.get("backends", []))
        if "requests" in document:
            requests = document["requests"]
            if not isinstance(requests, list) or len(requests) > QUOTED_MAX:
                raise _bad(f"requests must be a list of at most {QUOTED_MAX}")
            by_backend = self._warm_ups.estimate(route, path, requests, tenant, among)
            return {"backends": by_backend, "free_nano": self._free_nano(route, tenant)}
        return await self._warm_ups.ask(route, path, document.get("request"), tenant, among)

    async def _recorded(
        self, route: RoutePlan, path: str, document: dict[str, Any], tenant: str
    ) -> dict[str, Any]:
        known = document["qualities"]
        if not isinstance(known, dict) or not known or not known.keys() <= route.backends.keys():
            names = ", ".join(route.backends)
            raise _bad(f"qualities must be an object with some of the route's backends: {names}")
        decision = await self._warm_ups.record(route, path, document, list(known), tenant)
        item = {"decision": decision, "qualities": known, "source": SOURCE}
        (result,) = await self._group.teach([item], None)
        return result

    def _among(self, names: Any) -> list[str]:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _bad("backends must be a list of names")
        for name in names:
            if name not in self._backends():
                raise HttpProblem(404, "No backend", f"there is no backend {name!r}")
        return names

    def _free_nano(self, route: RoutePlan, tenant: str) -> int | None:
        """Return the least that the budgets of any backend's calls have left; None without any."""
        bound = {
            account.budget.name
            for name in route.backends
            for account in self._reservations.matching(tenant, route.name, name, self._tags)
        }
        left = [
            one.free_nano + one.held_nano  # leases are money that calls may still use
            for one in self._reservations.status()
            if one.budget.name in bound
        ]
        return min(left, default=None)


def _bad(detail: str) -> HttpProblem:
    return HttpProblem(400, "Bad warm-up", detail)
