"""Attempts: one call to one backend, under a deadline, with money reserved before it.

However a call ends, its reservation ends exactly once. It is settled for what the call cost, or may
have cost, if the call may have run; it is voided if the call did not run. A cancelled call is
settled too, because it may have run.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from tollway.backends.dialect import REFUSED
from tollway.backends.http.codings import Decoded
from tollway.backends.http.connection import CLOSED
from tollway.backends.output import OutputLimit
from tollway.backends.types import (
    BackendError,
    FailedAtOnce,
    Headers,
    HttpReply,
    Overloaded,
    StreamReader,
    is_unsent,
)
from tollway.gateway.budgets.leased_budget import LeasedBudget
from tollway.gateway.budgets.model import NANO, BudgetRefusal, Reservation
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.estimation.prompt_cache import PromptCacheTracker, prompt
from tollway.gateway.routing.backend import NO_PAYLOAD, Backend
from tollway.gateway.routing.call_bounds import Unbounded, bounds
from tollway.gateway.routing.fallback import leaving
from tollway.gateway.routing.field_rejections import UNCHANGED, Sent, addressed, asked_again, within
from tollway.gateway.routing.health import evidence
from tollway.gateway.routing.health.rest import PUSHED_BACK, asked_for
from tollway.gateway.routing.hedging import HedgePolicy, first_good
from tollway.gateway.routing.metering import (
    GIVEN_UP,
    HEDGE_LOST,
    LEFT,
    OVERLOADED,
    UNDER_WAY,
    AttemptOutcome,
    Ending,
    evaluate_reply,
    evaluate_stream,
    outcome_without_reply,
)
from tollway.gateway.routing.observer import Observer
from tollway.gateway.routing.records import settlement_row
from tollway.gateway.routing.replies.decoding import as_accepted, readable
from tollway.gateway.routing.replies.redaction import discreet, presentable, vouch
from tollway.gateway.routing.replies.stream_buffers import Buffers
from tollway.gateway.routing.replies.stream_relay import CLOSE, StreamRelay, is_stream, refusal
from tollway.gateway.routing.replies.unlabelled import labelled
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.storage.journal import Journal

log = logging.getLogger("tollway.attempts")

T = TypeVar("T")


class Attempts:
    """Makes the attempts of requests and settles them."""

    def __init__(
        self,
        wallet: Reservations,
        journal: Journal,
        metrics: Observer,
        *,
        buffers: Buffers,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`buffers` limits the memory that unfinished events of streams may take.

        `clock` is monotonic and is the clock of the deadlines; `wall` is the time of day.
        """
        self._wallet = wallet
        self._journal = journal
        self._metrics = metrics
        self._buffers = buffers
        self._clock = clock
        self._wall = wall

    def quote(self, state: RequestState, backend: Backend, now_s: float | None = None) -> Quote:
        """Quote a backend for a request."""
        inference = state.inference
        if now_s is None:
            now_s = self._clock()
        quote = state.quotes[backend.name] = inference.route.estimator.quote(
            state.context,
            backend.name,
            backend.price,
            backend.known(inference.call),
            None if backend.cache is None else self._cached(state, backend.cache),
            tenant=inference.tenant,
            now_s=now_s,
        )
        return quote

    def accounts(self, state: RequestState, backend: str) -> tuple[LeasedBudget, ...]:
        """Return the budgets that a call would be charged to (0.3 us)."""
        inference = state.inference
        return self._wallet.matching(
            inference.tenant, inference.route.name, backend, inference.tags
        )

    def _cached(self, state: RequestState, cache: PromptCacheTracker) -> float:
        """Return the share of the prompt that the backend is expected to have cached."""
        if state.prompt is None:
            inference = state.inference
            parts = inference.route.protocol.prompt(inference.call.payload or NO_PAYLOAD)
            state.prompt = prompt(parts, inference.tenant)
        return cache.expects(state.prompt, self._clock())

    async def reserve(
        self, state: RequestState, backend: Backend, *, wait: bool = False
    ) -> Reservation | BudgetRefusal:
        """Reserve the money for one attempt in every budget that applies, or in none.

        With `wait`, wait for money that other calls hold, within the request's deadline.
        """
        tenant, accounts = state.inference.tenant, self.accounts(state, backend.name)
        amounts = self._amounts(state, backend, accounts)
        if isinstance(amounts, BudgetRefusal):
            return amounts
        asked = accounts, *amounts
        found: Reservation | BudgetRefusal
        ahead = self._wallet.held.line.ahead(tenant, accounts)
        if ahead is None:
            found = await self._wallet.reserve(*asked)
        else:  # older calls of the same tenant wait for this budget
            ceiling_nano, maximum_nano, _ = amounts
            found = ahead.refusal(maximum_nano if ahead.hard else ceiling_nano, "held")
        if not wait or isinstance(found, Reservation) or found.reason != "held":
            return found
        inference = state.inference

        def revised() -> tuple[int, int] | BudgetRefusal:
            now = self._amounts(state, backend, accounts)
            return now if isinstance(now, BudgetRefusal) else now[:2]

        return await self._wallet.held.wait(
            found,
            *asked,
            tenant=tenant,
            deadline_s=inference.deadline_s,
            revise=None if amounts[2] is None else revised,
        )

    def reserve_now(self, state: RequestState, backend: Backend) -> Reservation | None:
        """Reserve from local leases without awaiting; None if they do not cover the amount.

        They nearly always do, so that nothing needs to be awaited.
        """
        accounts = self.accounts(state, backend.name)
        line = self._wallet.held.line
        if line.count and line.ahead(state.inference.tenant, accounts):
            return None
        if not backend.sells_tokens:  # the same case as in `_amounts`
            quote = state.quotes[backend.name]
            return self._wallet.reserve_now(accounts, quote.ceiling_nano, quote.maximum_nano)
        amounts = self._amounts(state, backend, accounts)
        if isinstance(amounts, BudgetRefusal):
            return None
        ceiling_nano, maximum_nano, _ = amounts
        return self._wallet.reserve_now(accounts, ceiling_nano, maximum_nano)

    def _amounts(
        self, state: RequestState, backend: Backend, accounts: tuple[LeasedBudget, ...]
    ) -> tuple[int, int, int | None] | BudgetRefusal:
        """Return the amounts that soft and hard budgets reserve, and the least for hard budgets.

        Takes 0.1 us; 25 us if a hard budget applies and the backend charges for tokens.
        """
        quote, call = state.quotes[backend.name], state.inference.call
        hard = [account for account in accounts if account.hard] if backend.sells_tokens else None
        if not (hard and call.body):
            return quote.ceiling_nano, quote.maximum_nano, None
        longest = state.inference.route.estimator.longest(backend.name, state.inference.tenant)
        left_nano = min([account.left_nano for account in hard])
        try:
            found = bounds(backend, quote, call, longest=longest, left_nano=left_nano)
        except Unbounded as exc:
            return hard[0].refusal(quote.maximum_nano, "unbounded", str(exc))
        state.bounds[backend.name] = found
        maximum_nano = min(found.maximum_nano, max(left_nano, found.least_nano))
        return min(quote.ceiling_nano, maximum_nano), maximum_nano, found.least_nano

    def ask(
        self, state: RequestState, backend: Backend, hold: Reservation, *, fallback: bool = False
    ) -> Awaitable[Attempt]:
        """Make an attempt.

        Repeat it once if its reused connection was lost and the backend allows repeats.
        """
        if not backend.repeat_on_close:
            return self.make(state, backend, hold, fallback=fallback)
        return self._ask_twice(state, backend, hold, fallback=fallback)

    async def _ask_twice(
        self, state: RequestState, backend: Backend, hold: Reservation, *, fallback: bool
    ) -> Attempt:
        """Make an attempt, and repeat it once if its reused connection was lost.

        The first may have run, so it is charged; the second has its own reservation.
        """
        attempt = await self.make(state, backend, hold, fallback=fallback)
        if attempt.error != CLOSED or not state.affords(attempt.quote):
            return attempt
        again = await self.reserve(state, backend)
        if isinstance(again, BudgetRefusal):
            return attempt
        attempt = await self.make(state, backend, again, fallback=fallback)
        if not attempt.error:
            state.failed.pop(backend.name, None)
        return attempt

    async def hedged(
        self, state: RequestState, backend: Backend, hold: Reservation, hedge: HedgePolicy
    ) -> Attempt:
        """Make an attempt, and a second one if it is slow; the first good reply counts."""
        hedge.earn()
        payload = state.inference.call.payload or NO_PAYLOAD
        if backend.is_local or backend.protocol.follow(payload) is not None:
            return await self.ask(state, backend, hold)
        wait_s, started_s = hedge.wait_s(backend.name), self._clock()
        if wait_s is None:
            attempt = await self.ask(state, backend, hold)
        else:
            attempt = await self._ask_hedged(state, backend, hold, hedge, wait_s)
        if not attempt.error:
            hedge.took(backend.name, self._clock() - started_s)
        return attempt

    async def _ask_hedged(
        self,
        state: RequestState,
        backend: Backend,
        hold: Reservation,
        hedge: HedgePolicy,
        wait_s: float,
    ) -> Attempt:
        """Call, call again after `wait_s`, and cancel the call that did not answer first."""
        calls = [asyncio.create_task(self.make(state, backend, hold))]
        try:
            await asyncio.wait(calls, timeout=wait_s)
            if not calls[0].done():
                again = self._reserve_again(state, backend)
                if again is None:
                    hedge.waits.denied += 1
                else:
                    hedge.spend()
                    calls.append(
                        asyncio.create_task(self.make(state, backend, again, hedge_s=wait_s))
                    )
            attempt = await first_good(calls, lambda one: not one.error)
            state.hedge_lost = True
        finally:  # in every case, each call is settled before the request continues
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            state.hedge_lost = False
        if not attempt.error:
            state.give_up_all_but(attempt)
            hedge.waits.won += attempt.hedge_s is not None
        return attempt

    def _reserve_again(self, state: RequestState, backend: Backend) -> Reservation | None:
        """Reserve for a concurrent second attempt, if local leases cover all of it."""
        quote = state.quotes[backend.name]
        if backend.full or not backend.up or not state.affords(quote, times=2):
            return None
        return self.reserve_now(state, backend)

    async def make(
        self,
        state: RequestState,
        backend: Backend,
        hold: Reservation,
        *,
        fallback: bool = False,
        audit: float = 0.0,
        hedge_s: float | None = None,
    ) -> Attempt:
        """Make one attempt and end its reservation, whatever happens."""
        inference = state.inference
        quote, limit = (
            _limited_quote(state, backend, hold)
            if state.bounds
            else (state.quotes[backend.name], None)
        )
        started_s = self._clock()
        deadline_s = min(self._deadline_s(state, backend, started_s), started_s + backend.timeout_s)
        backend.probe(started_s, inference.caller)
        health, status, body = None, 0, b""
        headers: Headers = []
        relay: StreamRelay | None = None
        try:
            follower = backend.protocol.follow(inference.call.payload or NO_PAYLOAD)
            due_s = backend.first_byte_s if follower is None else backend.due_s(streamed=True)
            begun_by_s = None if due_s is None else started_s + due_s
            sent = UNCHANGED if limit is None else Sent(limit=limit)
            call = addressed(inference, backend, deadline_s, self._clock, sent)
            sending = backend.transport.send(call, deadline_s)
            if begun_by_s is not None:
                sending = within(begun_by_s - self._clock(), sending)
            reply = readable(await sending, inference.accepts)
            if reply.status in REFUSED:
                call, reply, limit = await asked_again(
                    inference,
                    backend,
                    call,
                    reply,
                    sent,
                    deadline_s=deadline_s,
                    begun_by_s=begun_by_s,
                    clock=self._clock,
                )
            if follower is not None:
                left_s = None if begun_by_s is None else begun_by_s - self._clock()
                reply, follower = await _streamed(reply, follower, left_s)
                if follower is not None and not (inference.route.cascade or audit):
                    relay, reply = await self._begin_stream(
                        inference, backend, reply, follower, left_s
                    )
            if relay is not None:
                outcome = UNDER_WAY
            else:
                body = await reply.read(inference.route.reply_bytes_max)
                outcome = evaluate_reply(
                    backend, call, reply, body, quote=quote, latency_s=self._clock() - started_s
                )
                if follower is not None:
                    health, body = _read_whole(reply, follower, outcome, body)
            status = reply.status
            headers, body = (
                (reply.headers, body)
                if backend.credential is None and not isinstance(reply.stream, Decoded)
                else presentable(inference, backend, outcome, *as_accepted(reply, body))
            )
        except BackendError as exc:
            fair = _is_fair(inference, backend, started_s, deadline_s)
            outcome, health = failed(exc, quote, hold, fair=fair)
        except Exception as exc:  # a bug of ours in reading the reply must not fail the request
            log.exception("the reply of backend %s could not be read", backend.name)
            outcome, health = unreadable(exc, quote, hold), evidence.UNKNOWN
        except BaseException as exc:  # cancelled
            outcome = cancelled(exc, state, quote, hold)
            raise
        finally:  # a cancelled task settles too: its call may have run
            outcome = discreet(backend, outcome)
            attempt = Attempt(
                backend=backend.name,
                quote=quote,
                started_s=started_s,
                latency_s=self._clock() - started_s,
                outcome=outcome,
                status=status,
                headers=headers,
                body=body,
                fallback=fallback,
                reserved_nano=hold.told(),
                audit=audit,
                relay=relay,
                hedge_s=hedge_s,
                output_limit=0 if limit is None else limit.tokens,
            )
            self._finish(state, backend, hold, attempt, health)
        return attempt

    def _finish(
        self,
        state: RequestState,
        backend: Backend,
        hold: Reservation,
        attempt: Attempt,
        health: str | None,
    ) -> None:
        """Add an attempt to its request and settle it; a stream in progress settles at its end."""
        state.attempts.append(attempt)
        if attempt.relay is None:
            self._settle(state, backend, hold, attempt, health)
        else:
            attempt.relay.on_end = partial(self._settle_stream, state, backend, hold)

    async def _begin_stream(
        self,
        inference: InferenceRequest,
        backend: Backend,
        reply: HttpReply,
        follower: StreamReader,
        left_s: float | None,
    ) -> tuple[StreamRelay | None, HttpReply]:
        """Return the relay of a stream whose first event has arrived, and the reply.

        If the first event is an error, return None and the error reply that it stands for.
        """
        relay = StreamRelay(
            reply,
            follower,
            self._buffers.open(inference.tenant),
            clock=self._clock,
            drain_s=backend.drain_s,
        )
        try:
            await within(left_s, relay.begin())
        except FailedAtOnce as failure:
            return None, refusal(reply, failure)
        return relay, reply

    async def audit(
        self, state: RequestState, backend: Backend, probability: float
    ) -> Attempt | BudgetRefusal:
        """Call a quoted backend for a label, not for the client, with its own reservation."""
        hold = await self.reserve(state, backend)
        if isinstance(hold, BudgetRefusal):
            return hold
        return await self.make(state, backend, hold, audit=probability)

    def _deadline_s(self, state: RequestState, backend: Backend, now_s: float) -> float:
        """Return the attempt deadline, reserving time for the remaining fallbacks.

        A stream may use all of the time: once it has begun, no fallback is possible.
        """
        inference = state.inference
        route, until_s = inference.route, inference.deadline_s
        payload = inference.call.payload or NO_PAYLOAD
        if not route.fallbacks.is_declared or backend.protocol.follow(payload) is not None:
            return until_s
        below = [
            route.backends[name]
            for name in route.fallbacks.chain
            if name in route.backends and name != backend.name and name not in state.closed
        ]
        if not below and route.fallbacks.static_response is None:
            return until_s
        wired = any(not step.is_local for step in below)
        return leaving(now_s, until_s, wired=wired)

    def _settle_stream(
        self,
        state: RequestState,
        backend: Backend,
        hold: Reservation,
        error: str,
        abandoned: str,
    ) -> None:
        """Settle a stream that has ended."""
        attempt = state.held
        assert attempt is not None
        relay = attempt.relay
        assert relay is not None
        now_s = self._clock()
        latency_s = now_s - attempt.started_s
        silence_s = (now_s if relay.spoke_s is None else relay.spoke_s) - attempt.started_s
        ending = Ending(latency_s, silence_s, error, abandoned, relay.whole)
        rate = state.inference.route.estimator.rate(backend.name)
        try:
            outcome = evaluate_stream(
                backend,
                relay.follower,
                attempt.headers,
                ending,
                quote=attempt.quote,
                rate=rate,
                hold_nano=hold.hard_nano,
            )
            if outcome.usage is not None and not outcome.partial:
                rate.learn(outcome.usage, relay.follower.spoken_bytes, silence_s)
            outcome = discreet(backend, outcome)
        except Exception as exc:  # a bug of ours in reading must not leave money reserved
            log.exception("the stream of backend %s could not be read", backend.name)
            outcome = unreadable(exc, attempt.quote, hold)
        ended = replace(attempt, outcome=outcome, latency_s=latency_s, relay=None)
        number = len(state.attempts) - 1  # a stream is the last attempt of its request
        state.attempts[number] = state.held = ended
        health = evidence.of_stream(outcome.error)
        self._settle(state, backend, hold, ended, health)
        self._journal.append(settlement_row(state, number, ended, self._wall()))
        for draw in state.draws:
            if draw.choice.arm == backend.name:
                state.inference.route.policy.charge(draw.choice, outcome.cost_nano / NANO)

    def _update_health(
        self, inference: InferenceRequest, backend: Backend, attempt: Attempt, health: str | None
    ) -> None:
        """Update the circuit breaker, and begin a rest if the reply asks for one."""
        outcome, now_s = attempt.outcome, self._clock()
        if health is None:
            health = evidence.WELL
            if outcome.error:
                health = evidence.of_status(attempt.status, outcome.error, local=backend.is_local)
        if outcome.error in GIVEN_UP or outcome.refuses_key:
            return  # it says nothing about the server, or the gateway's own key is at fault
        if health == evidence.WELL:
            backend.breaker.succeeded()
        elif health == evidence.SUSPECT:
            backend.breaker.suspected(now_s, inference.caller)
            if backend.trial is not None:
                backend.trial.begin(backend.breaker, now_s, self._clock)
        elif health == evidence.BROKEN:
            backend.breaker.failed(now_s)
        if attempt.status in PUSHED_BACK and not backend.is_local:
            wait_s = asked_for(attempt.status, attempt.headers, self._wall())
            if wait_s:
                backend.rest.begin(now_s, wait_s, inference.caller)

    def _settle(
        self,
        state: RequestState,
        backend: Backend,
        hold: Reservation,
        attempt: Attempt,
        health: str | None = None,
    ) -> None:
        """Charge an attempt, then update the circuit breaker, the estimator and the metrics."""
        route, outcome = state.inference.route, attempt.outcome
        if outcome.ran:
            self._wallet.settle(hold, outcome.cost_nano)
        else:
            self._wallet.void(hold)
        inference = state.inference  # metrics come next, so that they agree with the charge
        exemplar = None if inference.trace is None else inference.trace.exemplar
        self._metrics.attempt(route.name, inference.tenant, attempt, exemplar)
        if inference.tags:
            self._metrics.tagged(inference.tags, outcome.cost_nano)
        if backend.credential is not None:
            vouch(backend.credential, attempt, self._clock())
        if outcome.error and outcome.error not in GIVEN_UP:
            state.failed[backend.name] = outcome.error
        if attempt.status == 200 and health is None and not outcome.error:  # nearly always
            backend.breaker.succeeded()
        else:
            self._update_health(inference, backend, attempt, health)
        if outcome.usage is not None and not outcome.partial:
            route.estimator.observe(
                state.context,
                backend.name,
                attempt.quote,
                backend.price,
                outcome.usage,
                tenant=state.inference.tenant,
                now_s=self._clock(),
            )
            if (bound := state.bounds.get(backend.name)) is not None and bound.answers:
                route.estimator.answered(
                    backend.name,
                    state.inference.tenant,
                    outcome.usage.output_tokens / bound.answers,
                    attempt.output_limit or bound.most,
                )
        if backend.cache is not None and state.prompt is not None and attempt.status == 200:
            backend.cache.answered(state.prompt, outcome.usage, self._clock())


