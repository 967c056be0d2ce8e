"""The table of attacks in docs/security.md and the tests in this folder name the same attacks."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent


def test_every_attack_is_in_the_table_and_every_row_has_its_test() -> None:
    page = (FOLDER.parents[1] / "docs/security.md").read_text()
    _, _, table = page.partition("## What each actor can do")
    listed = set(re.findall(r"`(test_\w+\.py::test_\w+)`", table.partition("\n## ")[0]))
    written = {
        f"{path.name}::{name}"
        for path in FOLDER.glob("test_*.py")
        if path.name != "test_table.py"
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert listed == written


def test_every_test_that_the_page_names_is_there() -> None:
    root = FOLDER.parents[1]
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (root / "docs/security.md").read_text())
    assert len(named) > 50
    texts = {path: (root / path).read_text() for path, _ in named}
    assert [name for path, name in named if f"def {name}(" not in texts[path]] == []
