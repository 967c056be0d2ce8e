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
import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tollway.gateway.control_store.protocol import ControlStore, StoreUnavailable
from tollway.gateway.rollouts import controller
from tollway.gateway.rollouts.answer_drift import AnswerDrift
from tollway.gateway.rollouts.binding import BoundRoute
from tollway.gateway.rollouts.collector import Collector
from tollway.gateway.rollouts.controller import MoveRefused
from tollway.gateway.rollouts.model import (
    Evidence,
    Measure,
    Move,
    RolloutPlan,
    RolloutState,
)
from tollway.gateway.routing.observer import EventSink
from tollway.gateway.routing.plan import Target
from tollway.gateway.storage import audit_log
from tollway.gateway.storage.audit_log import Actor, AuditLog

log = logging.getLogger(__name__)

TICK_S = 1.0
SMOKE_WAIT_S = 0.5  # of a tick, for smoke requests; they go on meanwhile
LEASE_S = 5.0  # five ticks: the next process takes over soon after a crash
ALIVE_S = 10.0  # a process whose evidence is older counts no more as behind
HISTORY_MAX = 100  # moves of one rollout that are kept, with their figures: some 200 KB
WHY_CHARS_MAX = 1000
RAN_MAX = 100  # pairs of versions that have been started once
TOLLWAY = Actor("tollway", "evidence")

Smoke = Callable[[RolloutPlan, Target], Awaitable[str]]
"""Makes the smoke requests; returns why one failed, or ""."""


class UnknownRollout(KeyError):  # noqa: N818 - reads as what happened
    """No rollout has this name."""


