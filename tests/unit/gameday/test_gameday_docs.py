"""The commands, plans and programs of docs/gameday.md work."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tollway.gameday import plan
from tollway.gameday.commands import arguments
from tollway.gameday.faults import parse

PAGE = (Path(__file__).parents[3] / "docs" / "gameday.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_commands_that_are_shown_are_understood() -> None:
    commands = re.findall(r"^tollway gameday .*$", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        arguments(shlex.split(command)[2:])


def test_faults_that_are_shown_are_understood() -> None:
    (table,) = re.findall(r"^\| to simulate(.*?)\n\n", PAGE, re.DOTALL | re.MULTILINE)
    faults = re.findall(r"`(.+?)`", table)
    assert len(faults) > 8
    for fault in faults:
        parse(fault)


def test_the_plan_that_is_shown_is_one(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    file = tmp_path / "gameday.toml"
    file.write_text(text)
    assert len(plan.load(file)) == 3


def test_the_program_that_is_shown_runs(tmp_path: Path) -> None:
    (text,) = blocks("python")
    subprocess.run([sys.executable, "-W", "error", "-c", text], check=True, timeout=30)
