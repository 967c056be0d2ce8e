"""Runs rollouts: the control interface, and what each gateway process does for them.

The state of a rollout is a document of the control store, which all gateways of a ledger share.
Every TICK_S a process reads it, puts it into effect on its routes, and writes its own evidence. The
process that holds the rollout's lease adds up all evidence and makes the move that is due, by
compare-and-set: a move that was decided on an old state is lost, and decided again.

    start(name, actor, why)     resume(...)     status(name)     history(name)
    pause(name, actor, why)     promote(...)    abort(...)       every name: names

If the store does not answer, requests go on with the last known state.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tollway.gateway.control_store.protocol import ControlStore, StoreUnavailable
from tollway.gateway.rollouts import controller
from tollway.gateway.rollouts.answer_drift import AnswerDrift
from tollway.gateway.rollouts.binding import BoundRoute
from tollway.gateway.rollouts.collector import Collector
from tollway.gateway.rollouts.controller import MoveRefused
from tollway.gateway.rollouts.documents import RolloutDocuments
from tollway.gateway.rollouts.model import Measure, Move, RolloutPlan, RolloutState
from tollway.gateway.rollouts.pool import Pooled, document, pooled
from tollway.gateway.rollouts.reporting import TOLLWAY, Listener, MoveReports
from tollway.gateway.rollouts.rollout import Rollout
from tollway.gateway.rollouts.status import describe
from tollway.gateway.routing.observer import EventSink
from tollway.gateway.routing.plan import Target
from tollway.gateway.storage.audit_log import Actor, AuditLog

log = logging.getLogger(__name__)

TICK_S = 1.0
SMOKE_WAIT_S = 0.5  # of a tick, for smoke requests; they go on meanwhile

Smoke = Callable[[RolloutPlan, Target], Awaitable[str]]
"""Makes the smoke requests; returns why one failed, or ""."""


class UnknownRollout(KeyError):  # noqa: N818 - reads as what happened
    """No rollout has this name."""


class Rollouts:
    """All rollouts of a gateway process."""

    # The mutable state is the rollouts, the bound routes, and whether the store answers.

    def __init__(
        self,
        store: ControlStore,
        *,
        events: EventSink,
        audit: AuditLog,
        wall: Callable[[], float],
        smoke: Smoke | None = None,
        member: str = "",
    ) -> None:
        """`member` names this process among all gateways; `wall` is the time of day."""
        self.rollouts: dict[str, Rollout] = {}
        self.routes: dict[str, BoundRoute] = {}
        self.drift = AnswerDrift(events)
        self._documents = RolloutDocuments(store, member or secrets.token_hex(8))
        self._reports = MoveReports(self._documents, events=events, audit=audit, wall=wall)
        self._events = events
        self._wall = wall
        self._smoke = smoke
        self._lock = asyncio.Lock()
        self._answers = True

    # -- life

    def revise(self, plans: Sequence[RolloutPlan], routes: Mapping[str, BoundRoute]) -> None:
        """Take another configuration; rollouts of the same versions go on."""
        known = self.rollouts
        self.rollouts = {}
        for one in known.values():
            one.stop_smoking()  # made again, by the new configuration
        for plan in plans:
            old = known.get(plan.name)
            new = Rollout(plan, Collector(plan)) if old is None else old.successor(plan)
            self.rollouts[plan.name] = new
        self.routes = dict(routes)
        self._put()

    async def open(self) -> None:
        """Connect to the store, put the states into effect, and start what starts by itself."""
        if not self.rollouts:
            return
        await self.tick()

    async def close(self) -> None:
        """Write the evidence and disconnect."""
        tasks = [one.smoking for one in self.rollouts.values() if one.smoking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._documents.is_open:
            for one in self.rollouts.values():
                try:
                    await self._write_evidence(one)
                except StoreUnavailable as exc:
                    log.warning("evidence on rollout %s was not saved: %s", one.plan.name, exc)
            await self._documents.close()

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every move that this process makes."""
        self._reports.listeners.append(listener)

    # -- what a process does

    async def tick(self) -> None:
        """Read the states, write the evidence, and make the moves that are due."""
        if not self.rollouts:
            return
        try:
            await self._documents.open()
            for one in list(self.rollouts.values()):
                async with self._lock:
                    try:
                        await self._turn(one)
                    except StoreUnavailable:
                        raise
                    except Exception:  # of one rollout must not hold up the others, or a start
                        log.exception("rollout %s could not be looked at", one.plan.name)
            self._answers = True
        except StoreUnavailable as exc:
            if self._answers:
                text = f"the control store does not answer, so rollouts stay where they are: {exc}"
                self._events.add("rollout_store_down", "rollouts", text)
            self._answers = False

    async def _turn(self, one: Rollout) -> None:
        if self.rollouts.get(one.plan.name) is not one:
            return  # a reload has replaced it
        await self._load(one)
        if one.state is None and one.plan.starts:
            await self._start(one)
        await self._write_evidence(one)
        if one.state is not None and one.state.is_watched:
            await self._lead(one)

    async def _start(self, one: Rollout) -> None:
        """Start a rollout that starts by itself, unless another process is faster.

        Once for each pair of versions: gateways with an old and a new configuration would
        otherwise start theirs in turns.
        """
        known = await self._documents.has_run(one.plan.name, one.plan.identity)
        is_present = self.rollouts.get(one.plan.name) is one
        if is_present and not known and self._candidate(one.plan) is not None:
            move = self._started(one, None, TOLLWAY, "it starts by itself")
            await self._make(one, move, TOLLWAY)

    def _started(self, one: Rollout, state: RolloutState | None, actor: Actor, why: str) -> Move:
        run = secrets.token_hex(8)
        return controller.start(one.plan, state, run=run, now_s=self._wall(), by=actor.who, why=why)

    async def _load(self, one: Rollout) -> None:
        """Read a rollout's state; put it into effect if it is another."""
        state, _ = await self._documents.state(one.plan.name)
        if state is not None and state.identity != one.plan.identity:
            state = None  # of another candidate
        self._take(one, state)

    def _take(self, one: Rollout, state: RolloutState | None) -> None:
        if one.take(state):
            self._put()

    def _put(self) -> None:
        """Put the states into effect on all routes; nothing is awaited."""
        states = [(one.plan, one.state) for one in self.rollouts.values()]
        for route in self.routes.values():
            route.apply(states)

    async def _write_evidence(self, one: Rollout) -> None:
        if one.is_watched:
            found = document(one, self._broken(one.plan), self._wall())
            await self._documents.write_evidence(one.plan.name, found)

    async def _lead(self, one: Rollout) -> None:
        """Make the move that is due, if this process holds the lease."""
        one.measures, one.waiting = {}, ()  # what another process says of them counts
        if not await self._documents.lease(one.plan.name):
            return
        assert one.state is not None
        if controller.waits_for_smoke(one.plan, one.state) and one.smoke is None:
            if one.smoking is None:  # without the lock: it may take minutes
                one.smoking = asyncio.create_task(self._smoke_once(one, one.state.run))
            await asyncio.wait([one.smoking], timeout=SMOKE_WAIT_S)
        found, revision = await self._evidence(one)
        evidence, one.measures = found.evidence, found.evidence.measures
        if found.fold is not None:
            await self._documents.fold(one.plan.name, found.fold, found.parts, revision)
        if one.state.is_live:
            one.waiting = controller.waiting(one.plan, one.state, evidence, self._wall())
        move = controller.next(one.plan, one.state, evidence, self._wall())
        if move is not None:
            await self._make(one, move, TOLLWAY)

    async def _smoke_once(self, one: Rollout, run: str) -> None:
        try:
            found = await self._smoked(one.plan)
        except Exception as exc:
            log.exception("the smoke requests of rollout %s could not be made", one.plan.name)
            found = type(exc).__name__
        one.smoking = None
        if one.state is not None and one.state.run == run:
            one.smoke = found

    async def _smoked(self, plan: RolloutPlan) -> str:
        target = self._candidate(plan)
        if target is None or self._smoke is None:
            return "the candidate is on none of the routes"
        return await self._smoke(plan, target)

    async def _evidence(self, one: Rollout) -> tuple[Pooled, int]:
        """Return all processes' evidence on a rollout's present run, and its sum's revision."""
        documents, revision = await self._documents.evidence(one.plan.name)
        member, broken = self._documents.member, self._broken(one.plan)
        found = await pooled(one, documents, member, broken, self._wall())
        one.agreement = found.agreement
        return found, revision

    def _candidate(self, plan: RolloutPlan) -> Target | None:
        for route in self.routes.values():
            if plan.candidate in route.backends:
                return route.backends[plan.candidate]
        return None

    def _broken(self, plan: RolloutPlan) -> str:
        target = self._candidate(plan)
        if target is None or target.up:
            return ""
        return "the candidate is out of service: its circuit breaker is open or its key is refused"

    # -- moves

    async def _make(self, one: Rollout, move: Move, actor: Actor, begun: int | None = None) -> bool:
        """Write a move, put it into effect and report it; False if the state has changed."""
        name = one.plan.name
        before, revision = await self._documents.state(name)
        expected = move.state.number - 1
        if before is not None and before.number != expected:
            if not (one.state is None and before.identity != one.plan.identity):
                return False
            move = Move(move.kind, _numbered(move.state, before.number + 1), move.why)
        if not await self._documents.put_state(move.state, revision):
            return False
        old = one.state
        self._take(one, move.state)
        if move.kind == "started":
            await self._documents.begin_run(name, one.plan.identity)
        await self._reports.made(one, move, old, actor, begun)
        return True

    # -- the control interface

    @property
    def moves(self) -> Counter[tuple[str, str]]:
        """How many moves this process has made, by rollout and kind."""
        return self._reports.moves

    @property
    def answers(self) -> bool:
        """Whether the control store answered last."""
        return self._answers

    @property
    def names(self) -> list[str]:
        """The names of the rollouts."""
        return list(self.rollouts)

    async def start(self, name: str, actor: Actor, why: str) -> dict[str, Any]:
        """Start a rollout.

        As all acts it raises UnknownRollout, MoveRefused, StoreUnavailable, or OSError if the audit
        log cannot be written; nothing has changed then.
        """
        one = self._find(name)
        if self._candidate(one.plan) is None:
            raise MoveRefused(f"rollout {name!r} has no candidate yet")

        return await self._act(one, actor, lambda state: self._started(one, state, actor, why))

    async def pause(self, name: str, actor: Actor, why: str) -> dict[str, Any]:
        """Hold a rollout at its weight."""
        one = self._find(name)
        return await self._act(
            one, actor, lambda state: controller.pause(state, by=actor.who, why=why)
        )

    async def resume(self, name: str, actor: Actor, why: str) -> dict[str, Any]:
        """Go on after a pause."""
        one = self._find(name)
        return await self._act(
            one,
            actor,
            lambda state: controller.resume(
                one.plan, state, now_s=self._wall(), by=actor.who, why=why
            ),
        )

    async def promote(self, name: str, actor: Actor, why: str) -> dict[str, Any]:
        """Send everything to the candidate now."""
        one = self._find(name)
        return await self._act(
            one,
            actor,
            lambda state: controller.promote(state, now_s=self._wall(), by=actor.who, why=why),
        )

    async def abort(self, name: str, actor: Actor, why: str) -> dict[str, Any]:
        """Send everything to the stable version now."""
        one = self._find(name)
        return await self._act(
            one,
            actor,
            lambda state: controller.abort(state, now_s=self._wall(), by=actor.who, why=why),
        )

    async def status(self, name: str) -> dict[str, Any]:
        """Return where a rollout is, with its evidence and what it waits for."""
        one = self._find(name)
        await self._documents.open()
        async with self._lock:
            await self._load(one)
            return await self._status(one)

    async def _status(self, one: Rollout) -> dict[str, Any]:
        measures: Mapping[str, Measure] = {}
        waiting: tuple[str, ...] = ()
        if one.state is not None:
            evidence = (await self._evidence(one))[0].evidence
            measures = evidence.measures
            if one.state.is_live:
                waiting = controller.waiting(one.plan, one.state, evidence, self._wall())
        return describe(one.plan, one.state, measures, waiting, one.agreement)

    async def history(self, name: str) -> list[dict[str, Any]]:
        """Return a rollout's moves, newest first."""
        self._find(name)
        await self._documents.open()
        return (await self._documents.history(name))[::-1]

    def _find(self, name: str) -> Rollout:
        one = self.rollouts.get(name)
        if one is None:
            raise UnknownRollout(name)
        return one

    async def _act(
        self, one: Rollout, actor: Actor, act: Callable[[RolloutState | None], Move]
    ) -> dict[str, Any]:
        await self._documents.open()
        for _ in range(5):  # the leader may move at the same moment
            async with self._lock:
                await self._load(one)
                move = act(one.state)
                begun = await self._reports.begin(one, move, actor)
                if await self._make(one, move, actor, begun):
                    return await self._status(one)
        raise MoveRefused(f"rollout {one.plan.name!r} changes too fast; try again")


def _numbered(state: RolloutState, number: int) -> RolloutState:
    return RolloutState.of({**state.document(), "number": number})
