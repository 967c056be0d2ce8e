"""The control plane's endpoints for rollouts: their status, their history, and operators' acts."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import orjson

from tollway.backends.json_members import quoted, repeated
from tollway.gateway.control_store.protocol import StoreUnavailable
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.rollouts.controller import MoveRefused
from tollway.gateway.rollouts.service import Rollouts, UnknownRollout
from tollway.gateway.storage.audit_log import Actor

T = TypeVar("T")

ACTIONS = ("start", "pause", "resume", "promote", "abort")
Act = Callable[[str, Actor, str], Awaitable[dict[str, Any]]]
_CHARS_MAX = {"who": 100, "why": 1000}


class RolloutEndpoints:
    """Rollouts for operators."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    async def all(self) -> list[dict[str, Any]]:
        """Return the status of every rollout."""
        return [await self.show(name) for name in self._rollouts.names]

    async def shown(self) -> list[dict[str, Any]]:
        """Return the status of every rollout for the dashboard; none if they cannot be read."""
        try:
            return await self.all()
        except HttpProblem:
            return []

    async def show(self, name: str) -> dict[str, Any]:
        """Return a rollout's status; HttpProblem if it does not exist."""
        return await self._asked(name, lambda: self._rollouts.status(name))

    async def history(self, name: str) -> list[dict[str, Any]]:
        """Return a rollout's moves, newest first."""
        return await self._asked(name, lambda: self._rollouts.history(name))

    async def act(self, name: str, body: bytes, actor: Actor) -> dict[str, Any]:
        """Do what a body asks, `{"action": "pause", "who": ..., "why": ...}`."""
        asked = _read(body)
        act: Act = getattr(self._rollouts, asked["action"])
        who = actor.named(asked["who"])
        return await self._asked(name, lambda: act(name, who, asked["why"]))

    async def _asked(self, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await ask()
        except UnknownRollout as exc:
            known = ", ".join(self._rollouts.names) or "none"
            why = f"no rollout is named {name!r}; the rollouts are: {known}"
            raise HttpProblem(404, "No rollout", why) from exc
        except MoveRefused as exc:
            raise HttpProblem(409, "Not possible now", str(exc)) from exc
        except StoreUnavailable as exc:
            why = "the control store is not reachable; try again"
            raise HttpProblem(503, "Control store unreachable", why) from exc
        except OSError as exc:
            why = f"the audit log cannot be written, so nothing was changed: {exc.strerror or exc}"
            raise HttpProblem(503, "Audit log not writable", why) from exc


def _read(body: bytes) -> Mapping[str, str]:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise HttpProblem(400, "Bad act", f"the body is not JSON: {exc}") from exc
    asked = asked if isinstance(asked, dict) else {}
    if key := repeated(body, asked, quoted(asked)):
        raise HttpProblem(400, "Bad act", f"{key!r} is there more than once")
    if asked.get("action") not in ACTIONS:
        raise HttpProblem(422, "Bad act", f"action must be one of {', '.join(ACTIONS)}")
    for key in sorted({"who", "why"} | asked.keys()):
        if key not in {"action", "who", "why"}:
            raise HttpProblem(422, "Bad act", f"{key!r} is unknown; remove it")
        text = asked.get(key)
        if not isinstance(text, str) or not text.strip():
            raise HttpProblem(422, "Bad act", f"{key} is missing; it must be a non-empty string")
        if len(text) > _CHARS_MAX.get(key, 100) or not text.isprintable():
            most = _CHARS_MAX.get(key, 100)
            raise HttpProblem(422, "Bad act", f"{key} must be at most {most} printable characters")
    return asked
