"""Calls that the gateway makes for itself while a request waits: of an embedder or a verifier.

Each is reserved in all matching budgets, charged, journalled and counted like any attempt, marked
as an audit of its signal, because no client asked for it. A request never fails by one: it goes on
without, if the backend fails or is too slow, if it is down or busy, or if a budget refuses.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from tollway.backends.errors import BadRequest
from tollway.backends.price import Price
from tollway.backends.types import Call
from tollway.gateway.budgets.model import BudgetRefusal
from tollway.gateway.routing.attempts import Attempts
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.reserving import Reserving
from tollway.gateway.routing.router import quote
from tollway.gateway.routing.sinks.records import audit_row
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.journal_format import Row
from tollway.policies.types import Context

_HEADERS = [(b"content-type", b"application/json"), (b"accept", b"application/json")]


class OwnCalls:
    """Calls one backend for the requests of one route."""

    def __init__(  # noqa: PLR0917 - who asks, whom, and at what price
        self,
        reserving: Reserving,
        attempts: Attempts,
        journal: Journal,
        plan: RoutePlan,
        backend: str,
        price: Callable[[], Price],
        *,
        timeout_s: float,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`plan`: the backend's own, by whose protocol it is called; `price`: the one in force."""
        self._reserving = reserving
        self._attempts = attempts
        self._journal = journal
        self._plan = plan
        self._backend = backend
        self._price = price
        self._timeout_s = timeout_s
        self._clock = clock
        self._wall = wall

    def prepared(
        self, inference: InferenceRequest, path: bytes, document: Mapping[str, Any]
    ) -> RequestState | None:
        """Return the state of a call for a request; None if it may not be made now."""
        now_s = self._clock()
        self._plan.reprice(self._backend, self._price())
        target = self._plan.backends[self._backend]
        slots = target.slots
        if not target.allows(now_s, inference.caller):
            return None
        if slots is not None and slots.busy >= slots.limit:
            return None
        body = orjson.dumps({"model": target.model or "any", **document})
        call = Call(b"POST", path, list(_HEADERS), body, tenant=inference.tenant)
        call.caller = inference.call.caller
        try:
            call.payload = self._plan.protocol.parse(call)
        except BadRequest:
            return None
        own = replace(
            inference,
            route=self._plan,
            call=call,
            received_s=now_s,
            deadline_s=min(inference.deadline_s, now_s + self._timeout_s),
            floor=None,
            cost_nano_max=None,
            trace=None,
            client=None,
            memory=None,
            joined=None,
            cached=None,
            head=None,
            own_calls=[],
        )
        return RequestState(own, Context(()))

    async def made(self, own: RequestState) -> Attempt | None:
        """Make the call; None if no budget pays for it, or it failed."""
        target = self._plan.backends[self._backend]
        quote(own, target, own.inference.received_s)
        hold = await self._reserving.reserve(own, target)
        if isinstance(hold, BudgetRefusal):
            return None
        attempt = await self._attempts.make(own, target, hold, audit=1.0)
        return None if attempt.error or attempt.status != 200 else attempt


def write(journal: Journal, own: RequestState, signal: str, decision: str, time_s: float) -> None:
    """Journal a call, with the other rows of its request if that has a `decision`."""
    if not own.attempts:
        return
    own.id = decision or journal.new_id()
    made = partial(_rows, own, signal, time_s)
    if decision:
        journal.append(*made())
    else:
        journal.record(own.id, made)


def _rows(own: RequestState, signal: str, time_s: float) -> list[Row]:
    return [{**audit_row(own, one, time_s), "signal": signal} for one in own.attempts]
