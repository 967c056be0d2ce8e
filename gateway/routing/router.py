"""The router: decides what a request does next. It performs no I/O and reads no clock.

    next(state) -> Ask | Accept | Static | Refuse

`Ask` is answered by `denied` (a budget refused the money), or by `reserved` and then `answered`
(the call has ended, well or badly). The driver does the I/O in between; a test can do its part.

    phase     candidates                            after a failure     after a reply
    DRAW      arms that the policy draws from       FALL_BACK           ENDED; in a cascade, DRAW
    AGAIN     the backend whose connection closed   as before it        as before it
    FALL_BACK the fallback chain or, without one,   the next, or ENDED  ENDED
              the policy's next best arm
    ENDED     none

All candidates pass the same filter. When a budget refuses an arm, the arm is dropped and the policy
draws again. If the only money left is reserved by other calls, the request waits for it. Each
fallback makes its own reservation, and the policy never learns from it as if it had drawn it. An
accuracy floor degrades; it never causes an outage.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from random import Random

from tollway.backends.http.connection import CLOSED
from tollway.backends.money import NANO_PER_USD
from tollway.gateway.budgets.model import BudgetRefusal
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.estimation.prompt_cache import prompt
from tollway.gateway.features.reply_features import with_reply
from tollway.gateway.routing import refusals
from tollway.gateway.routing.capabilities import elsewhere, left_out, no_larger
from tollway.gateway.routing.metering import NO_ANSWER, PENDING
from tollway.gateway.routing.plan import TOO_MANY, Target
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import (
    AGAIN,
    DRAW,
    ENDED,
    FALL_BACK,
    STATIC_RESPONSE,
    Attempt,
    Decision,
    RequestState,
    static_attempt,
)
from tollway.policies.types import ACCEPT, Arm, Context
from tollway.record import record

OK = 200
TOO_LONG = frozenset((400, 413, 422))  # if the error says so as well: see `outgrows`


@record
class Ask:
    """Reserve money for a call to a backend, and make the call.

    `wait`: wait for money that other calls hold. `fallback`: the policy did not draw it.
    """

    backend: Target
    wait: bool = False
    fallback: bool = False


@record
class Accept:
    """Send this attempt's reply to the client."""

    attempt: Attempt


@record
class Static:
    """Send the route's static response to the client."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse the request."""

    reason: refusals.RequestRefused


Step = Ask | Accept | Static | Refuse


