"""Settlement: charges an ended attempt, and lets everything learn from it that should.

An attempt is settled once: when its reply is read, or when its stream ends.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from tollway.backends.types import Usage
from tollway.gateway.budgets.model import Reservation
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.routing.health import evidence
from tollway.gateway.routing.health.rest import PUSHED_BACK, asked_for
from tollway.gateway.routing.metering import (
    GIVEN_UP,
    AttemptOutcome,
    Ending,
    evaluate_stream,
    outcome_without_reply,
)
from tollway.gateway.routing.observer import Observer
from tollway.gateway.routing.plan import Target
from tollway.gateway.routing.replies.redaction import discreet, vouch
from tollway.gateway.routing.replies.stream_relay import StreamRelay
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.sinks import Sink

log = logging.getLogger(__name__)


class Settlement:
    """Settles attempts."""

    def __init__(
        self,
        reservations: Reservations,
        observers: Sequence[Observer],
        ended: Sink,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`observers` receive each attempt once it is charged, in their order.

        `ended` receives each request whose stream has ended, once that is charged. `clock` is that
        of the deadlines; `wall` is the time of day.
        """
        self._reservations = reservations
        self.observers = tuple(observers)
        self._ended = ended
        self._clock = clock
        self._wall = wall

    def settle_stream(
        self,
        state: RequestState,
        backend: Target,
        hold: Reservation,
        relay: StreamRelay,
        *,
        error: str,
        abandoned: str,
    ) -> None:
        """Settle a stream that has ended: the reply, or one in whose place another was sent."""
        number, attempt = next(
            (number, one) for number, one in enumerate(state.attempts) if one.relay is relay
        )
        is_reply = state.held is not None and state.held.relay is relay
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
        state.attempts[number] = ended
        if is_reply:
            state.held = ended
        health = evidence.of_stream(outcome.error)
        self.settle(state, backend, hold, ended, health, now_s=now_s)
        if is_reply and state.draws:  # else the call was free, and there is nothing to record
            self._ended(state, now_s)

    def settle_late(
        self, state: RequestState, backend: Target, hold: Reservation, outcome: AttemptOutcome
    ) -> None:
        """Settle a background call, the last attempt of its request, whose end is known."""
        now_s = self._clock()
        attempt = state.attempts[-1]
        outcome = discreet(backend, outcome)
        latency_s = now_s - attempt.started_s
        ended = replace(attempt, outcome=outcome, latency_s=latency_s, relay=None)
        state.attempts[-1] = state.held = ended
        self.settle(state, backend, hold, ended, evidence.UNKNOWN, now_s=now_s)
        self._ended(state, now_s)

    def _update_health(
        self,
        inference: InferenceRequest,
        backend: Target,
        attempt: Attempt,
        health: str | None,
        now_s: float,
    ) -> None:
        """Update the circuit breaker, and begin a rest if the reply asks for one."""
        outcome = attempt.outcome
        if health is None:
            health = evidence.WELL
            if outcome.error:
                health = evidence.of_status(attempt.status, outcome.error, local=backend.is_local)
        if outcome.error in GIVEN_UP or outcome.refuses_key or outcome.is_echo:
            return  # it says nothing (more) about the server, or the gateway's own key is at fault
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
                backend.rest_of(attempt.status).begin(now_s, wait_s, inference.caller)

    def settle(
        self,
        state: RequestState,
        backend: Target,
        hold: Reservation,
        attempt: Attempt,
        health: str | None = None,
        *,
        now_s: float,
    ) -> None:
        """Charge an attempt, then update the circuit breaker, the estimator and the metrics."""
        inference, outcome = state.inference, attempt.outcome
        route = inference.route
        self._reservations.settle(hold, outcome.cost_nano)  # 0 if the call did not run
        # Metrics come next, so that they agree with the charge.
        exemplar = None if inference.trace is None else inference.trace.exemplar
        for observer in self.observers:
            observer.attempt(route.name, inference.tenant, attempt, exemplar)
            if inference.tags:
                observer.tagged(inference.tenant, inference.tags, outcome.cost_nano)
        if backend.credential is not None:
            vouch(backend.credential, attempt, now_s)
        if outcome.error and outcome.error not in GIVEN_UP:
            state.failed[backend.name] = outcome.error
        if attempt.status == 200 and health is None and not outcome.error:  # nearly always
            backend.breaker.succeeded()
        else:
            self._update_health(inference, backend, attempt, health, now_s)
        if not (outcome.usage is None or outcome.partial or backend.price.is_fixed):
            learn(state, backend, attempt, outcome.usage, now_s)
        if backend.cache is not None and state.prompt is not None and attempt.status == 200:
            backend.cache.answered(state.prompt, outcome.usage, now_s)


def learn(
    state: RequestState, backend: Target, attempt: Attempt, usage: Usage, now_s: float
) -> None:
    """Let the estimator learn what a call has used."""
    tenant, estimator = state.inference.tenant, state.inference.route.estimator
    estimator.observe(
        state.context,
        backend.name,
        attempt.quote,
        backend.price,
        usage,
        tenant=tenant,
        now_s=now_s,
    )
    bound = state.bounds.get(backend.name) if state.bounds else None
    if bound is not None and (answers := bound.costs.answers):
        limit = attempt.output_limit or bound.most
        estimator.answered(backend.name, tenant, usage.output_tokens / answers, limit)


def unreadable(exc: Exception, quote: Quote, hold: Reservation) -> AttemptOutcome:
    """Return the outcome of a reply that our own code failed to read."""
    why = f"unreadable: {type(exc).__name__}"
    return replace(outcome_without_reply(quote, why, ran=True, hold_nano=hold.hard_nano), bug=True)
