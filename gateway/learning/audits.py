"""Audits: compares some answers with the reference backend's answer and learns from the result.

After a reply is sent, its request state is passed to this module. The route's auditor
(`tollway.policies.evidence.audit`) decides at random whether to audit it, and the probability is
recorded. The reference is called in a separate task that no client waits for. Its call is reserved
in all matching budgets, charged, journalled and counted like any attempt, and marked as an audit.
The route's scorer compares the answers, and the result is processed as feedback with its
probability. A reply from the reference itself is correct by definition and costs nothing to
compare.

An audit never waits. It is skipped if a budget refuses it, if the reference is down or half of its
slots are in use, or if AUDITS_MAX audits are under way.
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
from tollway.gateway.routing.metering import GIVEN_UP
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.reserving import Reserving
from tollway.gateway.routing.router import quote
from tollway.gateway.routing.sinks.records import audit_row
from tollway.gateway.storage.journal import Journal
from tollway.policies.evidence.audit import Auditor

log = logging.getLogger(__name__)

AUDITS_MAX = 32  # concurrent audits; more would mean that the reference is too slow for the rate
CROWDED = 0.5  # share of the reference's slots that audits may find busy; clients need the rest
DRAIN_S = 5.0  # longest wait for audits at shutdown; audits cancelled then are still charged
SOURCE = "audit"

Teach = Callable[[list[Any], str | None, str], Awaitable[object]]


class AuditRunner:
    """Runs the audits of all routes that configure them."""

    # The mutable state is the audits under way, and whether new ones may start.

    def __init__(
        self,
        reserving: Reserving,
        attempts: Attempts,
        journal: Journal,
        *,
        teach: Teach,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
    ) -> None:
        """`teach` makes the gateway learn from a list of feedback and its source."""
        self._reserving = reserving
        self._attempts = attempts
        self._journal = journal
        self._teach = teach
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def consider(self, state: RequestState, now_s: float) -> None:
        """Decide at random whether to audit a finished request (15 us; 0.1 us without audits)."""
        route, held = state.inference.route, state.held
        if route.auditor is None or held is None or not self._eligible(route, held):
            return
        reference = state.backends[route.reference]
        asked = [
            attempt
            for attempt in state.attempts
            if attempt.backend == reference.name and attempt.error not in GIVEN_UP
        ]
        if asked and asked[-1].error:
            return
        if asked:  # the reference has already replied: its reply is used to judge the others
            probability = self._draw(state, route.auditor, held, 0)
            if probability:
                self._begin(self._learn(state, asked[-1], probability))
        elif reference.name not in state.left_out and self._may_ask(
            reference, state.inference.caller, now_s
        ):
            quoted = state.quotes.get(reference.name) or quote(state, reference, now_s)
            probability = self._draw(state, route.auditor, held, quoted.ceiling_nano)
            if probability:
                self._begin(self._ask(state, reference, route.auditor, probability))

    def _eligible(self, route: RoutePlan, held: Attempt) -> bool:
        """Return whether this answer's label can be learned from and another audit may start."""
        outcome = held.outcome
        answered = held.status == 200 and (
            outcome.answer.value is not None
            or (bool(outcome.no_answer) and route.no_answer is not None)
        )
        # A fallback was not chosen by the policy, so nothing is ever learned from it.
        return (
            answered and not held.fallback and not self._closing and len(self._tasks) < AUDITS_MAX
        )

    @staticmethod
    def _may_ask(reference: Target, caller: str, now_s: float) -> bool:
        slots = reference.slots
        saturated = slots is not None and slots.busy >= CROWDED * slots.limit
        return not saturated and reference.allows(now_s, caller)

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
        self, state: RequestState, reference: Target, auditor: Auditor, probability: float
    ) -> None:
        """Call the reference, record the attempt, and learn from the comparison."""
        inference, now_s = state.inference, self._clock()
        # A separate state: the client's deadline and cost ceiling apply to the client's call only.
        own = RequestState(
            replace(
                inference,
                received_s=now_s,
                deadline_s=now_s + reference.timeout_s,
                trace=None,  # the trace of the client's request has ended, and so has its memory
                memory=None,
            ),
            state.context,
            quotes=state.quotes,
        )
        held_nano, cost_nano = state.quotes[reference.name].ceiling_nano, 0
        try:
            hold = await self._reserving.reserve(own, reference)
            if isinstance(hold, BudgetRefusal):
                return
            asked = await self._attempts.make(own, reference, hold, audit=probability)
        finally:
            # Charge the attempt even if the audit was cancelled: `own` has recorded it.
            for attempt in own.attempts:
                cost_nano += attempt.outcome.cost_nano
                self._journal.append(audit_row(state, attempt, self._wall()))
            auditor.charge(cost_nano - held_nano)
            if own.inference.memory is not None:
                own.inference.memory.close()
        if not asked.error and asked.status == 200:
            await self._learn(state, asked, probability)

    async def _learn(self, state: RequestState, reference: Attempt, probability: float) -> None:
        """Judge every reply of the request by the reference's answer."""
        label = reference.outcome.answer.value
        if label is None:
            return
        row = {
            "decision": state.id,
            "label": label,
            "source": SOURCE,
            "probability": probability,
        }
        try:
            await self._teach([row], None, GATEWAY)
        except RequestRefused as refused:
            log.warning("the result of an audit was not learned: %s", refused.detail)
            return
        assert state.held is not None, "a request without a reply is not audited"
        auditor = state.inference.route.auditor
        assert auditor is not None, "nor one of a route without an auditor"
        auditor.learned(state.held.backend)

    async def close(self) -> None:
        """Start no more audits and wait for those under way."""
        self._closing = True
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=DRAIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