class Router:
    """Decides the steps of requests; the state of a request is its `RequestState`."""

    def __init__(self, reservations: Reservations, *, rng: Random) -> None:
        """`reservations` tells which budgets match a call and what they advise; `rng` draws."""
        self._reservations = reservations
        self.rng = rng

    def begin(self, inference: InferenceRequest) -> RequestState:
        """Return the state of a new request."""
        route = inference.route
        context = route.features(inference.call, inference.joined, inference.embedding)
        scopes = self._reservations.pacing(inference.tenant, route.name, inference.tags)
        if scopes:  # budgets that may pace this request but not the whole route
            context = Context(context.dense, context.sparse, scopes=scopes)
        if route.sticky is not None:
            context = replace(context, unit=route.sticky(inference))
        if inference.cached is not None and inference.cached.lost:
            context = replace(context, fresh=True)
        state = RequestState(inference, context)
        if route.is_limited:
            state.left_out = left_out(inference)
        if inference.held_by:
            state.left_out |= elsewhere(inference)
        if inference.cached is not None and inference.cached.only:
            state.left_out |= dict.fromkeys(route.backends, "joined")
        if inference.trace is not None:
            inference.trace.state = state
        route.retries.earn(inference.tenant)
        route.inputs.see(context.dense, inference.tenant)
        return state

    def next(self, state: RequestState, now_s: float) -> Step:
        """Return what the request does next; `now_s` is on the clock of the deadlines."""
        phase = state.phase
        ask: Ask | None = None
        if phase == DRAW:
            ask = self._draw(state, now_s)
        elif phase == FALL_BACK:
            ask = self._fall_back(state, now_s)
        elif phase == AGAIN:
            assert state.failed_once is not None
            before = state.failed_once
            ask = Ask(state.backends[before.backend], fallback=before.fallback)
        if ask is not None:
            return ask
        state.phase = ENDED
        return self._end(state, now_s)

    def reserved(self, state: RequestState, ask: Ask) -> float | None:
        """Note that the money is reserved; return the seconds after which to hedge the call.

        None if the call is not to be hedged.
        """
        if state.refusals and not ask.fallback:
            state.refusals.pop(ask.backend.name, None)
        hedge = state.inference.route.hedge
        if hedge is None:
            return None
        state.hedged = False
        if ask.fallback or state.phase == AGAIN:
            return None
        hedge.earn(state.inference.tenant)
        wait_s = None
        if is_hedgeable(state, ask.backend):
            wait_s = hedge.wait_s(ask.backend.name, state.inference.tenant)
        state.hedged = wait_s is not None
        return wait_s

    def denied(self, state: RequestState, ask: Ask, refusal: BudgetRefusal) -> None:
        """Note that a budget refused the money for a call."""
        if state.phase == AGAIN:
            assert state.failed_once is not None
            self._conclude(state, state.failed_once)
            return
        state.refusals[ask.backend.name] = refusal
        if not ask.fallback:
            state.waited = ask.wait and refusal.reason == "held"

    def answered(self, state: RequestState, ask: Ask, attempt: Attempt) -> None:
        """Note how a call ended; of a hedged call, the attempt that won."""
        if state.inference.route.hedge is not None:
            note_latency(state, ask, attempt)
        if state.phase == AGAIN:
            if not attempt.outcome.error:
                state.failed.pop(ask.backend.name, None)
            self._conclude(state, attempt)
        elif (
            attempt.outcome.error == CLOSED
            and ask.backend.repeat_on_close
            and not state.hedged
            and state.affords(attempt.quote)
        ):  # a reused connection was lost: the call may have run and is charged, and is repeated
            state.failed_once = attempt
            state.phase = AGAIN
        elif attempt.outcome.error and has_another_key(state, ask.backend, attempt):
            state.failed_once = attempt
            state.phase = AGAIN
        elif ask.fallback:
            self._after_fallback(state, attempt)
        else:
            self._after_draw(state, attempt)

    def may_hedge(self, state: RequestState, backend: Target) -> bool:
        """Return whether a second call may be made while the first is in progress."""
        quote = state.quotes[backend.name]
        full = backend.slots is not None and backend.slots.is_full(state.inference.tenant)
        return not full and backend.up and state.affords(quote, times=2)

    # -- transitions

    def _conclude(self, state: RequestState, attempt: Attempt) -> None:
        """Go on from a repeated call, or from the first one if it may not be repeated."""
        state.failed_once = None
        if attempt.fallback:
            state.phase = FALL_BACK
            self._after_fallback(state, attempt)
        else:
            state.phase = DRAW
            self._after_draw(state, attempt)

    def _after_draw(self, state: RequestState, attempt: Attempt) -> None:
        route = state.inference.route
        failed = attempt.outcome.error or (state.held is not None and state.passes_over(attempt))
        if failed or (attempt.status in TOO_LONG and outgrows(state, attempt)):
            self._begin_fallback(state)
            return
        state.accept(attempt)
        outcome = attempt.outcome
        cached = state.inference.cached
        if (
            not route.cascade
            or (cached is not None and attempt.backend == cached.arm.name)  # it was accepted before
            or attempt.status != OK
            or (outcome.provenance == PENDING and outcome.answer is NO_ANSWER)
        ):  # nothing is known of a stream that is not held back
            state.phase = ENDED
            return
        first = state.draws[0].context
        document = state.inference.call.payload.data
        state.context = with_reply(
            first, state.replies, state.draws[-1].choice, route.texts, document, state.verified
        )

    def _begin_fallback(self, state: RequestState) -> None:
        """Go down the fallback chain; keep what there is if there is a reply or no chain."""
        state.reason = "escalation_failed" if state.held else "failed"
        if state.held or not state.inference.route.fallback:
            state.phase = ENDED
            return
        state.phase = FALL_BACK
        state.below = below(state)

    def _after_fallback(self, state: RequestState, attempt: Attempt) -> None:
        if not (attempt.error or outgrows(state, attempt)):
            state.accept(attempt)
            state.reason = "fallback"
            state.phase = ENDED
        elif not state.inference.route.fallbacks.chain:  # the next best arm is tried once
            state.phase = ENDED

    # -- candidates

    def _candidate(
        self, state: RequestState, backend: Target, closed: AbstractSet[str], now_s: float
    ) -> Quote | None:
        """Return the quote of a backend that this request may call now; else None."""
        name = backend.name
        if name in closed:
            return None
        # What follows is spelled out, without calls where nothing is wrong: most requests meet
        # only healthy backends with free slots, and a call takes as long as these conditions.
        breaker, slots = backend.breaker, backend.slots
        doubtful = breaker.is_open or breaker.suspicions.callers or now_s < backend.rest.until_s
        if (doubtful or backend.credential is not None) and not backend.allows(
            now_s, state.inference.caller
        ):
            return None
        if slots is not None and slots.busy and slots.is_full(state.inference.tenant):
            state.saturated = True
            return None
        quotes, quoted = state.quotes, backend.fixed
        if quoted is not None:
            quotes[name] = quoted
        else:
            quoted = quotes[name] if name in quotes else quote(state, backend, now_s)
        held = state.held
        if held is not None and quoted.expected_nano <= held.quote.expected_nano:
            return None  # in a cascade, only those more expensive than that of the current reply
        if state.inference.cost_nano_max is not None and not state.affords(quoted):
            return None
        return quoted

    def _draw(self, state: RequestState, now_s: float) -> Ask | None:
        """Have the policy draw a backend; None if none is left, or it accepts the reply."""
        inference = state.inference
        route = inference.route
        if state.stage >= route.stages:
            return None
        arms = self._offers(state, now_s)
        if not arms:
            awaited = state.awaited
            return None if awaited is None else Ask(state.backends[awaited], wait=True)
        choice = route.policy.choose(state.context, arms, self.rng, inference.floor)
        redrawn = bool(state.refusals) and state.draws[-1].stage == state.stage
        state.draws.append(Decision(state.stage, state.context, choice, redrawn))
        state.reason = choice.reason
        arm = choice.arm
        return None if arm == ACCEPT else Ask(state.backends[arm])

    def _offers(self, state: RequestState, now_s: float) -> list[Arm]:
        """Return the arms that the policy may draw, and in a cascade the current reply."""
        held, closed = state.held, state.closed
        arms = [Arm(ACCEPT, 0.0)] if held else []
        used_up: list[str] = []
        for backend in state.backends.values():
            candidate = self._candidate(state, backend, closed, now_s)
            if candidate is not None:
                expected_usd = candidate.expected_nano / NANO_PER_USD
                if backend.start is not None:
                    expected_usd += backend.start.surcharge_usd
                arms.append(Arm(backend.name, expected_usd, backend.declared_quality))
                announced = backend.announced
                if announced is not None and now_s < announced.until_s:
                    used_up.append(backend.name)
        if used_up:
            arms = with_room(state, arms, used_up)
        if self._reservations.downgrades:
            arms = self._downgraded(state, arms)
        if state.refusals:
            arms = left_over(state, arms)
        return [] if held and len(arms) == 1 else arms

    def _downgraded(self, state: RequestState, arms: list[Arm]) -> list[Arm]:
        """Drop the arms that budgets near their limit exclude.

        If that leaves none, return the arms that the downgrade advice names instead.
        """
        inference = state.inference
        cheap, then = [], ""
        for arm in arms:
            accounts = (
                self._reservations.matching(
                    inference.tenant, inference.route.name, arm.name, inference.tags
                )
                if arm.name in state.quotes
                else ()
            )
            advice = self._reservations.advice(accounts)
            if advice.max_price_usd is None or arm.cost_usd <= advice.max_price_usd:
                cheap.append(arm)
            else:
                then = advice.then
        if cheap or not arms:
            return cheap
        state.downgraded = True
        if then == "cheapest":
            return [min(arms, key=lambda arm: arm.cost_usd)]
        kinds = state.backends
        return [arm for arm in arms if then == "rules" and kinds[arm.name].kind == "rules"]

    def _fall_back(self, state: RequestState, now_s: float) -> Ask | None:
        """Return the next fallback that may be asked; None if none is left."""
        route = state.inference.route
        while state.below:
            backend, *state.below = state.below
            if self._candidate(state, backend, state.closed, now_s) is None:
                continue
            if backend.is_local or route.retries.take(state.inference.tenant):
                last = not state.below or not route.fallbacks.chain
                return Ask(backend, wait=last, fallback=True)
        return None

    # -- ends

    def _end(self, state: RequestState, now_s: float) -> Step:
        """Return the last step of a request."""
        if state.held is None:
            body = static_response(state)
            if body is not None:
                state.inference.route.state.retries.static_responses += 1
                state.reason = STATIC_RESPONSE
                state.held = static_attempt(body, now_s)
                return Static(state.held)
            pass_on(state)
        return Refuse(reason(state, now_s)) if state.held is None else Accept(state.held)


