"""Audits: some answers are compared to the reference's, and what comes of it is learned.

After a reply is written its turn is handed over here. Whether it is audited is drawn by the route's
auditor (`tollway.policies.evidence.audit`), with a probability that is written down. The reference
is asked in a
task of its own that no client waits for; its call is reserved in all budgets that match, charged,
journalled and counted as any attempt, marked as an audit. The route's score compares the answers,
and the result takes the way of feedback, with its probability. A reply that was the reference's own
is right by that measure, and costs nothing to compare.

An audit is left out, and never waits, where a budget refuses it, where the reference is down or
half of what it can take is taken, and where AUDITS_MAX are under way.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from random import Random
from typing import Any

from tollway.gateway.budgets.model import BudgetRefusal
from tollway.gateway.learning.feedback import GATEWAY
from tollway.gateway.routing.attempts import Attempts
from tollway.gateway.routing.backend import Backend
from tollway.gateway.routing.metering import GIVEN_UP
from tollway.gateway.routing.records import audit_row
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.route import Route
from tollway.gateway.storage.journal import Journal
from tollway.policies.evidence.audit import Auditor

log = logging.getLogger("tollway.audits")

AUDITS_MAX = 32  # under way at once: beyond, the reference is too slow to be asked more often
CROWDED = 0.5  # of the reference's slots: the rest is the clients'
DRAIN_S = 5.0  # how long a stop waits for audits under way; what is cancelled then is still charged
SOURCE = "audit"

Teach = Callable[[list[Any], str | None, str], Awaitable[object]]


class AuditRunner:
    """Audits the turns of all routes that ask for it."""

    # The mutable state is the audits under way, and whether new ones are begun.

    def __init__(
        self,
        attempts: Attempts,
        journal: Journal,
        *,
        teach: Teach,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
    ) -> None:
        """`teach` has the gateway learn from feedback: a list of it, and whose it is."""
        self._attempts = attempts
        self._journal = journal
        self._teach = teach
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def consider(self, state: RequestState) -> None:
        """Draw whether a finished turn is audited, and begin that (15 us; without audits 0.1)."""
        route, held = state.inference.route, state.held
        if route.auditor is None or held is None or not self._eligible(route, held):
            return
        reference = route.backends[route.reference]
        asked = [
            attempt
            for attempt in state.attempts
            if attempt.backend == reference.name and attempt.error not in GIVEN_UP
        ]
        if asked and asked[-1].error:
            return
        if asked:  # nothing more to be asked: its reply judges the others
            probability = self._draw(state, route.auditor, held, 0)
            if probability:
                self._begin(self._learn(state, asked[-1], probability))
        elif reference.name not in state.left_out and self._may_ask(
            reference, state.inference.caller
        ):
            quote = state.quotes.get(reference.name) or self._attempts.quote(state, reference)
            probability = self._draw(state, route.auditor, held, quote.ceiling_nano)
            if probability:
                self._begin(self._ask(state, reference, route.auditor, probability))

    def _eligible(self, route: Route, held: Attempt) -> bool:
        """Whether a label of this answer could be learned from, and one more audit is allowed."""
        outcome = held.outcome
        answered = held.status == 200 and (
            outcome.answer.value is not None
            or (bool(outcome.no_answer) and route.no_answer is not None)
        )
        # A fallback was not drawn: nothing is ever learned from it.
        return (
            answered and not held.fallback and not self._closing and len(self._tasks) < AUDITS_MAX
        )

    def _may_ask(self, reference: Backend, caller: str) -> bool:
        slots = reference.slots
        saturated = slots is not None and slots.busy >= CROWDED * slots.limit
        return not saturated and reference.allows(self._clock(), caller)

    def _draw(self, state: RequestState, auditor: Auditor, held: Attempt, audit_nano: int) -> float:
        choice = state.draws[-1].choice
        return auditor.draw(
            held.backend,
            choice,
            spent_nano=state.cost_nano,
            audit_nano=audit_nano,
            rng=self._rng,
        )

    def _begin(self, audit: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(audit)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("an audit failed", exc_info=failure)

    async def _ask(
        self, state: RequestState, reference: Backend, auditor: Auditor, probability: float
    ) -> None:
        """Ask the reference, write that down, and learn from the comparison."""
        inference, now_s = state.inference, self._clock()
        # A turn of its own: the client's deadline and its ceiling bind the client's call alone.
        own = RequestState(
            replace(
                inference,
                received_s=now_s,
                deadline_s=now_s + reference.timeout_s,
                trace=None,  # what the client waited for is over
            ),
            state.context,
            quotes=state.quotes,
        )
        held_nano, cost_nano = state.quotes[reference.name].ceiling_nano, 0
        try:
            asked = await self._attempts.audit(own, reference, probability)
            if isinstance(asked, BudgetRefusal):
                return
        finally:
            # Cancelled or not, what was asked is charged: `own` has the attempt.
            for attempt in own.attempts:
                cost_nano += attempt.outcome.cost_nano
                self._journal.append(audit_row(state, attempt, self._wall()))
            auditor.charge(cost_nano - held_nano)
        if not asked.error and asked.status == 200:
            await self._learn(state, asked, probability)

    async def _learn(self, state: RequestState, reference: Attempt, probability: float) -> None:
        """Have every reply of the turn judged by the reference's answer."""
        label = reference.outcome.answer.value
        if label is None:
            return
        told = {
            "decision": state.id,
            "label": label,
            "source": SOURCE,
            "probability": probability,
        }
        try:
            await self._teach([told], None, GATEWAY)
        except RequestRefused as refused:
            log.warning("an audit was not learned from: %s", refused.detail)
            return
        assert state.held is not None, "a turn without a reply is not audited"
        auditor = state.inference.route.auditor
        assert auditor is not None, "nor one of a route without an auditor"
        auditor.learned(state.held.backend)

    async def close(self) -> None:
        """Begin no more, and let those under way end."""
        self._closing = True
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=DRAIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
