"""The path of a request, from its features to its journal rows: all control flow is here.

    features -> quotes of the backends that are up -> feasible arms -> the policy draws
    -> reserve (all scopes or none) -> ask -> settle -> in a cascade: accept, or draw again
    -> journal, metrics

A refusal by a budget drops that arm and draws again; where all that is left is money that other
calls hold, the request waits for it. A failure goes down the route's ladder, each
rung reserved anew and never learned from as if it had been drawn. A floor degrades, it never causes
an outage.
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
TOO_LONG = frozenset((400, 413, 422))  # with an error that says so: see `outgrown`
RECENT = 20  # decisions that are kept at hand, for people to look at


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
        """`clock` is monotonic and the deadlines' own; `wall` tells the time of day."""
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
        """Return the finished turn, its reply in `held`; Refused where no backend may or can.

        Where the client leaves on the way, what is under way is given up and settled, nothing more
        is begun, and the turn is one that nobody reads.
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
                backend = self._draw(state, arms) if arms else self._awaited(state)
                if backend is None:
                    break  # nothing more to be had, or the reply in hand is good enough
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
            raise self._refused(state)
        return state

    def _scoped(self, inference: InferenceRequest, context: Context) -> Context:
        """Note which budgets may pace this request and not all of its route's."""
        route = inference.route
        scopes = self._wallet.pacing(inference.tenant, route.name, inference.tags)
        if not scopes:
            return context
        return Context(context.dense, context.sparse, scopes=scopes)

    def _offers(self, state: RequestState) -> list[Arm]:
        """Quote the backends that are up and may still be asked; in a cascade, those above."""
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
        """Leave out what budgets near their limit ask to leave out; turn to what they name then."""
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
        """Have the policy draw; None where it accepts the reply in hand."""
        route = state.inference.route
        choice = route.policy.choose(state.context, arms, self._rng, state.inference.floor)
        redrawn = bool(state.refusals) and state.draws[-1].stage == state.stage
        state.draws.append(Decision(state.stage, state.context, choice, redrawn))
        state.reason = choice.reason
        return None if choice.arm == ACCEPT else route.backends[choice.arm]

    @staticmethod
    def _awaited(state: RequestState) -> Backend | None:
        """Return the backend to wait for, where all that can answer have their money only held.

        If that turns out to be spent, the next one is waited for.
        """
        name = state.awaited
        return None if name is None else state.inference.route.backends[name]

    async def _fall_back(self, state: RequestState) -> None:
        """Ask those below: the ladder's rungs, else once the policy's next best; or keep what is
        held.
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
        """Return whom to ask after a failure, first to last."""
        route, choice = state.inference.route, state.draws[-1].choice
        chain = route.fallbacks.chain
        if not chain:
            ranked = sorted(zip(choice.pmf, choice.arms, strict=True), reverse=True)
            chain = tuple([arm for _, arm in ranked])
        elif state.downgraded:  # what a budget near its limit left out stays out
            chain = tuple([name for name in chain if name in choice.arms])
        return [route.backends[name] for name in chain if name in route.backends]

    def _static_response(self, state: RequestState) -> None:
        """Give the route's last resort, where it has one and no budget or client stands in the way:
        nobody is asked, nothing is charged, nothing is learned.
        """
        inference = state.inference
        fallbacks = inference.route.fallbacks
        if fallbacks.static_response is None or not state.backends_unavailable:
            return
        if inference.route.protocol.follow(inference.call.payload or NO_PAYLOAD) is not None:
            return  # who asks for a stream cannot read it
        fallbacks.retries.static_responses += 1
        state.reason = STATIC_RESPONSE
        state.held = static_attempt(fallbacks.static_response, self._clock())

    def _record(self, state: RequestState) -> None:
        """Write the turn down: rows in the journal, what it cost for the policy, the metrics."""
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

    def _refused(self, state: RequestState) -> refusals.RequestRefused:
        """Say why there is no reply, and what asking has cost all the same."""
        refused = self._why(state)
        if state.id:
            refused.decision = state.id
        refused.cost_nano = state.cost_nano
        return refused

    def _why(self, state: RequestState) -> refusals.RequestRefused:  # noqa: PLR0911 - a table of reasons
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
    """Whether a backend refused a request as too long, and one with a larger context may take it.

    Those whose context is no larger are left out from then on.
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
    """Return the arms that are offered once a budget is spent: the cheapest, or none where it says
    so. Money that is only held leaves the choice among the others as it is.
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
    """Give the client what a backend replied, where none had anything better: its status, body and
    fields. Of several the last, but a 429 before all others: it says when to ask again.
    """
    replied = [attempt for attempt in state.attempts if attempt.is_telling]
    if replied:
        slowed = [attempt for attempt in replied if attempt.status == TOO_MANY]
        state.accept((slowed or replied)[-1])


def charge(state: RequestState) -> None:
    """Tell the policy what each of its draws has cost (an accepted reply costs nothing more)."""
    policy = state.inference.route.policy
    for draw in state.draws:
        asked = [attempt for attempt in state.attempts if attempt.backend == draw.choice.arm]
        if asked and asked[-1].relay is not None:
            continue  # it is told when the stream is over
        cost_nano = sum([attempt.outcome.cost_nano for attempt in asked])
        policy.charge(draw.choice, cost_nano / NANO)
