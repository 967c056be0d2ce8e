"""The driver: takes a request through the steps that the router decides, and does their I/O.

    features -> [ router.next -> reserve the money -> call the backend -> settle ]* -> sinks

If the client disconnects, the calls in progress are cancelled and settled, and no more are started.
"""

import asyncio
from collections.abc import Awaitable, Callable

from tollway.backends.types import HttpReply
from tollway.eager import as_task
from tollway.gateway.budgets.model import BudgetRefusal, Reservation
from tollway.gateway.features.online.join import MemberTaken, RouteFeatures, Waiting
from tollway.gateway.routing.attempts import Attempts, Begun
from tollway.gateway.routing.hedging import first_good
from tollway.gateway.routing.metering import ESCALATED, PENDING
from tollway.gateway.routing.plan import Target
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.routing.replies.stream_relay import CLOSE
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.reserving import Reserving
from tollway.gateway.routing.router import Ask, Refuse, Router, Step
from tollway.gateway.routing.sinks import Sinks


async def _leave_others(state: RequestState) -> None:
    """Close and settle the streams in whose place a cascade's later reply is sent."""
    held = state.held
    for attempt in list(state.attempts):
        if attempt.relay is not None and attempt is not held:
            await attempt.relay.close(abandoned=ESCALATED)
    state.streamed = held is not None and held.outcome.provenance == PENDING


Embeds = Callable[[InferenceRequest], Awaitable[tuple[float, ...]]]
"""Returns the embedding of a request by a backend, within a time limit. Raises nothing."""

Verifies = Callable[[RequestState, Attempt], Awaitable[None]]
"""Notes how likely a reply is right, within a time limit. Raises nothing."""


class Driver:
    """Answers requests."""

    # The mutable state is the embedders and verifiers by route, which wiring replaces.

    def __init__(
        self,
        router: Router,
        reserving: Reserving,
        attempts: Attempts,
        sinks: Sinks,
        *,
        clock: Callable[[], float],
    ) -> None:
        """`clock` is monotonic and is the clock of the deadlines."""
        self.router = router
        self.reserving = reserving
        self.attempts = attempts
        self.sinks = sinks
        self._clock = clock
        self.embeds: dict[str, Embeds] = {}
        self.verifies: dict[str, Verifies] = {}

    async def answer(self, inference: InferenceRequest) -> RequestState:
        """Return the finished request state, with the reply in `held`.

        Raises RequestRefused if no backend may or can answer. If the client has disconnected, the
        state that is returned may have no reply.
        """
        if inference.route.online is not None and inference.joined is None:
            await self.join(inference, inference.route.online)
        if inference.route.embeds and not inference.embedding:
            await as_task()
            if (embed := self.embeds.get(inference.route.name)) is not None:  # not gone by a reload
                inference.embedding = await embed(inference)
        return await self.go_on(self.router.begin(inference))

    async def go_on(  # noqa: PLR0912 - one branch for each step that may be skipped
        self,
        state: RequestState,
        step: Step | None = None,
        begun: Begun | None = None,
        sending: Awaitable[HttpReply] | None = None,
        error: Exception | None = None,
    ) -> RequestState:
        """Answer a request that has begun; see `answer`.

        It goes on with a `step` that was decided, an attempt that was `begun` for it, and a reply
        that is awaited by `sending`; or with an `error`, which is raised.
        """
        inference, router, now_s, lost = state.inference, self.router, self._clock(), True
        try:
            if error is not None:
                raise error
            if step is None:
                step = router.next(state, now_s)
            while type(step) is Ask:
                attempt = await (
                    self._ask(state, step)
                    if begun is None
                    else self.attempts.finish(begun, sending)
                )
                begun = None
                if attempt is None:
                    now_s = self._clock()
                else:
                    if inference.route.verifies:
                        await self._verify(state, attempt)
                    router.answered(state, step, attempt)
                    if state.streamed and len(state.attempts) > 1:
                        await _leave_others(state)
                    now_s = state.now_s
                step = router.next(state, now_s)
            lost = False
        except asyncio.CancelledError:
            now_s = self._clock()
            if not inference.left:
                raise
            lost = False
            cancelled = asyncio.current_task()
            if cancelled is not None:
                cancelled.uncancel()
        finally:
            self.sinks.answered(state, now_s)
            if not state.streamed:
                self.sinks.ended(state, now_s)
            elif lost and state.held is not None and state.held.relay is not None:
                await state.held.relay.close(abandoned=CLOSE)  # nobody will read it
        if type(step) is Refuse and not inference.left:
            refused = step.reason
            if state.id:
                refused.decision = state.id
            refused.cost_nano = state.cost_nano
            raise refused
        return state

    async def _verify(self, state: RequestState, attempt: Attempt) -> None:
        """Have a reply verified, unless a reload has taken the verifier away."""
        verify = self.verifies.get(state.inference.route.name)
        if verify is not None:
            await as_task()
            await verify(state, attempt)

    async def join(self, inference: InferenceRequest, online: RouteFeatures) -> None:
        """Get the features from outside, within the time that the route and the request allow.

        Raises RequestRefused if a client wrote what only the gateway may write.
        """
        try:
            found = online.join(inference.call, self._clock())
            if isinstance(found, Waiting):
                await as_task()
                found = await found.joined(inference.deadline_s)
        except MemberTaken as exc:
            raise RequestRefused("not_supported", str(exc), retryable=False) from exc
        inference.joined = found

    async def _ask(self, state: RequestState, step: Ask) -> Attempt | None:
        """Reserve the money for a call and make it; None if a budget refused."""
        backend = step.backend
        hold = self.reserving.reserve_now(state, backend)
        if hold is None:
            await as_task()
            outcome = await self.reserving.reserve(state, backend, wait=step.wait)
            if isinstance(outcome, BudgetRefusal):
                self.router.denied(state, step, outcome)
                return None
            hold = outcome
        hedge_s = self.router.reserved(state, step)
        if hedge_s is not None:
            return await self._hedged(state, backend, hold, hedge_s)
        return await self.attempts.make(state, backend, hold, fallback=step.fallback)

    async def _hedged(
        self, state: RequestState, backend: Target, hold: Reservation, wait_s: float
    ) -> Attempt:
        """Call, call again after `wait_s`, and cancel the call that did not answer first."""
        hedge = state.inference.route.hedge
        assert hedge is not None
        await as_task()
        calls = [asyncio.create_task(self.attempts.make(state, backend, hold))]
        try:
            await asyncio.wait(calls, timeout=wait_s)
            if not calls[0].done():
                again = self._reserve_again(state, backend)
                if again is None:
                    hedge.waits.denied += 1
                else:
                    hedge.spend(state.inference.tenant)
                    second = self.attempts.make(state, backend, again, hedge_s=wait_s)
                    calls.append(asyncio.create_task(second))
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

    def _reserve_again(self, state: RequestState, backend: Target) -> Reservation | None:
        """Reserve for a concurrent second call, if local leases cover all of it."""
        if not self.router.may_hedge(state, backend):
            return None
        return self.reserving.reserve_now(state, backend)
