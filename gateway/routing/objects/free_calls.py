"""Free calls: requests that no server bills, such as reading or deleting a stored object.

They go to the backend that holds the object. Where that is not known they are sent to one backend
after the other, until one has it. No policy draws, no budget reserves, nothing is learned, and no
decision is journalled. All else is as for other calls: health, credentials, timeouts, the relay of
files, metrics and traces.

A list has the objects of all backends, page after page. If the gateway has several tenants, it
shows only the objects that the caller's own tenant has made through this gateway.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

from tollway.gateway.budgets.model import Reservation
from tollway.gateway.routing.attempts import Attempts
from tollway.gateway.routing.objects.background import BackgroundCalls
from tollway.gateway.routing.objects.references import Objects
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.refusals import RequestRefused, all_failed
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import NO_QUOTE, Attempt, RequestState
from tollway.gateway.routing.router import pass_on, reason
from tollway.gateway.routing.sinks import Sink
from tollway.gateway.storage.object_owners import Owner
from tollway.policies.types import Context

FREE = "free"
"""The reason of a reply to a free call."""

OK = 200
MISSING = frozenset((404, 405, 410))
"""Statuses of a server that does not have an object, so that another may."""

PAGES_MAX = 32  # of backends' lists that are read for one page of ours
NO_CONTEXT = Context(())


class FreeCalls:
    """Answers free calls."""

    def __init__(
        self,
        attempts: Attempts,
        objects: Objects,
        background: BackgroundCalls,
        answered: Sink,
        *,
        clock: Callable[[], float],
    ) -> None:
        """`answered` receives each request; `clock` is that of the deadlines."""
        self._attempts = attempts
        self._objects = objects
        self._background = background
        self._answered = answered
        self._clock = clock
        self.is_shared: Callable[[], bool] = lambda: False
        """Whether there are several tenants, so that lists show each only its own objects."""

    async def answer(self, inference: InferenceRequest) -> RequestState:
        """Return the finished request state, with the reply in `held`.

        Raises RequestRefused if no backend can answer. If the client has disconnected, the state
        may have no reply.
        """
        inference.accepts = b""  # replies are read here, so they are decoded for every client
        state = RequestState(inference, NO_CONTEXT, reason=FREE)
        if inference.trace is not None:
            inference.trace.state = state
        lists = inference.call.payload.endpoint.is_list and inference.call.method == b"GET"
        refused: RequestRefused | None = None
        try:
            await (self._list(state) if lists else self._ask(state))
            refused = self._refusal(state)
        except asyncio.CancelledError:
            if not inference.left:
                raise
            cancelled = asyncio.current_task()
            assert cancelled is not None
            cancelled.uncancel()
        finally:
            self._answered(state, self._clock())
        if refused is not None and not inference.left:
            raise refused
        return state

    def _refusal(self, state: RequestState) -> RequestRefused | None:
        """Return why there is no reply; None if there is one, be it a backend's own refusal."""
        if state.held is None:
            missed = any(attempt.status in MISSING for attempt in state.attempts)
            if missed and state.failed:  # the object may be where there was no answer
                return all_failed(state.inference.route.name, state.failed)
            pass_on(state)
        return reason(state, self._clock()) if state.held is None else None

    async def _ask(self, state: RequestState) -> None:
        """Ask the backends in turn; keep the first reply that is no failure and no miss."""
        for route, backend in self._candidates(state.inference):
            attempt = await self._made(state, route, backend)
            if not (attempt.error or attempt.status in MISSING):
                state.accept(attempt)
                await self._found(state.inference, attempt)
                return

    async def _made(self, state: RequestState, route: RoutePlan, backend: Target) -> Attempt:
        state.inference.route = route
        state.quotes[backend.name] = NO_QUOTE
        return await self._attempts.make(state, backend, Reservation(()))

    async def _found(self, inference: InferenceRequest, attempt: Attempt) -> None:
        """Note where an object is, and what is told about work in the background."""
        for name in inference.call.payload.refers[:1]:
            self._background.retrieved(attempt.backend, name, attempt)
            if not inference.held_by and attempt.status == OK:
                # Whoever knows the id of an object that is not known here may have made it.
                self._objects.created(name, attempt.backend, "")

    def _candidates(self, inference: InferenceRequest) -> Iterator[tuple[RoutePlan, Target]]:
        """Yield the backends that may be asked now, each once; only the holder if it is known."""
        known = {
            name: (route, backend)
            for route in reversed(inference.among or (inference.route,))
            for name, backend in reversed(route.unpriced.items())
            if not backend.is_local
        }
        held_by = inference.held_by & known.keys()
        for name, (route, backend) in reversed(known.items()):
            if (not held_by or name in held_by) and backend.allows(self._clock(), inference.caller):
                yield route, backend

    # -- lists

    async def _list(self, state: RequestState) -> None:
        """Ask the backends for their pages, one after the other, and merge them."""
        inference = state.inference
        lists = inference.route.protocol.lists
        assert lists is not None, "only a protocol with lists has such endpoints"
        pages: list[tuple[Attempt, set[str]]] = []
        cursor = lists.cursor(inference.call.target)
        for route, backend in self._from_cursor(inference):
            shown = False
            while not shown and len(pages) < PAGES_MAX:
                target = lists.after(inference.call.target, cursor)
                inference.call = replace(inference.call, target=target)
                attempt = await self._made(state, route, backend)
                page = lists.page(attempt.body) if attempt.status == OK else None
                if attempt.error or page is None:
                    break
                hidden = await self._hidden(page.names, backend.name, inference.tenant)
                pages.append((attempt, hidden))
                cursor = page.names[-1] if page.has_more and page.names else ""
                shown = len(hidden) < len(page.names) or not cursor
            if pages and cursor:
                break
        if len(pages) == 1 and not pages[0][1]:
            state.accept(pages[0][0])
        elif pages:
            body = lists.merged([(page.body, hidden) for page, hidden in pages])
            state.accept(replace(pages[-1][0], body=body))

    def _from_cursor(self, inference: InferenceRequest) -> list[tuple[RoutePlan, Target]]:
        """Return the backends to ask, from the one that holds the object to read on after."""
        everyone = list(self._candidates(replace(inference, held_by=frozenset())))
        holders = [n for n, (_, one) in enumerate(everyone) if one.name in inference.held_by]
        return everyone[holders[0] :] if holders else everyone

    async def _hidden(self, names: tuple[str, ...], backend: str, tenant: str) -> set[str]:
        """Return the objects on a backend's page that a tenant may not see; note the others."""
        hidden = set()
        for name in names:
            owner = await self._objects.owner(name)
            if self.is_shared() and owner != Owner(backend, tenant):
                hidden.add(name)
            elif owner is None:
                self._objects.created(name, backend, "")
        return hidden