def quote(state: RequestState, backend: Target, now_s: float) -> Quote:
    """Quote a backend for a request."""
    inference = state.inference
    cache, cached = backend.cache, None
    if cache is not None:
        if state.prompt is None:
            parts = inference.route.protocol.prompt(inference.call.payload)
            state.prompt = prompt(parts, inference.tenant)
        cached = cache.expects(state.prompt, now_s)
    known = state.known
    if backend.timeout_s not in known:
        known[backend.timeout_s] = backend.known(inference.call)
    quoted = state.quotes[backend.name] = inference.route.estimator.quote(
        state.context,
        backend.name,
        backend.price,
        known[backend.timeout_s],
        cached,
        tenant=inference.tenant,
        now_s=now_s,
    )
    return quoted


def has_another_key(state: RequestState, backend: Target, attempt: Attempt) -> bool:
    """Whether a call failed because of its key, and another key may be used."""
    if not backend.keys or state.hedged:
        return False
    about_key = attempt.outcome.refuses_key or attempt.status == TOO_MANY
    return about_key and backend.allows(attempt.ended_s, state.inference.caller)


def is_hedgeable(state: RequestState, backend: Target) -> bool:
    """Whether calls to a backend may be hedged: not rules, streams, or work in the background."""
    payload = state.inference.call.payload
    if backend.is_local or payload.defers:
        return False
    return backend.protocol.follow(payload) is None


