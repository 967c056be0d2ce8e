"""Joins the registry to the rollouts: a version is tried by a rollout of the gateway."""

from collections.abc import Awaitable, Mapping
from typing import Any, Literal

from tollway.gateway.control_store.protocol import StoreUnavailable
from tollway.gateway.registry.lifecycle import Trial
from tollway.gateway.registry.moves import MoveFailed
from tollway.gateway.rollouts.controller import MoveRefused
from tollway.gateway.rollouts.service import Rollouts, UnknownRollout
from tollway.gateway.storage.audit_log import Actor

_PHASES: dict[str, Literal["running", "promoted", "retired", "stopped"]] = {
    "progressing": "running",
    "paused": "running",
    "promoted": "promoted",
    "retired": "retired",
    "rolled_back": "stopped",
    "aborted": "stopped",
}
_ACTOR = Actor("registry", "registry")


class Trials:
    """The rollouts as the registry's keeper uses them."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    async def trial(self, rollout: str) -> Trial | None:
        """Return where a rollout is; None if it was never started. Raises MoveFailed."""
        found = await self._asked(self._rollouts.status(rollout))
        if found["run"] is None:
            return None
        return Trial(
            found["run"], _PHASES[found["phase"]], found["why"], found["by"], figures(found)
        )

    async def start(self, rollout: str, why: str) -> str:
        """Start a rollout, or join one that runs; return its run. Raises MoveFailed."""
        trial = await self.trial(rollout)
        if trial is not None and trial.phase in {"running", "promoted"}:
            return trial.run  # it starts by itself, or another gateway has started it
        started = await self._asked(self._rollouts.start(rollout, _ACTOR, why))
        return str(started["run"])

    async def promote(self, rollout: str, why: str) -> None:
        """Send everything to the candidate now. Raises MoveFailed."""
        await self._asked(self._rollouts.promote(rollout, _ACTOR, why))

    async def abort(self, rollout: str, why: str) -> None:
        """Send everything to the stable version now. Raises MoveFailed."""
        await self._asked(self._rollouts.abort(rollout, _ACTOR, why))

    async def _asked(self, act: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        try:
            return await act
        except UnknownRollout as exc:
            raise MoveFailed(f"there is no rollout {exc.args[0]!r}") from exc
        except (MoveRefused, StoreUnavailable, OSError) as exc:
            raise MoveFailed(str(exc) or type(exc).__name__) from exc


def figures(status: Mapping[str, Any]) -> dict[str, str]:
    """Return what a rollout has measured, as texts: `error_rate`: `0.001 against 0.002, ...`."""
    return {
        name: f"{one['candidate']:.4g} against {one['stable']:.4g}, in {one['candidate_count']} "
        f"and {one['stable_count']} observations"
        for name, one in status["measures"].items()
    }
