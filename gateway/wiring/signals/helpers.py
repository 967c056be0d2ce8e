"""Builds what the gateway asks backends for itself: embeddings of requests, verdicts on replies."""

from collections.abc import Callable, Mapping
from functools import partial

from tollway.backends.price import Price
from tollway.gateway import settings as config
from tollway.gateway.routing.driver import Driver
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.signals.embeddings import SIGNAL as EMBEDDING
from tollway.gateway.signals.embeddings import BackendEmbeddings
from tollway.gateway.signals.own_calls import OwnCalls, write
from tollway.gateway.signals.verifier import SIGNAL as VERIFIER
from tollway.gateway.signals.verifier import Verifier
from tollway.gateway.storage.journal import Journal

PlanOf = Callable[[str, str, RoutePlan, Target, float], RoutePlan]
"""Returns the plan of calls, of a route, a signal, the route's plan, a backend and a limit."""


class HelperBuilder:
    """Builds the embedders and verifiers of all routes; unchanged ones stay the same objects."""

    # The mutable state is the calls by route and signal with their settings, and the embedders.

    def __init__(
        self,
        driver: Driver,
        journal: Journal,
        calls: Callable[..., OwnCalls],
        *,
        plan_of: PlanOf,
        price_of: Callable[[Target], Price],
        wall: Callable[[], float],
    ) -> None:
        """`calls` makes those of a plan, a backend's name, its price and a time limit."""
        self._driver, self._journal = driver, journal
        self._calls, self._plan_of, self._price_of = calls, plan_of, price_of
        self._wall = wall
        self._own: dict[tuple[str, str], tuple[object, OwnCalls]] = {}
        self._embedders: dict[str, tuple[OwnCalls, BackendEmbeddings]] = {}
        driver.sinks.add(ended=self.ended)

    def _own_of(
        self,
        signal: str,
        asked: Mapping[str, tuple[str | None, float]],
        backends: Mapping[str, Target],
        routes: Mapping[str, RoutePlan],
    ) -> dict[str, tuple[object, OwnCalls]]:
        """Return the calls of a signal by route; `asked`: a backend and the time limit."""
        own = {}
        for route, (name, limit_s) in asked.items():
            backend = backends.get(name or "")
            if backend is None:
                continue
            identity, known = (backend, limit_s), self._own.get((route, signal))
            if known is not None and known[0] == identity:
                own[route] = known
                continue
            plan = self._plan_of(route, f"${signal}", routes[route], backend, limit_s)
            price = partial(self._price_of, backend)
            own[route] = identity, self._calls(plan, backend.name, price, timeout_s=limit_s)
        return own

    def prepare(
        self,
        settings: config.Settings,
        backends: Mapping[str, Target],
        routes: Mapping[str, RoutePlan],
    ) -> Callable[[], None]:
        """Build the embedders and verifiers; return what puts them into use."""
        asked = {
            route.name: (route.context.embedding_backend, route.context.embedding_timeout_s)
            for route in settings.routes
        }
        embedding = self._own_of(EMBEDDING, asked, backends, routes)
        embedders = {
            name: known
            if (known := self._embedders.get(name)) is not None and known[0] is calls
            else (calls, BackendEmbeddings(calls))
            for name, (_, calls) in embedding.items()
        }
        asked = {
            route.name: (texts.verifier, texts.verifier_timeout_s)
            for route in settings.routes
            if (texts := route.text_confidence) is not None
        }
        verifying = self._own_of(VERIFIER, asked, backends, routes)
        verifiers = {
            name: Verifier(calls, asked[name][0] or "") for name, (_, calls) in verifying.items()
        }

        def commit() -> None:
            self._embedders = embedders
            self._own = {
                (route, signal): known
                for signal, own in ((EMBEDDING, embedding), (VERIFIER, verifying))
                for route, known in own.items()
            }
            self._driver.embeds.clear()
            self._driver.embeds.update(dict.fromkeys(embedders, self._embed))
            self._driver.verifies.clear()
            self._driver.verifies.update({name: one.verify for name, one in verifiers.items()})

        return commit

    async def _embed(self, inference: InferenceRequest) -> tuple[float, ...]:
        """Return the embedding of a request; its call is recorded if the client leaves."""
        known = self._embedders.get(inference.route.name)
        if known is None:  # gone by a reload
            return ()
        try:
            return await known[1].of(inference)
        except BaseException:
            self._write(inference, "")
            raise

    async def embedded(self, inference: InferenceRequest) -> tuple[float, ...]:
        """Return the embedding of a request that is not routed, and journal the call for it."""
        try:
            return await self._embed(inference)
        finally:
            self._write(inference, "")

    def ended(self, state: RequestState, now_s: float) -> None:
        """Journal the gateway's own calls for a finished request."""
        if state.inference.own_calls:
            self._write(state.inference, state.id)

    def _write(self, inference: InferenceRequest, decision: str) -> None:
        made, inference.own_calls = inference.own_calls, []
        for signal, own in made:
            write(self._journal, own, signal, decision, self._wall())
