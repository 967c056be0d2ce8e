"""Calls of backends that score an answer: a judge, or a reference that answers too.

They are reserved in all matching budgets, charged, journalled and counted like any attempt, marked
as audits with the signal's name. No client waits for them. They are left out if a budget refuses,
if the backend is down or half of its slots are in use, or if the signal has spent its share.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tollway.backends.types import Call
from tollway.gateway.budgets.model import BudgetRefusal
from tollway.gateway.routing.attempts import Attempts
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.reserving import Reserving
from tollway.gateway.routing.router import quote
from tollway.gateway.routing.sinks.records import audit_row
from tollway.gateway.storage.journal import Journal
from tollway.policies.evidence.audit import Auditor
from tollway.policies.types import Choice

CROWDED = 0.5  # share of a backend's slots that may be busy; clients need the rest
EVEN = Choice(("",), (1.0,), 0, (0.0,), (0.0,), 0.0, "", 0)
"""A choice of which all answers are worth the same label: those to judge are drawn evenly."""


class PaidCalls:
    """Makes the calls of one signal, within its share of the route's spend."""

    # The mutable state is the auditor's: the balance, and how many calls are owed to the mean.

    def __init__(
        self,
        reserving: Reserving,
        attempts: Attempts,
        journal: Journal,
        *,
        share: float,
        budget_share: float,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
    ) -> None:
        """Score a `share` of the answers.

        It costs at most `budget_share` of what they would have cost at the most expensive backend.
        """
        self._reserving = reserving
        self._attempts = attempts
        self._journal = journal
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._auditor = Auditor(share=share, budget_share=budget_share)

    def prepared(
        self, state: RequestState, plan: RoutePlan, target: Target, call: Call
    ) -> RequestState | None:
        """Return the state of a call to a backend, quoted; None if it may not be called now."""
        inference, now_s = state.inference, self._clock()
        slots = target.slots
        if slots is not None and slots.busy >= CROWDED * slots.limit:
            return None
        if not target.allows(now_s, inference.caller):
            return None
        own = RequestState(
            replace(
                inference,
                route=plan,
                call=call,
                received_s=now_s,
                deadline_s=now_s + target.timeout_s,
                trace=None,
                memory=None,
                client=None,
            ),
            state.context,
        )
        quote(own, target, now_s)
        return own

    def draw(
        self, state: RequestState, asked: list[tuple[RequestState, Target]], *, earns: bool = True
    ) -> float:
        """Return the probability with which these calls are made, or 0.0 if they are not.

        `earns`: whether the request adds to what may be spent; once, however many replies it had.
        """
        most_nano = sum(own.quotes[target.name].ceiling_nano for own, target in asked)
        # Not of what was spent: a route that has moved to its cheapest backend could no longer pay
        # for the evidence that this was wrong.
        quoted = [quoted.expected_nano for quoted in state.quotes.values()]
        return self._auditor.draw(
            "",
            EVEN,
            spent_nano=max(quoted, default=state.cost_nano) if earns else 0,
            audit_nano=most_nano,
            rng=self._rng,
        )

    def give_back(self, unmade: list[tuple[RequestState, Target]]) -> None:
        """Return to the share what calls that were drawn would have cost, as they are not made."""
        self._auditor.charge(-sum(own.quotes[one.name].ceiling_nano for own, one in unmade))

    async def make(  # noqa: PLR0917 - what is called, then why
        self,
        state: RequestState,
        own: RequestState,
        target: Target,
        signal: str,
        chance: float,
        drawn: RequestState | None = None,
    ) -> Attempt | None:
        """Make a call that was drawn; None if it could not be made or failed.

        `drawn`: the call in whose place it is made, by default itself.
        """
        held_nano, cost_nano = (drawn or own).quotes[target.name].ceiling_nano, 0
        try:
            hold = await self._reserving.reserve(own, target)
            if isinstance(hold, BudgetRefusal):
                return None
            attempt = await self._attempts.make(own, target, hold, audit=chance)
        finally:
            # Charge it even if the task was cancelled: `own` has recorded the attempt.
            for made in own.attempts:
                cost_nano += made.outcome.cost_nano
                row = audit_row(state, made, self._wall())
                row["signal"] = signal
                self._journal.append(row)
            self._auditor.charge(cost_nano - held_nano)
            if own.inference.memory is not None:
                own.inference.memory.close()
        return attempt if not attempt.error and attempt.status == 200 else None