def note_latency(state: RequestState, ask: Ask, attempt: Attempt) -> None:
    """Tell a route's hedging how long a call took, from the first call to its backend."""
    hedge = state.inference.route.hedge
    if hedge is None or attempt.error or ask.fallback or not is_hedgeable(state, ask.backend):
        return
    started_s = [one.started_s for one in state.attempts if one.backend == attempt.backend]
    hedge.observe(attempt.backend, attempt.ended_s - min(started_s), state.inference.tenant)


def with_room(state: RequestState, arms: list[Arm], used_up: list[str]) -> list[Arm]:
    """Drop the arms whose announced rate limits are used up, unless no other backend is left."""
    others = [arm for arm in arms if arm.name not in used_up]
    if not others or others[-1].name == ACCEPT:
        return arms
    for name in used_up:
        announced = state.backends[name].announced
        assert announced is not None
        announced.avoided += 1
    return others


def below(state: RequestState) -> list[Target]:
    """Return the backends to try after a failure, in order."""
    route, choice = state.inference.route, state.draws[-1].choice
    chain = route.fallbacks.chain
    if not chain:
        ranked = sorted(zip(choice.pmf, choice.arms, strict=True), reverse=True)
        chain = tuple([arm for _, arm in ranked])
    elif state.downgraded:  # arms that a downgrade excluded stay excluded
        chain = tuple([name for name in chain if name in choice.arms])
    return [state.backends[name] for name in chain if name in state.backends]


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


def static_response(state: RequestState) -> bytes | None:
    """Return the route's static response if it has one and the backends are unavailable.

    It is not given if a budget or the client's own limit is the cause, nor to a client that asked
    for a stream, because it could not read it. No backend is called, nothing is charged and nothing
    is learned.
    """
    inference = state.inference
    body = inference.route.fallbacks.static_response
    if body is None or not state.backends_unavailable:
        return None
    streams = inference.route.protocol.streams(inference.call.payload)
    return None if streams else body


def pass_on(state: RequestState) -> None:
    """Return a backend's error reply (status, body, headers) if no backend succeeded.

    The last such reply is used, except that a 429 takes precedence: it says when to retry.
    """
    replied = [attempt for attempt in state.attempts if attempt.is_telling]
    if replied:
        slowed = [attempt for attempt in replied if attempt.status == TOO_MANY]
        state.accept((slowed or replied)[-1])


def reason(state: RequestState, now_s: float) -> refusals.RequestRefused:  # noqa: PLR0911 - a table of reasons
    """Return why there is no reply."""
    inference = state.inference
    route = inference.route.name
    if (refusal := state.refusal) is not None:
        return refusals.over_budget(refusal)
    if now_s >= inference.deadline_s:
        return refusals.deadline(route)
    if state.overloaded:
        return refusals.overloaded(f"every backend of route {route!r}")
    keyless = inference.route.keyless()
    if state.failed.keys() - keyless.keys():
        return refusals.all_failed(route, {**keyless, **state.failed})
    if keyless and (state.failed or not state.quotes):
        return refusals.credential_rejected(route, {**keyless, **state.failed})
    if state.downgraded:
        return refusals.downgraded(route)
    if state.is_beyond_all:
        return refusals.beyond_all(route, state.left_out)
    if state.quotes:
        return refusals.cost_ceiling(route, inference.cost_nano_max or 0)
    if rest_s := state.rest_s(now_s):
        return refusals.resting(route, rest_s)
    return refusals.no_backend(route, "their circuit breakers are open")