def failed(
    exc: BackendError, quote: Quote, hold: Reservation, *, fair: bool
) -> tuple[AttemptOutcome, str]:
    """Return the outcome of a call without a reply, and the evidence about backend health."""
    if isinstance(exc, Overloaded):
        return outcome_without_reply(quote, OVERLOADED, ran=False), evidence.UNKNOWN
    why = str(exc) or type(exc).__name__
    outcome = outcome_without_reply(quote, why, ran=exc.ran, hold_nano=hold.hard_nano)
    return outcome, evidence.of_failure(exc, fair=fair)


def unreadable(exc: Exception, quote: Quote, hold: Reservation) -> AttemptOutcome:
    """Return the outcome of a reply that our own code failed to read."""
    why = f"unreadable: {type(exc).__name__}"
    return replace(outcome_without_reply(quote, why, ran=True, hold_nano=hold.hard_nano), bug=True)


def cancelled(
    exc: BaseException, state: RequestState, quote: Quote, hold: Reservation
) -> AttemptOutcome:
    """Return the outcome of a cancelled call.

    The client disconnected, another call was faster, or the gateway is stopping.
    """
    why = HEDGE_LOST if state.hedge_lost else LEFT if state.inference.left else "cancelled"
    return outcome_without_reply(
        quote,
        why,
        ran=not is_unsent(exc),
        hold_nano=hold.hard_nano,
        abandoned=CLOSE if why == LEFT else "",
    )


