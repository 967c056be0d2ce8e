"""Reports a rollout's moves: its history, the audit log, an event, and those who listen."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tollway.gateway.control_store.protocol import StoreUnavailable
from tollway.gateway.rollouts.documents import RolloutDocuments
from tollway.gateway.rollouts.model import Move, RolloutPlan, RolloutState
from tollway.gateway.rollouts.rollout import Rollout
from tollway.gateway.routing.observer import EventSink
from tollway.gateway.storage import audit_log
from tollway.gateway.storage.audit_log import Actor, AuditLog

log = logging.getLogger(__name__)

WHY_CHARS_MAX = 1000
TOLLWAY = Actor("tollway", "evidence")

Listener = Callable[[Move, RolloutPlan], None]


class MoveReports:
    """Reports moves. A person's act is in the audit log before it is done; the rest comes after."""

    # The mutable state is the listeners and the counts.

    def __init__(
        self,
        documents: RolloutDocuments,
        *,
        events: EventSink,
        audit: AuditLog,
        wall: Callable[[], float],
    ) -> None:
        self._documents = documents
        self._events = events
        self._audit = audit
        self._wall = wall
        self.listeners: list[Listener] = []
        self.moves: Counter[tuple[str, str]] = Counter()

    async def begin(self, one: Rollout, move: Move, actor: Actor) -> int | None:
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

    async def made(
        self,
        one: Rollout,
        move: Move,
        old: RolloutState | None,
        actor: Actor,
        begun: int | None,
    ) -> None:
        """Report a move that was made; a report that fails does not undo it."""
        plan, state = one.plan, move.state
        try:
            await self._documents.remember(plan.name, self._entry(one, move, actor))
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
        for listener in self.listeners:
            listener(move, plan)

    def _entry(self, one: Rollout, move: Move, actor: Actor) -> dict[str, Any]:
        state = move.state
        return {
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


def _brief(state: RolloutState | None) -> dict[str, Any]:
    if state is None:
        return {"phase": "idle", "weight": 0.0}
    return {"phase": state.phase, "step": state.step, "weight": state.weight}
