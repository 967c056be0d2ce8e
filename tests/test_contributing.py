"""The maps of the project are true: each path that they name exists, each folder is on them."""

import re
from pathlib import Path

import pytest

from tests.support.layers import MAY_IMPORT, ORDER

ROOT = Path(__file__).parents[1]
MAPS = ("CONTRIBUTING.md", "docs/architecture.md")
TOP = (*MAY_IMPORT, "tests", "docs", "scripts", "benchmarks", "deploy", "examples")
PATH = re.compile(rf"`((?:{'|'.join(TOP)})/[\w./-]*)`")


@pytest.mark.parametrize("page", MAPS)
def test_every_path_that_a_map_names_exists(page: str) -> None:
    named = PATH.findall((ROOT / page).read_text())
    assert len(named) > 30, f"{page} names {len(named)} paths: this test reads it wrongly"
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    assert [path for path in PATH.findall(page.read_text()) if not (ROOT / path).exists()] == []


def test_every_package_and_folder_is_on_the_architecture_page() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    assert [name for name in MAY_IMPORT if f"`{name}/`" not in page] == []
    assert [name for name in ORDER if f"`gateway/{name}/`" not in page] == []


def test_the_folders_are_drawn_in_the_order_that_imports_follow() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    drawn = re.search(r"```mermaid\nflowchart LR\n(.*?)```", page, re.DOTALL)
    assert drawn is not None
    names = [name for name in re.findall(r"\w+", drawn[1]) if name in ORDER]
    assert names == list(ORDER)


def test_every_module_in_the_picture_of_a_request_exists() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    modules = re.findall(r"participant \w+ as (\w+/[\w/]+)", page)
    assert modules
    for module in modules:
        inside = module if module.startswith("backends/") else f"gateway/{module}"
        assert (ROOT / f"{inside}.py").exists(), module


def test_every_page_is_in_the_index_once() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(name for name in pages if index.count(f"]({name})") != 1) == []
