"""The life of a model's versions: decides the next move from the registry and the rollout.

    next_move(model, record, seen, trial) -> Move | None

It is pure. What a version may be:

    alias        stage        what the gateway does
    (none)       None         a new version becomes challenger by itself, if `start` says so
    challenger   Staging      its rollout runs
    champion     Production   the backend serves it
    (none)       Archived     was champion

    seen                                       move
    the alias champion is another version      SERVE it at once; a trial is stopped before
    ... and it is the challenger               HURRY: the rollout is promoted now
    the alias challenger, or a new version     TRY it: load, start the rollout
    the rollout is promoted                    CONFIRM: the registry's alias champion moves
    ... and the former champion is given up    SETTLE: the backend serves the new champion
    the rollout is rolled back or aborted      WITHDRAW: the alias challenger is removed
    the alias challenger is removed or moved   STOP: the rollout is aborted
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tollway.gateway.registry.port import CHALLENGER, CHAMPION, RegisteredModel
from tollway.gateway.registry.records import Record

SERVE, TRY, HURRY, STOP = "serve", "try", "hurry", "stop"
CONFIRM, SETTLE, WITHDRAW = "confirm", "settle", "withdraw"

OUTCOME = "tollway.outcome"
"""The tag with the outcome of a version's rollout. A version that has it is not tried by itself."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A rollout as the life of a version needs it.

    `run` names this start of it, and `by` who moved it last. `stopped`: rolled back or aborted.
    `retired`: promoted, and the former champion is called no more. `report` has figures to show.
    """

    run: str
    phase: Literal["running", "promoted", "retired", "stopped"]
    why: str = ""
    by: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Move:
    """What is to be done, about which version, and why."""

    kind: str
    version: str
    why: str


def next_move(
    record: Record,
    seen: RegisteredModel,
    trial: Trial | None,
    *,
    tries: bool = True,
    starts: bool = True,
) -> Move | None:
    """Return the move that is due; None if there is nothing to do.

    `tries`: the model has a rollout. `starts`: a new version is tried by itself.
    """
    if record.challenger:
        return _of_trial(record, seen, trial)
    champion, challenger = seen.aliases.get(CHAMPION), seen.aliases.get(CHALLENGER)
    if champion and champion != record.champion and _usable(seen, champion):
        return Move(SERVE, champion, "the registry's alias champion")
    if not tries:
        return None
    if challenger and challenger not in (champion, record.champion) and _usable(seen, challenger):
        return Move(TRY, challenger, "the registry's alias challenger")
    newest = _new(record, seen)
    if starts and newest and newest not in (champion, record.champion):
        return Move(TRY, newest, "a new version")
    return None


def _of_trial(record: Record, seen: RegisteredModel, trial: Trial | None) -> Move | None:
    version = record.challenger
    if not record.run:
        return Move(TRY, version, "its rollout was not started yet")
    if trial is None or trial.run != record.run:
        return Move(WITHDRAW, version, "its rollout was started again or removed by somebody")
    if kind := _outcome(record, trial):
        return Move(kind, version, trial.why)
    if why := _against(record, seen, trial):
        return Move(STOP, version, why)
    if trial.phase == "running" and seen.aliases.get(CHAMPION) == version:
        return Move(HURRY, version, "the registry's alias champion")
    return None


def _outcome(record: Record, trial: Trial) -> str:
    """Return the move that a trial's phase asks for; "" if none."""
    if trial.phase == "promoted" and not record.confirmed:
        return CONFIRM
    return {"stopped": WITHDRAW, "retired": SETTLE}.get(trial.phase, "")


def _against(record: Record, seen: RegisteredModel, trial: Trial) -> str:
    """Return why the registry's aliases end a trial; "" if they do not."""
    champion, challenger = seen.aliases.get(CHAMPION), seen.aliases.get(CHALLENGER)
    others = champion and champion != record.challenger and _usable(seen, champion)
    if others and (trial.phase == "promoted" or champion != record.champion):
        return f"the alias champion went to version {champion}"
    if trial.phase == "running" and challenger != record.challenger != champion:
        where = f"went to version {challenger}" if challenger else "was removed"
        return f"the alias challenger {where}"
    return ""


def _usable(seen: RegisteredModel, version: str) -> bool:
    found = seen.get(version)
    return found is not None and found.ready


def _new(record: Record, seen: RegisteredModel) -> str:
    """Return the newest version if it was not considered yet, and has no outcome."""
    if not seen.versions or not record.newest:
        return ""
    newest = seen.versions[-1]
    if newest.version == record.newest or not newest.ready or OUTCOME in newest.tags:
        return ""
    names = [one.version for one in seen.versions]
    if record.newest in names or _number(newest.version) > _number(record.newest):
        return newest.version
    return ""


def _number(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() else -1
