"""docs/reports.md: its commands work."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.journals import Book
from tollway.gateway.cli.main import main

PAGE = Path(__file__).parents[3] / "docs" / "reports.md"
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tollway.toml").write_text(two_backends("http://127.0.0.1:1", "http://127.0.0.1:2"))
    Book(tmp_path / ".tollway" / "journal").request(tags={"environment": "production"})
    (tmp_path / "november.csv").write_text("date,item,amount\n2026-11-23,cheap,0.0001\n")
    monkeypatch.chdir(tmp_path)

    program, *arguments = shlex.split(command)

    assert program == "tollway"
    assert main(arguments, {}) == 0
    out = arguments[arguments.index("--out") + 1] if "--out" in arguments else None
    assert out is None or (tmp_path / out).stat().st_size > 0


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 7
