"""Mirrors requests to candidates in shadow, off the clients' path, and compares the replies.

After a reply of the stable version is sent, a share of the requests is sent to the candidate in a
task that no client waits for. The call is reserved in all matching budgets, charged, journalled and
counted like any attempt, and its row has the rollout's name as `shadow`. Nothing of its reply
reaches a client. Its answer is compared with the stable version's (agreement) and, when a label of
the request comes, with that.

A copy never waits and never takes what clients need: it is left out if a budget refuses it or the
rollout's own hourly budget is spent, if half of the candidate's slots are in use, or if as many
copies are under way as the rollout allows.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from tollway.backends.money import to_usd
from tollway.backends.scoring import Incomparable
from tollway.gateway.budgets.model import BudgetRefusal
from tollway.gateway.rollouts.binding import Binding, BoundRoute, mirrors
from tollway.gateway.rollouts.keys import cluster, tenant_group
from tollway.gateway.rollouts.observer import count
from tollway.gateway.rollouts.rollout import Rollout
from tollway.gateway.rollouts.service import Rollouts
from tollway.gateway.routing.attempts import Attempts
from tollway.gateway.routing.metering import AttemptOutcome
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.reserving import Reserving
from tollway.gateway.routing.router import quote
from tollway.gateway.routing.sinks.records import audit_row
from tollway.gateway.storage.journal import Journal

log = logging.getLogger(__name__)

CROWDED = 0.5  # share of the candidate's slots that copies may find busy
DRAIN_S = 5.0  # longest wait for copies at shutdown; copies cancelled then are still charged
ANSWERS_MAX = 10_000  # answers that wait for the label of their request: some megabytes
HOUR_S = 3600.0
OK = 200


class ShadowRunner:
    """Mirrors the requests of all routes that have a shadow."""

    # The mutable state is the copies under way, what each rollout spent this hour, the answers that
    # wait for labels, and the counts.

    def __init__(
        self,
        rollouts: Rollouts,
        reserving: Reserving,
        attempts: Attempts,
        journal: Journal,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
    ) -> None:
        """`rng` draws the requests that are mirrored."""
        self._rollouts = rollouts
        self._reserving = reserving
        self._attempts = attempts
        self._journal = journal
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._spent: dict[str, tuple[int, int]] = {}
        self._answers: dict[str, tuple[str, AttemptOutcome, tuple[int, int]]] = {}
        self._closing = False
        self.counts: Counter[tuple[str, str]] = Counter()

    def ended(self, state: RequestState, now_s: float) -> None:
        """Consider mirroring a finished request (0.1 us on a route without a rollout)."""
        bound = self._rollouts.routes.get(state.inference.route.name)
        if bound is None or self._closing or not state.draws:
            return
        for binding in bound.bindings:
            one = self._rollouts.rollouts[binding.plan.name]
            if mirrors(one.plan, one.state) and self._is_mirrored(state, one):
                self._consider(state, bound, binding, one, now_s)

    def _is_mirrored(self, state: RequestState, one: Rollout) -> bool:
        """Draw whether a request is mirrored: one that the stable version answered itself."""
        mirror, held, payload = one.plan.mirror, state.held, state.inference.call.payload
        if mirror is None or held is None or self._rng.random() >= mirror.share:
            return False
        if payload.creates or payload.defers or payload.endpoint.is_free or payload.refers:
            return False  # a copy would make an object, or ask for one that is elsewhere
        return held.backend == one.plan.backend and not held.fallback and held.status < 500

    def _consider(
        self,
        state: RequestState,
        bound: BoundRoute,
        binding: Binding,
        one: Rollout,
        now_s: float,
    ) -> None:
        name, mirror = one.plan.name, one.plan.mirror
        assert mirror is not None
        target = bound.backends[one.plan.candidate]
        slots = target.slots
        if sum(1 for other in self._tasks.values() if other == name) >= mirror.concurrency:
            self.counts[name, "busy"] += 1
        elif slots is not None and slots.busy >= CROWDED * slots.limit:
            self.counts[name, "no_capacity"] += 1
        elif not target.allows(now_s, state.inference.caller):
            self.counts[name, "down"] += 1
        else:
            own = self._own(state, target)
            ceiling_nano = quote(own, target, self._clock()).ceiling_nano
            if self._affords(name, mirror.budget_nano_per_h, ceiling_nano):
                task = asyncio.create_task(self._mirror(state, own, target, one, ceiling_nano))
                self._tasks[task] = name
                task.add_done_callback(self._ended)
            else:
                self.counts[name, "over_budget"] += 1

    def _own(self, state: RequestState, target: Target) -> RequestState:
        """Return a state of its own: the client's deadline and ceiling are those of its call."""
        now_s = self._clock()
        inference = replace(
            state.inference,
            received_s=now_s,
            deadline_s=now_s + target.timeout_s,
            cost_nano_max=None,
            trace=None,
            client=None,
            client_deadline=False,
            memory=None,
        )
        return RequestState(inference, state.context, id=state.id)

    def _affords(self, name: str, most_nano: int | None, ceiling_nano: int) -> bool:
        """Hold the ceiling of a copy in the rollout's budget of this hour."""
        hour = int(self._wall() // HOUR_S)
        since, spent_nano = self._spent.get(name, (hour, 0))
        if since != hour:
            spent_nano = 0
        if most_nano is not None and spent_nano + ceiling_nano > most_nano:
            return False
        self._spent[name] = (hour, spent_nano + ceiling_nano)
        return True

    async def _mirror(
        self, state: RequestState, own: RequestState, target: Target, one: Rollout, held_nano: int
    ) -> None:
        name, cost_nano = one.plan.name, 0
        mirror = one.plan.mirror
        assert mirror is not None
        try:
            hold = await self._reserving.reserve(own, target)
            if isinstance(hold, BudgetRefusal):
                self.counts[name, "over_budget"] += 1
                return
            copy = await self._attempts.make(own, target, hold, audit=mirror.share)
            self.counts[name, "failed" if copy.error else "answered"] += 1
            self._compare(state, own, copy, one)
        finally:
            for attempt in own.attempts:
                cost_nano += attempt.outcome.cost_nano
                row = audit_row(own, attempt, self._wall())
                row["shadow"] = name
                self._journal.append(row)
            if own.inference.memory is not None:
                own.inference.memory.close()
            hour, spent_nano = self._spent.get(name, (0, 0))
            self._spent[name] = (hour, max(spent_nano + cost_nano - held_nano, 0))

    def _compare(self, state: RequestState, own: RequestState, copy: Attempt, one: Rollout) -> None:
        if one.state is None or not one.state.is_watched:
            return
        count(one, own, copy, candidate=True)
        held = state.held
        if copy.error or held is None or copy.status != OK:
            return
        theirs, ours = copy.outcome.answer.value, held.outcome.answer.value
        if theirs is not None and ours is not None:
            one.collector.agree(agreement(state.inference.route, theirs, ours))
        if len(self._answers) >= ANSWERS_MAX:
            del self._answers[next(iter(self._answers))]
        self._answers[state.id] = (
            one.plan.name,
            copy.outcome,  # not its reply's bytes
            (
                cluster(state.context.unit, state.id),
                tenant_group(one.state.salt, state.inference.tenant),
            ),
        )

    def labelled(self, route: RoutePlan, decision: str, label: Any) -> None:
        """Score a candidate's answer by the label of its request, if it is known here."""
        found = self._answers.pop(decision, None)
        if found is None or label is None:
            return
        name, outcome, groups = found
        one = self._rollouts.rollouts.get(name)
        if one is None or one.state is None or not one.state.is_watched:
            return
        if outcome.no_answer:
            if route.no_answer is not None:
                self._label(one, route, outcome, groups, route.no_answer)
            return
        try:
            quality = route.score.judge(outcome.answer.value, label)
        except Incomparable:
            return
        self._label(one, route, outcome, groups, quality)

    @staticmethod
    def _label(
        one: Rollout,
        route: RoutePlan,
        outcome: AttemptOutcome,
        groups: tuple[int, int],
        quality: float,
    ) -> None:
        one.collector.label(
            True,
            groups[0],
            quality,
            group=groups[1],
            value_usd=route.objective.value_per_correct_usd,
            cost_usd=to_usd(outcome.cost_nano),
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("a mirrored request failed", exc_info=failure)

    async def close(self) -> None:
        """Start no more copies and wait for those under way."""
        self._closing = True
        if not self._tasks:
            return
        _, late = await asyncio.wait(list(self._tasks), timeout=DRAIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def agreement(route: RoutePlan, theirs: Any, ours: Any) -> float:
    """Return how far an answer agrees with the one that the client got, by the route's scorer."""
    scored = route.score(theirs, ours)
    return float(theirs == ours) if scored is None else scored
