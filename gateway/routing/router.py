"""The path of a request, from its features to its journal rows: all control flow is here.

    features -> quotes of the available backends -> feasible arms -> the policy draws
    -> reserve (all scopes or none) -> call -> settle -> in a cascade: accept, or draw again
    -> journal, metrics

When a budget refuses an arm, the arm is dropped and the policy draws again. If the only money left
is reserved by other calls, the request waits for it. After a failure the route's fallback chain is
tried in order. Each fallback makes its own reservation, and the policy never learns from it as if
it had drawn it. An accuracy floor degrades; it never causes an outage.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random

from tollway.gateway.budgets.model import NANO, BudgetRefusal
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.features.reply_features import with_reply
from tollway.gateway.routing import refusals
from tollway.gateway.routing.arrivals import Arrivals
from tollway.gateway.routing.attempts import Attempts
from tollway.gateway.routing.backend import NO_PAYLOAD, Backend
from tollway.gateway.routing.capabilities import left_out, no_larger
from tollway.gateway.routing.observer import Observer
from tollway.gateway.routing.records import rows
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import (
    STATIC_RESPONSE,
    Attempt,
    Decision,
    RequestState,
    static_attempt,
)
from tollway.gateway.storage.journal import Journal
from tollway.policies.types import ACCEPT, Arm, Context

OK = 200
TOO_MANY = 429
TOO_LONG = frozenset((400, 413, 422))  # if the error says so as well: see `outgrows`
RECENT = 20  # ids of the latest decisions, kept for people to inspect


class Router:
    """Takes each request through the path above."""

    def __init__(
        self,
        attempts: Attempts,
        wallet: Reservations,
        journal: Journal,
        metrics: Observer,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
    ) -> None:
        """`clock` is monotonic and is the clock of the deadlines; `wall` is the time of day."""
        self._wallet = wallet
        self._journal = journal
        self._metrics = metrics
        self._attempts = attempts
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self.recent: deque[str] = deque(maxlen=RECENT)
        self.arrivals = Arrivals()

    async def answer(self, inference: InferenceRequest) -> RequestState:
        """Return the finished request state, with the reply in `held`.

        Raises RequestRefused if no backend may or can answer. If the client disconnects, the calls
        in progress are cancelled and settled, no more are started, and the state that is returned
        may have no reply.
        """
        first = self._scoped(inference, inference.route.features(inference.call))
        lacking = left_out(inference) if inference.route.is_limited else {}
        state = RequestState(inference, first, left_out=lacking)
        attempts = self._attempts
        if inference.trace is not None:
            inference.trace.state = state
        inference.route.fallbacks.earn()
        inference.route.inputs.see(first.dense)
        try:
            while state.stage < inference.route.stages:
                arms = self._offers(state)
                backend = self._draw(state, arms) if arms else self._backend_to_await(state)
                if backend is None:
                    break  # no backend is left, or the policy accepts the current reply
                hold = attempts.reserve_now(state, backend) or await attempts.reserve(
                    state, backend, wait=not arms
                )
                if isinstance(hold, BudgetRefusal):
                    state.refusals[backend.name] = hold
                    state.waited = not arms and hold.reason == "held"
                    continue
                state.refusals.pop(backend.name, None)
                attempt = await (
                    attempts.ask(state, backend, hold)
                    if inference.route.hedge is None
                    else attempts.hedged(state, backend, hold, inference.route.hedge)
                )
                failed = attempt.outcome.error or (
                    state.held is not None and state.passes_over(attempt)
                )
                if failed or (attempt.status in TOO_LONG and outgrows(state, attempt)):
                    await self._fall_back(state)
                    break
                state.accept(attempt)
                if not inference.route.cascade or attempt.status != OK:
                    break
                state.context = with_reply(first, state.replies, state.draws[-1].choice)
            if state.held is None:
                self._static_response(state)
            if state.held is None:
                pass_on(state)
        except asyncio.CancelledError:
            if not inference.left:
                raise
            cancelled = asyncio.current_task()
            assert cancelled is not None
            cancelled.uncancel()
        finally:
            self._record(state)
        if state.held is None and not inference.left:
            raise self._refusal(state)
        return state

    def _scoped(self, inference: InferenceRequest, context: Context) -> Context:
        """Add the scopes of budgets that may pace this request but not the whole route."""
        route = inference.route
        scopes = self._wallet.pacing(inference.tenant, route.name, inference.tags)
        if not scopes:
            return context
        return Context(context.dense, context.sparse, scopes=scopes)

    def _offers(self, state: RequestState) -> list[Arm]:
        """Quote the backends that are available and not yet ruled out.

        In a cascade, only those more expensive than the backend of the current reply.
        """
        route, now_s = state.inference.route, self._clock()
        held, closed = state.held, state.closed
        arms = [Arm(ACCEPT, 0.0)] if held else []
        for backend in route.backends.values():
            if backend.name in closed or not backend.allows(now_s, state.inference.caller):
                continue
            if backend.full:
                state.saturated = True
                continue
            quote = state.quotes.get(backend.name) or self._attempts.quote(state, backend, now_s)
            above = held is None or quote.expected_nano > held.quote.expected_nano
            if above and state.affords(quote):
                arms.append(Arm(backend.name, quote.expected_nano / NANO, backend.declared_quality))
        arms = self._downgraded(state, arms)
        if state.refusals:
            arms = left_over(state, arms)
        return [] if held and len(arms) == 1 else arms

    def _downgraded(self, state: RequestState, arms: list[Arm]) -> list[Arm]:
        """Drop the arms that budgets near their limit exclude.

        If that leaves none, return the arms that the downgrade advice names instead.
        """
        if not self._wallet.downgrades:
            return arms
        kept, then = [], ""
        for arm in arms:
            advice = self._wallet.advice(
                self._attempts.accounts(state, arm.name) if arm.name in state.quotes else ()
            )
            if advice.max_price_usd is None or arm.cost_usd <= advice.max_price_usd:
                kept.append(arm)
            else:
                then = advice.then
        if kept or not arms:
            return kept
        state.downgraded = True
        if then == "cheapest":
            return [min(arms, key=lambda arm: arm.cost_usd)]
        kinds = state.inference.route.backends
        return [arm for arm in arms if then == "rules" and kinds[arm.name].kind == "rules"]

    def _draw(self, state: RequestState, arms: list[Arm]) -> Backend | None:
        """Have the policy draw a backend; None if it accepts the current reply."""
        route = state.inference.route
        choice = route.policy.choose(state.context, arms, self._rng, state.inference.floor)
        redrawn = bool(state.refusals) and state.draws[-1].stage == state.stage
        state.draws.append(Decision(state.stage, state.context, choice, redrawn))
        state.reason = choice.reason
        return None if choice.arm == ACCEPT else route.backends[choice.arm]

    @staticmethod
    def _backend_to_await(state: RequestState) -> Backend | None:
        """Return the backend to wait for if the money for every candidate is held by other calls.

        If that money turns out to be spent, the request waits for the next backend.
        """
        name = state.awaited
        return None if name is None else state.inference.route.backends[name]

    async def _fall_back(self, state: RequestState) -> None:
        """Try the fallback chain or, without one, the policy's next best arm once.

        If a reply is held already, or the route has no fallback, keep what there is.
        """
        route = state.inference.route
        state.reason = "escalation_failed" if state.held else "failed"
        if state.held or not route.fallback:
            return
        below = self._below(state)
        for backend in below:
            if backend.name in state.closed or not backend.allows(
                self._clock(), state.inference.caller
            ):
                continue
            if backend.full:
                continue
            quote = state.quotes.get(backend.name) or self._attempts.quote(state, backend)
            if not state.affords(quote):
                continue
            if not backend.is_local and not route.fallbacks.retry():
                continue
            last = backend is below[-1] or not route.fallbacks.chain
            hold = await self._attempts.reserve(state, backend, wait=last)
            if isinstance(hold, BudgetRefusal):
                state.refusals[backend.name] = hold
                continue
            attempt = await self._attempts.ask(state, backend, hold, fallback=True)
            if not (attempt.error or outgrows(state, attempt)):
                state.accept(attempt)
                state.reason = "fallback"
                return
            if not route.fallbacks.chain:
                return

    def _below(self, state: RequestState) -> list[Backend]:
        """Return the backends to try after a failure, in order."""
        route, choice = state.inference.route, state.draws[-1].choice
        chain = route.fallbacks.chain
        if not chain:
            ranked = sorted(zip(choice.pmf, choice.arms, strict=True), reverse=True)
            chain = tuple([arm for _, arm in ranked])
        elif state.downgraded:  # arms that a downgrade excluded stay excluded
            chain = tuple([name for name in chain if name in choice.arms])
        return [route.backends[name] for name in chain if name in route.backends]

    def _static_response(self, state: RequestState) -> None:
        """Return the route's static response if it has one and the backends are unavailable.

        It is not given if a budget or the client's own limit is the cause. No backend is called,
        nothing is charged and nothing is learned.
        """
        inference = state.inference
        fallbacks = inference.route.fallbacks
        if fallbacks.static_response is None or not state.backends_unavailable:
            return
        if inference.route.protocol.follow(inference.call.payload or NO_PAYLOAD) is not None:
            return  # a client that asked for a stream cannot read it
        fallbacks.retries.static_responses += 1
        state.reason = STATIC_RESPONSE
        state.held = static_attempt(fallbacks.static_response, self._clock())

    def _record(self, state: RequestState) -> None:
        """Record the request: journal rows, the costs that the policy learns from, and metrics."""
        is_demand = bool(state.draws) if state.held is not None else state.is_demand
        if is_demand and state.context.scopes:
            bound = state.inference.route.bound
            for scope in state.context.scopes:
                bound[scope] += 1
        if state.draws:
            state.id = self._journal.new_id()
            self._journal.record(state.id, partial(rows, state, self._wall()))
            self.recent.append(state.id)
            state.inference.route.traffic.count(state.inference.tenant)
            charge(state)
        if is_demand:
            self.arrivals.count(state.inference.route.name)
        self._metrics.request(state, self._clock())

    def _refusal(self, state: RequestState) -> refusals.RequestRefused:
        """Build the refusal and attach the decision id and the cost already incurred."""
        refused = self._reason(state)
        if state.id:
            refused.decision = state.id
        refused.cost_nano = state.cost_nano
        return refused

    def _reason(self, state: RequestState) -> refusals.RequestRefused:  # noqa: PLR0911 - a table of reasons
        route = state.inference.route.name
        if (refusal := state.refusal) is not None:
            return refusals.over_budget(refusal)
        if self._clock() >= state.inference.deadline_s:
            return refusals.deadline(route)
        if state.overloaded:
            return refusals.overloaded(f"every backend of route {route!r}")
        keyless = state.inference.route.keyless()
        if state.failed.keys() - keyless.keys():
            return refusals.all_failed(route, {**keyless, **state.failed})
        if keyless and (state.failed or not state.quotes):
            return refusals.credential_rejected(route, {**keyless, **state.failed})
        if state.downgraded:
            return refusals.downgraded(route)
        if state.is_beyond_all:
            return refusals.beyond_all(route, state.left_out)
        if state.quotes:
            return refusals.cost_ceiling(route, state.inference.cost_nano_max or 0)
        if rest_s := state.rest_s(self._clock()):
            return refusals.resting(route, rest_s)
        return refusals.no_backend(route, "their circuit breakers are open")


def outgrows(state: RequestState, attempt: Attempt) -> bool:
    """Whether a backend refused the request as too long and a larger context may still take it.

    Backends whose context is no larger are excluded from then on.
    """
    route = state.inference.route
    if (
        attempt.status not in TOO_LONG
        or attempt.error
        or state.held is not None
        or not route.fallback
        or not route.protocol.outgrown(attempt.body)
    ):
        return False
    state.left_out |= no_larger(route.backends, attempt.backend)
    return not state.closed >= set(route.backends)


def left_over(state: RequestState, arms: list[Arm]) -> list[Arm]:
    """Return the arms to offer once a budget is exhausted: the cheapest, or none if it rejects.

    Money that other calls merely hold does not restrict the choice among the other arms.
    """
    spent = [one for one in state.refusals.values() if one.reason == "exhausted"]
    if not spent:
        return arms
    if any(one.on_exhausted == "reject" for one in spent):
        return []
    others = [arm for arm in arms if arm.name != ACCEPT]
    cheapest = min(others, key=lambda arm: arm.cost_usd, default=None)
    return [arm for arm in arms if arm.name == ACCEPT or arm is cheapest]


def pass_on(state: RequestState) -> None:
    """Return a backend's error reply (status, body, headers) if no backend succeeded.

    The last such reply is used, except that a 429 takes precedence: it says when to retry.
    """
    replied = [attempt for attempt in state.attempts if attempt.is_telling]
    if replied:
        slowed = [attempt for attempt in replied if attempt.status == TOO_MANY]
        state.accept((slowed or replied)[-1])


def charge(state: RequestState) -> None:
    """Report to the policy the cost of each draw (accepting a reply costs nothing more)."""
    policy = state.inference.route.policy
    for draw in state.draws:
        asked = [attempt for attempt in state.attempts if attempt.backend == draw.choice.arm]
        if asked and asked[-1].relay is not None:
            continue  # reported when the stream ends
        cost_nano = sum([attempt.outcome.cost_nano for attempt in asked])
        policy.charge(draw.choice, cost_nano / NANO)