async def _streamed(
    reply: HttpReply, follower: StreamReader, left_s: float | None
) -> tuple[HttpReply, StreamReader | None]:
    """Return a reply, and its stream reader if it is the stream that was requested."""
    if not is_stream(reply):
        reply = await within(left_s, labelled(reply))
    return reply, follower if is_stream(reply) else None


def _read_whole(
    reply: HttpReply, follower: StreamReader, outcome: AttemptOutcome, body: bytes
) -> tuple[str | None, bytes]:
    """Return the health evidence of a fully read stream, and the bytes for the client.

    The evidence is None if it follows from the outcome.
    """
    if not is_stream(reply):  # an error stood in its first event
        return evidence.of_event(reply.status, outcome.error), body
    return None, body if outcome.error else follower.feed(body) + follower.close()


def _is_fair(
    inference: InferenceRequest, backend: Backend, started_s: float, deadline_s: float
) -> bool:
    """Whether an attempt that timed out had a fair share of the configured timeout."""
    route = inference.route
    chosen = (
        inference.client_deadline and inference.deadline_s < inference.received_s + route.timeout_s
    )
    if chosen and deadline_s < started_s + backend.timeout_s:
        return False  # the client's deadline
    allowed_s = min(backend.timeout_s, route.timeout_s)
    return deadline_s - started_s >= evidence.FAIR_SHARE * allowed_s


def _limited_quote(
    state: RequestState, backend: Backend, hold: Reservation
) -> tuple[Quote, OutputLimit | None]:
    """Return a quote capped at the reserved amount, and the output limit that enforces the cap."""
    quote, found = state.quotes[backend.name], state.bounds.get(backend.name)
    if found is None or hold.hard_nano is None:
        return quote, None
    return found.quoted(quote, hold.hard_nano), found.limit(hold.hard_nano)
