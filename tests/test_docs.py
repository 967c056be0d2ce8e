"""The documents are right: their configurations load, their links and anchors exist."""

import re
from pathlib import Path

import pytest

from tests.support.synthetic import world, write_journal
from tollway.gateway import settings
from tollway.gateway.cli import main as cli
from tollway.gateway.cli.client import ControlClient

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name / "README.md" for name in ("benchmarks", "deploy", "examples/digits")),
]


def configurations() -> list[tuple[str, str]]:
    """Return (page, block) of the TOML blocks that are whole configurations."""
    return [
        (f"{page.relative_to(ROOT)}", block)
        for page in PAGES
        for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
        if "[[routes]]" in block and "[[backends]]" in block
    ]


def test_the_readme_shows_a_whole_configuration() -> None:
    assert any(page == "README.md" for page, _ in configurations())


@pytest.mark.parametrize(("page", "block"), configurations())
def test_a_configuration_that_is_shown_loads(page: str, block: str) -> None:
    assert settings.parse(block, {}, source=page).routes


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        if "://" not in target:
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(linked), f"{page.name}: {target}#{anchor}"


@pytest.mark.parametrize("page", ["http.md", "promises.md", "reliability.md", "security.md"])
def test_every_promise_names_a_test_that_there_is(page: str) -> None:
    told = re.findall(r"`(tests/\S+\.py)::(\w+)`", (ROOT / "docs" / page).read_text())
    assert len(told) > 20
    for path, name in told:
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), name


def test_tables_of_the_page_on_traces_are_settings() -> None:
    whole = next(block for page, block in configurations() if page == "README.md")
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "tracing.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    assert settings.parse(whole + "\n" + "\n".join(blocks), {}).tracing.endpoint


def test_the_code_of_the_page_on_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / ".tollway" / "journal", world(600, 4))
    monkeypatch.chdir(tmp_path)
    # The documents of a gateway; tests/integration/test_python_client.py asks a real one.
    budget = {"name": "daily", "spent_usd": 1.5, "limit_usd": 10.0}
    documents = {
        "budgets": {"budgets": [budget]},
        "spend": {"cost_usd": 1.5},
        "decisions": {"story": ["Drawn: great."]},
    }
    monkeypatch.setattr(ControlClient, "get", lambda self, *path: documents[path[0]])
    reply = {"results": [{"result": "learned"}]}
    monkeypatch.setattr(ControlClient, "post", lambda self, document, *path: reply)

    page = (ROOT / "docs" / "python.md").read_text()
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["kinds"] == {"decision": 600, "attempt": 600, "feedback": 600}
    assert "fixed:arm=great" in capsys.readouterr().out


def test_every_cell_that_names_a_test_names_one_that_exists() -> None:
    page = ROOT / "docs/protocols.md"
    named = re.findall(r'\]\((\S+\.py) "(\w+)"\)', page.read_text())
    assert len(named) > 40
    missing = [
        f"{path}::{name}"
        for path, name in named
        if f"def {name}(" not in (page.parent / path).read_text()
    ]
    assert missing == []


def commands() -> list[tuple[str, str]]:
    """Return (page, command) of the `tollway` commands in blocks: its words before an argument."""
    found = set()
    for page in PAGES:
        for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            for words in re.findall(r"^tollway((?: [a-z][a-z-]*)+)(?= |$)", block, re.MULTILINE):
                found.add((f"{page.relative_to(ROOT)}", words.strip()))
    return sorted(found)


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_that_is_shown_exists(page: str, command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"], {})
    assert ended.value.code == 0
