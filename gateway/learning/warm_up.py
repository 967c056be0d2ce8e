"""Warm-up: asks all backends of a route the same request, so that a policy starts with evidence.

A bandit sees one answer to a request. Here every backend answers, each in an attempt of its own
that is reserved, settled, journalled and counted like any other. What the answers are worth comes
later as feedback, with a quality for each backend. In the journal a warm-up is a decision with a
draw for each arm, of reason WARM_UP; no replay estimates from it and no floor counts it. So labels
of warm-ups reach the learning worker, survive a restart and are relearned as all others.

Qualities that are known already, from a table or another journal, need no calls: see `record`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import orjson

from tollway.backends.errors import BadRequest
from tollway.backends.money import to_usd
from tollway.backends.types import Call, ModelAnswer
from tollway.gateway.budgets.model import BudgetRefusal
from tollway.gateway.features.reply_features import with_reply
from tollway.gateway.routing.attempts import Attempts
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import Attempt, Decision, RequestState
from tollway.gateway.routing.reserving import Reserving
from tollway.gateway.routing.router import quote
from tollway.gateway.routing.sinks.records import rows
from tollway.gateway.storage.journal import Journal
from tollway.policies.types import ACCEPT, WARM_UP, Arm, Choice, Context

CONCURRENT_MAX = 8  # requests asked of all backends at once; clients need the rest of the slots
QUOTED_MAX = 100  # requests per estimate
FEATURES_MAX = 2048  # of a context that is given, numbers and sparse features each
_JSON = [(b"content-type", b"application/json")]


class WarmUps:
    """Runs the warm-ups of all routes."""

    # The mutable state is how many are under way.

    def __init__(
        self,
        reserving: Reserving,
        attempts: Attempts,
        journal: Journal,
        *,
        backends: Callable[[], Mapping[str, Target]],
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
        tags: Mapping[str, str],
        declare: Callable[[str, Collection[str]], None],
        embed: Callable[[InferenceRequest], Awaitable[tuple[float, ...]]],
    ) -> None:
        """`backends` returns all backends, which include judges that are on no route.

        `tags`: those of all calls, such as the environment. `declare` makes the metrics know
        backends that are asked on a route which does not have them. `embed` returns a request's
        embedding by a backend, if its route has one.
        """
        self._declare = declare
        self._embed = embed
        self._tags = tags
        self._reserving = reserving
        self._attempts = attempts
        self._journal = journal
        self._backends = backends
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._slots = asyncio.Semaphore(CONCURRENT_MAX)

    def estimate(
        self,
        route: RoutePlan,
        path: str,
        documents: Sequence[Any],
        tenant: str,
        among: Sequence[str],
    ) -> dict[str, dict[str, int]]:
        """Return per backend what requests are expected to cost, and at most, in nano-dollars."""
        plan = self._plan(route, among)
        sums = {name: {"expected_nano": 0, "ceiling_nano": 0} for name in among or plan.backends}
        for document in documents[:QUOTED_MAX]:
            state = self._state(plan, path, document, tenant)
            for name, total in sums.items():
                quoted = quote(state, plan.backends[name], self._clock())
                total["expected_nano"] += quoted.expected_nano
                total["ceiling_nano"] += quoted.ceiling_nano
        return sums

    async def ask(
        self, route: RoutePlan, path: str, document: Any, tenant: str, among: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Ask the backends `among`, by default all of the route; return their replies.

        Only a warm-up of the whole route can be labelled: that of a judge has no decision.
        BadRequest if the request is not of the route's protocol or asks for a stream.
        """
        plan = self._plan(route, among)
        state = self._state(plan, path, document, tenant)
        await self._embedded(state)
        replies = []
        async with self._slots:
            try:
                for name in among or plan.backends:
                    replies.append(await self._asked(state, plan.backends[name]))
            finally:
                if state.inference.memory is not None:
                    state.inference.memory.close()
                if not among:
                    state.draws = self._draws(state)
                if state.attempts:
                    state.id = self._journal.new_id()
                    self._journal.record(state.id, partial(rows, state, self._wall()))
        decision = state.id if state.draws else ""
        return {"decision": decision, "cost_nano": state.cost_nano, "replies": replies}

    async def _embedded(self, state: RequestState) -> None:
        """Add the embedding to a request's context, if its route has a backend for it."""
        inference = state.inference
        if inference.route.embeds:
            numbers = await self._embed(inference)
            state.context = inference.route.features(inference.call, None, numbers)

    async def record(
        self,
        route: RoutePlan,
        path: str,
        given: Mapping[str, Any],
        arms: Sequence[str],
        tenant: str,
    ) -> str:
        """Journal a request whose qualities are known, and return the id of its decision.

        `given` has the `request`, or its `context` as another journal has it. BadRequest if neither
        fits the route.
        """
        if "context" in given:
            state = self._state(route, path, {"model": "m", "messages": [{}]}, tenant, free=True)
            state.context = _context(given["context"])
            if not route.features.fits(state.context.dense, more=route.online is not None):
                count = len(state.context.dense)
                raise BadRequest(f"context has {count} numbers in `dense`, unlike the route's own")
        else:
            state = self._state(route, path, given.get("request"), tenant)
            await self._embedded(state)
        state.draws = self._draws(state, only=arms)
        state.id = self._journal.new_id()
        self._journal.record(state.id, partial(rows, state, self._wall()))
        return state.id

    def _plan(self, route: RoutePlan, among: Sequence[str]) -> RoutePlan:
        """Return a route with the backends that are to be asked, such as a judge."""
        others = {name: self._backends()[name] for name in among if name not in route.backends}
        if others:
            self._declare(route.name, others)
        return replace(route, backends={**route.backends, **others}) if others else route

    def _state(
        self, route: RoutePlan, path: str, document: Any, tenant: str, *, free: bool = False
    ) -> RequestState:
        call = Call(b"POST", path.encode(), list(_JSON), orjson.dumps(document))
        call.tenant = tenant
        if not free:
            call.payload = route.protocol.parse(call)
            if route.protocol.streams(call.payload):
                raise BadRequest("a warm-up cannot stream; leave out `stream`")
        now_s = self._clock()
        inference = InferenceRequest(route, tenant, call, now_s, now_s + route.timeout_s)
        inference.tags = dict(self._tags)
        return RequestState(inference, Context(()) if free else route.features(call))

    async def _asked(self, state: RequestState, backend: Target) -> dict[str, Any]:
        """Return a backend's reply, or why there is none."""
        reply: dict[str, Any] = {"backend": backend.name, "cost_nano": 0, "error": ""}
        now_s = self._clock()
        if not backend.allows(now_s):
            return {**reply, "error": "it is out of service"}
        state.inference.deadline_s = now_s + state.inference.route.timeout_s
        quote(state, backend, now_s)
        hold = await self._reserving.reserve(state, backend)
        if isinstance(hold, BudgetRefusal):
            return {**reply, "error": f"budget {hold.budget}: {hold.reason}"}
        attempt = await self._attempts.make(state, backend, hold)
        outcome = attempt.outcome
        return {
            **reply,
            "status": attempt.status,
            "error": outcome.error or outcome.no_answer or _failure(attempt),
            "answer": outcome.answer.value,
            "cost_nano": outcome.cost_nano,
        }

    def _draws(self, state: RequestState, only: Sequence[str] = ()) -> list[Decision]:
        """Return a draw for each arm that answered, and in a cascade for what follows its reply."""
        plan, now_s = state.inference.route, self._clock()
        arms = []
        for backend in plan.backends.values():
            quoted = state.quotes.get(backend.name) or quote(state, backend, now_s)
            usd = to_usd(quoted.expected_nano)
            arms.append(Arm(backend.name, usd, backend.declared_quality))
        answers = {
            one.backend: one.outcome.answer
            for one in state.attempts
            if one.status == 200 and not one.error
        }
        wanted = only or answers
        choice = plan.policy.choose(state.context, arms, self._rng)
        draws = [
            Decision(0, state.context, _drawn(choice, at), redrawn=True)
            for at, name in enumerate(choice.arms)
            if name in wanted
        ]
        if plan.cascade:
            for arm in arms:
                if arm.name in answers:
                    draws += self._later(state, arms, arm, answers, choice)
        if plan.policy.resolve_due():
            plan.policy.resolve()
        return draws

    def _later(
        self,
        state: RequestState,
        arms: Sequence[Arm],
        held: Arm,
        answers: Mapping[str, ModelAnswer],
        choice: Choice,
    ) -> list[Decision]:
        """Return the draws that could follow an arm's reply: the more expensive arms."""
        plan = state.inference.route
        more = [arm for arm in arms if arm.cost_usd > held.cost_usd and arm.name in answers]
        if not more:
            return []
        context = with_reply(
            state.context,
            [(held.name, answers[held.name])],
            _drawn(choice, choice.arms.index(held.name)),
            plan.texts,
            state.inference.call.payload.data,
        )
        offered = [Arm(ACCEPT, 0.0), *more]
        later = plan.policy.choose(context, offered, self._rng)
        return [
            Decision(1, context, _drawn(later, at), redrawn=True)
            for at, name in enumerate(later.arms)
            if name != ACCEPT
        ]


def _drawn(choice: Choice, at: int) -> Choice:
    """Return a choice as if its arm `at` had been drawn, all being equally likely."""
    count = len(choice.arms)
    return replace(
        choice, index=at, pmf=(1.0 / count,) * count, reason=WARM_UP, shadow=(), guarded_by=""
    )


def _failure(attempt: Attempt) -> str:
    return "" if attempt.status == 200 else f"status {attempt.status}"


def _context(given: Any) -> Context:
    """Return a context from its document. Raises BadRequest if it is none."""
    try:
        dense = tuple(map(float, given["dense"][:FEATURES_MAX]))
        sparse = tuple((int(at), float(value)) for at, value in given["sparse"][:FEATURES_MAX])
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise BadRequest('context must be {"dense": [...], "sparse": [[index, value]]}') from exc
    if not all(0 <= at < 1 << 18 for at, _ in sparse) or not all(
        abs(value) < 1e6 for value in (*dense, *(value for _, value in sparse))
    ):
        raise BadRequest("context has an invalid feature")
    return Context(dense, sparse)
