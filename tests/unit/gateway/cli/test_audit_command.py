"""`tollway audit` on a file: which acts it shows, and how."""

import json
import time
from pathlib import Path

import pytest

from tollway.gateway.cli import main as cli
from tollway.gateway.cli import terminal
from tollway.gateway.storage.audit_log import BEGUN, DONE, Actor, AuditLog


def audit(*words: str) -> int:
    return cli.main(["audit", *words], {})


def test_only_acts_of_the_last_days_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, now_s = tmp_path / "audit.jsonl", time.time()
    for about, age_s in (("old", 3 * 86_400), ("new", 86_400)):
        AuditLog(path, wall=lambda at=now_s - age_s: at).write(
            "start", Actor("ann"), DONE, about=about
        )
    assert audit("--file", str(path), "--since", "2d", "--json") == terminal.OK
    assert [act["about"] for act in json.loads(capsys.readouterr().out)] == ["new"]
    assert audit("--file", str(path), "--since", "4d", "--json") == terminal.OK
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_an_act_without_outcome_shows_what_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "audit.jsonl"
    ann = Actor("ann", "admin key", "10.0.0.7")
    AuditLog(path).write("budget limit", ann, BEGUN, about="day", after={"limit_usd": "2"})
    assert audit("--file", str(path)) == terminal.OK
    shown = capsys.readouterr().out
    assert "ann (admin key, 10.0.0.7)  budget limit [begun] day\n" in shown
    assert "limit_usd none -> 2" in shown


def test_no_text_in_it_moves_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "audit.jsonl"
    evil = "\x1b[2Jx"
    AuditLog(path).write(
        "reload", Actor(evil), DONE, about=evil, why=evil, before={evil: 1}, after={evil: evil}
    )
    assert audit("--file", str(path)) == terminal.OK
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.count("[2Jx") == 5


def test_an_empty_log_has_no_acts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    assert audit("--file", str(path)) == terminal.OK
    assert audit("--file", str(path), "--verify") == terminal.OK
    assert capsys.readouterr().out == f"no acts\n{path}: no break in 0 lines\n"


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("--verify", "--file", str(tmp_path / "gone.jsonl")) == terminal.FAILED
    assert "gone.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("age", ["7", "d", "-1d", "7y", "1.5d"])
def test_an_age_needs_a_number_and_a_unit(age: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        audit(f"--since={age}")
    assert exited.value.code == terminal.USAGE
    assert "is not an age such as 30m, 12h, 7d or 4w" in capsys.readouterr().err
