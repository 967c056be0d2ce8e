from typing import Literal

import pytest

from tollway.gateway.registry.lifecycle import (
    CONFIRM,
    HURRY,
    SERVE,
    SETTLE,
    STOP,
    TRY,
    WITHDRAW,
    Trial,
    next_move,
)
from tollway.gateway.registry.port import ModelVersion, RegisteredModel
from tollway.gateway.registry.records import Record

Phase = Literal["running", "promoted", "retired", "stopped"]


def seen(*versions: str, **aliases: str) -> RegisteredModel:
    return RegisteredModel(aliases, tuple(ModelVersion(version) for version in versions))


def due(record: Record, model: RegisteredModel, phase: Phase | None = None) -> tuple[str, str]:
    """Return the kind and the version of the move that is due; empty if there is none."""
    trial = None if phase is None else Trial("run-1", phase, why="because")
    move = next_move(record, model, trial)
    return ("", "") if move is None else (move.kind, move.version)


NEVER = Record(newest="1")
SERVING = Record(champion="1", newest="1")
TRYING = Record(champion="1", challenger="2", run="run-1", newest="2")
CONFIRMED = Record(champion="1", challenger="2", run="run-1", confirmed=True, newest="2")


@pytest.mark.parametrize(
    ("record", "model", "phase", "kind", "version"),
    [
        # nothing is tried
        (NEVER, seen("1"), None, "", ""),
        (NEVER, seen("1", champion="1"), None, SERVE, "1"),
        (SERVING, seen("1", champion="1"), None, "", ""),
        (SERVING, seen("1", "2", champion="2"), None, SERVE, "2"),
        (SERVING, seen("1", champion="7"), None, "", ""),  # an alias of no version
        (SERVING, seen("1"), None, "", ""),  # the alias was removed: what serves goes on
        (SERVING, seen("1", "2", champion="1"), None, TRY, "2"),
        (SERVING, seen("1", "2", "3", champion="1", challenger="2"), None, TRY, "2"),
        (SERVING, seen("1", champion="1", challenger="1"), None, "", ""),
        # a version is tried
        (TRYING, seen("1", "2", champion="1", challenger="2"), "running", "", ""),
        (TRYING, seen("1", "2", champion="1", challenger="2"), "promoted", CONFIRM, "2"),
        (TRYING, seen("1", "2", champion="1", challenger="2"), "stopped", WITHDRAW, "2"),
        (TRYING, seen("1", "2", champion="1", challenger="2"), "retired", SETTLE, "2"),
        (TRYING, seen("1", "2", champion="1", challenger="2"), None, WITHDRAW, "2"),
        (TRYING, seen("1", "2", champion="2"), "running", HURRY, "2"),
        (TRYING, seen("1", "2", champion="1"), "running", STOP, "2"),
        (TRYING, seen("1", "2", "3", champion="1", challenger="3"), "running", STOP, "2"),
        (TRYING, seen("0", "1", "2", champion="0", challenger="2"), "running", STOP, "2"),
        # it was promoted, and the former champion is kept warm
        (CONFIRMED, seen("1", "2", champion="2"), "promoted", "", ""),
        (CONFIRMED, seen("1", "2", champion="1"), "promoted", STOP, "2"),
        (CONFIRMED, seen("1", "2", champion="2"), "stopped", WITHDRAW, "2"),
        (CONFIRMED, seen("1", "2", champion="2"), "retired", SETTLE, "2"),
    ],
)
def test_the_move_that_is_due(
    record: Record, model: RegisteredModel, phase: Phase | None, kind: str, version: str
) -> None:
    assert due(record, model, phase) == (kind, version)


def test_a_rollout_that_was_not_started_yet_is_started() -> None:
    record = Record(champion="1", challenger="2", newest="2")
    assert due(record, seen("1", "2", champion="1", challenger="2")) == (TRY, "2")


def test_a_version_with_an_outcome_is_not_tried_by_itself() -> None:
    tried = ModelVersion("2", tags={"tollway.outcome": "withdrawn"})
    model = RegisteredModel({"champion": "1"}, (ModelVersion("1"), tried))
    assert due(SERVING, model) == ("", "")
    again = RegisteredModel({"champion": "1", "challenger": "2"}, model.versions)
    assert due(SERVING, again) == (TRY, "2")  # somebody asks for it


def test_a_version_that_is_not_ready_waits() -> None:
    model = RegisteredModel({"champion": "2"}, (ModelVersion("1"), ModelVersion("2", ready=False)))
    assert due(SERVING, model) == ("", "")


def test_without_a_rollout_only_the_champion_counts() -> None:
    model = seen("1", "2", champion="1", challenger="2")
    assert next_move(SERVING, model, None, tries=False) is None


def test_a_new_version_waits_for_somebody_where_it_does_not_start_by_itself() -> None:
    assert next_move(SERVING, seen("1", "2", champion="1"), None, starts=False) is None


def test_a_version_that_was_deleted_does_not_make_an_older_one_new() -> None:
    record = Record(champion="1", newest="3")
    assert due(record, seen("1", "2", champion="1")) == ("", "")
    assert due(record, seen("1", "2", "4", champion="1")) == (TRY, "4")


def test_stages_follow_from_aliases_and_tags() -> None:
    archived = ModelVersion("1", tags={"tollway.stage": "Archived"})
    versions = (archived, *(ModelVersion(one) for one in ("2", "3", "4")))
    model = RegisteredModel({"champion": "2", "challenger": "3"}, versions)
    stages = [model.stage(version) for version in ("1", "2", "3", "4")]
    assert stages == ["Archived", "Production", "Staging", "None"]