@dataclass(slots=True)
class Rollout:
    """One rollout in this process: its plan, state as applied, and evidence."""

    # The mutable state is all of it but the plan.

    plan: RolloutPlan
    collector: Collector
    state: RolloutState | None = None
    smoke: str | None = None
    smoking: asyncio.Task[None] | None = None
    written: int = -1
    measures: dict[str, Measure] = field(default_factory=dict)
    agreement: tuple[float, float] = (0.0, 0.0)
    waiting: tuple[str, ...] = ()


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
        self._store = store
        self._events = events
        self._audit = audit
        self._wall = wall
        self._smoke = smoke
        self.drift = AnswerDrift(events)
        self._member = member or secrets.token_hex(8)
        self._lock = asyncio.Lock()
        self._answers = True
        self._open = False
        self._moved: list[Callable[[Move, RolloutPlan], None]] = []
        self.moves: Counter[tuple[str, str]] = Counter()

    # -- life

    def revise(self, plans: Sequence[RolloutPlan], routes: Mapping[str, BoundRoute]) -> None:
        """Take another configuration; rollouts of the same versions go on."""
        known = self.rollouts
        self.rollouts = {}
        for one in known.values():
            if one.smoking is not None:  # made again, by the new configuration
                one.smoking.cancel()
        for plan in plans:
            old = known.get(plan.name)
            new = Rollout(plan, Collector(plan))
            if old is not None and old.plan.identity == plan.identity:
                new.state, new.smoke = old.state, old.smoke
                if old.plan.criteria == plan.criteria:
                    old.collector.plan = plan
                    new.collector, new.written = old.collector, old.written
            self.rollouts[plan.name] = new
        self.routes = dict(routes)
        self._put()

    async def open(self) -> None:
        """Connect to the store, put the states into effect, and start what starts by itself."""
        if not self.rollouts:
            return
        await self.tick()

    async def _opened(self) -> None:
        if not self._open:
            await self._store.open()
            self._open = True

    async def close(self) -> None:
        """Write the evidence and disconnect."""
        tasks = [one.smoking for one in self.rollouts.values() if one.smoking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._open:
            for one in self.rollouts.values():
                try:
                    await self._write_evidence(one)
                except StoreUnavailable as exc:
                    log.warning("evidence on rollout %s was not saved: %s", one.plan.name, exc)
            await self._store.close()
            self._open = False

    def listen(self, listener: Callable[[Move, RolloutPlan], None]) -> None:
        """Call `listener` with every move that this process makes."""
        self._moved.append(listener)

    # -- what a process does

    async def tick(self) -> None:
        """Read the states, write the evidence, and make the moves that are due."""
        if not self.rollouts:
            return
        try:
            await self._opened()
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
        ran = await self._store.get(_key(one, "ran"))
        known = ran is not None and one.plan.identity in ran[0]
        is_present = self.rollouts.get(one.plan.name) is one
        if is_present and not known and self._candidate(one.plan) is not None:
            move = self._started(one, None, TOLLWAY, "it starts by itself")
            await self._make(one, move, TOLLWAY)

    def _started(self, one: Rollout, state: RolloutState | None, actor: Actor, why: str) -> Move:
        run = secrets.token_hex(8)
        return controller.start(one.plan, state, run=run, now_s=self._wall(), by=actor.who, why=why)

    async def _load(self, one: Rollout) -> None:
        """Read a rollout's state; put it into effect if it is another."""
        found = await self._store.get(_key(one, "state"))
        state = None if found is None else RolloutState.of(found[0])
        if state is not None and state.identity != one.plan.identity:
            state = None  # of another candidate
        self._take(one, state)

    def _take(self, one: Rollout, state: RolloutState | None) -> None:
        old = one.state
        if state == old:
            return
        if _of(state) != _of(old):
            one.collector, one.written = Collector(one.plan), -1
            one.measures = {}
        if state is None or old is None or state.run != old.run:
            one.smoke = None
            if one.smoking is not None:
                one.smoking.cancel()
                one.smoking = None
        one.state = state
        self._put()

    def _put(self) -> None:
        """Put the states into effect on all routes; nothing is awaited."""
        states = [(one.plan, one.state) for one in self.rollouts.values()]
        for route in self.routes.values():
            route.apply(states)

    async def _write_evidence(self, one: Rollout) -> None:
        state = one.state
        if state is None or not state.is_watched:
            return
        document = {
            "run": state.run,
            "epoch": state.epoch,
            "number": state.number,
            "time": self._wall(),
            "broken": self._broken(one.plan),
            "evidence": one.collector.save(),
        }
        await self._store.write(f"{_key(one, 'evidence')}/{self._member}", document)

    async def _lead(self, one: Rollout) -> None:
        """Make the move that is due, if this process holds the lease."""
        name = one.plan.name
        one.measures, one.waiting = {}, ()  # what another process says of them counts
        if not await self._store.lease(f"rollouts/{name}", self._member, LEASE_S):
            return
        assert one.state is not None
        if controller.waits_for_smoke(one.plan, one.state) and one.smoke is None:
            if one.smoking is None:  # without the lock: it may take minutes
                one.smoking = asyncio.create_task(self._smoke_once(one, one.state.run))
            await asyncio.wait([one.smoking], timeout=SMOKE_WAIT_S)
        evidence = await self._evidence(one)
        one.measures = evidence.measures
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

    async def _evidence(self, one: Rollout) -> Evidence:
        """Return all processes' evidence on a rollout's present run."""
        state, now_s = one.state, self._wall()
        assert state is not None
        documents = await self._store.list(f"{_key(one, 'evidence')}/")
        own = f"{_key(one, 'evidence')}/{self._member}"
        others, broken, behind = {}, self._broken(one.plan), 0
        for key, document in documents.items():
            if key == own or document["run"] != state.run:
                continue
            alive = now_s - document["time"] < ALIVE_S
            behind += alive and document["number"] < state.number
            if document["epoch"] == state.epoch:
                others[key] = document["evidence"]
            if alive and document["broken"]:
                broken = broken or document["broken"]
        measures = one.collector.total(others)
        agreed = [one.collector.agreed, *(each.get("agreed", (0, 0)) for each in others.values())]
        one.agreement = sum(each[0] for each in agreed), sum(each[1] for each in agreed)
        return Evidence(measures, broken, one.smoke, behind)

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
        found = await self._store.get(_key(one, "state"))
        revision = 0 if found is None else found[1]
        before = None if found is None else RolloutState.of(found[0])
        expected = move.state.number - 1
        if before is not None and before.number != expected:
            if not (one.state is None and before.identity != one.plan.identity):
                return False
            move = Move(move.kind, _numbered(move.state, before.number + 1), move.why)
        if not await self._store.put(_key(one, "state"), move.state.document(), revision):
            return False
        old = one.state
        self._take(one, move.state)
        if move.kind == "started":
            with contextlib.suppress(StoreUnavailable):  # what is old is told by its run
                ran = await self._store.get(_key(one, "ran"))
                names = (
                    [] if ran is None else [each for each in ran[0] if each != one.plan.identity]
                )
                await self._store.write(_key(one, "ran"), [*names, one.plan.identity][-RAN_MAX:])
                await self._store.delete(f"{_key(one, 'evidence')}/")
        await self._note(one, move, old, actor, begun)
        return True

    async def _note(
        self,
        one: Rollout,
        move: Move,
        old: RolloutState | None,
        actor: Actor,
        begun: int | None,
    ) -> None:
        """Report a move: history, audit log, event; they are no condition of it."""
        plan, state = one.plan, move.state
        entry = {
            "time": self._wall(),
            "kind": move.kind,
            "why": move.why[:WHY_CHARS_MAX],
            "who": actor.who,
            "phase": state.phase,
            "step": state.step,
            "weight": state.weight,
            "run": state.run,
            "measures": {name: asdict(value) for name, value in one.measures.items()},
        }
        try:
            await self._remember(one, entry)
        except StoreUnavailable as exc:
            log.warning("a move of rollout %s is not in its history: %s", plan.name, exc)
        try:
            await asyncio.to_thread(
                self._audit.write,
                f"rollout {move.kind}",
                actor,
                audit_log.DONE,
                about=plan.name,
                why=move.why,
                before=_brief(old),
                after=_brief(state),
                begun=begun,
            )
        except OSError as exc:
            self._events.add("audit_failed", plan.name, f"a move of a rollout is not in it: {exc}")
        self._events.add(
            f"rollout_{move.kind}",
            plan.name,
            f"{move.why}; {plan.candidate} gets {state.weight:.0%} of {plan.backend}",
            phase=state.phase,
            step=state.step,
            weight=state.weight,
            who=actor.who,
        )
        self.moves[plan.name, move.kind] += 1
        for listener in self._moved:
            listener(move, plan)

    async def _remember(self, one: Rollout, entry: dict[str, Any]) -> None:
        key = _key(one, "history")
        for _ in range(10):  # another process may write at the same moment
            found = await self._store.get(key)
            entries, revision = ([], 0) if found is None else found
            if await self._store.put(key, [*entries, entry][-HISTORY_MAX:], revision):
                return

    # -- the control interface

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
        await self._opened()
        async with self._lock:
            await self._load(one)
            return await self._status(one)

    async def _status(self, one: Rollout) -> dict[str, Any]:
        measures: Mapping[str, Measure] = {}
        waiting: tuple[str, ...] = ()
        if one.state is not None:
            evidence = await self._evidence(one)
            measures = evidence.measures
            if one.state.is_live:
                waiting = controller.waiting(one.plan, one.state, evidence, self._wall())
        return describe(one.plan, one.state, measures, waiting, one.agreement)

    async def history(self, name: str) -> list[dict[str, Any]]:
        """Return a rollout's moves, newest first."""
        one = self._find(name)
        await self._opened()
        found = await self._store.get(_key(one, "history"))
        return [] if found is None else list(found[0])[::-1]

    def _find(self, name: str) -> Rollout:
        one = self.rollouts.get(name)
        if one is None:
            raise UnknownRollout(name)
        return one

    async def _act(
        self, one: Rollout, actor: Actor, act: Callable[[RolloutState | None], Move]
    ) -> dict[str, Any]:
        await self._opened()
        for _ in range(5):  # the leader may move at the same moment
            async with self._lock:
                await self._load(one)
                move = act(one.state)
                begun = await self._begin(one, move, actor)
                if await self._make(one, move, actor, begun):
                    return await self._status(one)
        raise MoveRefused(f"rollout {one.plan.name!r} changes too fast; try again")

    async def _begin(self, one: Rollout, move: Move, actor: Actor) -> int | None:
        """Write a person's act into the audit log before it is done; OSError if it cannot be."""
        if actor == TOLLWAY:
            return None
        return await asyncio.to_thread(
            self._audit.write,
            f"rollout {move.kind}",
            actor,
            audit_log.BEGUN,
            about=one.plan.name,
            why=move.why,
            before=_brief(one.state),
        )


def describe(
    plan: RolloutPlan,
    state: RolloutState | None,
    measures: Mapping[str, Measure],
    waiting: Sequence[str],
    agreed: tuple[float, float] = (0.0, 0.0),
) -> dict[str, Any]:
    """Return a rollout as a document, for the API, the command line and the dashboard."""
    return {
        "name": plan.name,
        "backend": plan.backend,
        "candidate": plan.candidate,
        "strategy": plan.strategy,
        "routes": list(plan.routes),
        "sticky": plan.sticky,
        "steps": [asdict(step) for step in plan.steps],
        "phase": "idle" if state is None else state.phase,
        "step": None if state is None else state.step,
        "weight": 0.0 if state is None else state.weight,
        "run": None if state is None else state.run,
        "started_s": None if state is None else state.started_s,
        "step_since_s": None if state is None else state.since_s,
        "ended_s": None if state is None else state.ended_s,
        "failures": 0 if state is None else state.failures,
        "why": "" if state is None else state.why,
        "by": "" if state is None else state.by,
        "waiting": list(waiting),
        "agreement": agreed[1] / agreed[0] if agreed[0] else None,
        "compared": int(agreed[0]),
        "criteria": [
            {**asdict(one), "alarm": controller.alarm_at(plan, one)} for one in plan.criteria
        ],
        "measures": {name: asdict(measure) for name, measure in measures.items()},
    }


def _key(one: Rollout, what: str) -> str:
    return f"rollouts/{one.plan.name}/{what}"


def _of(state: RolloutState | None) -> tuple[str, int] | None:
    """Return what evidence belongs to: the run and the restarts in it."""
    return None if state is None else (state.run, state.epoch)


def _numbered(state: RolloutState, number: int) -> RolloutState:
    return RolloutState.of({**state.document(), "number": number})


def _brief(state: RolloutState | None) -> dict[str, Any]:
    if state is None:
        return {"phase": "idle", "weight": 0.0}
    return {"phase": state.phase, "step": state.step, "weight": state.weight}
