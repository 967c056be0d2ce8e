"""What tests share is imported by one name: by two it would be two modules, with two of all."""

import ast
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent


def imported(path: Path) -> set[str]:
    """Return the names of the modules that a file imports from."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_each_helper_is_imported_by_one_name() -> None:
    helpers = {path.stem for path in TESTS.rglob("*.py") if not path.stem.startswith("test_")}
    names: defaultdict[str, set[str]] = defaultdict(set)
    for path in TESTS.rglob("*.py"):
        for name in imported(path):
            *parents, stem = name.split(".")
            if stem in helpers and parents[:1] in ([], ["tests"]):
                names[stem].add(name)
    assert len(names) > 10
    assert {stem: found for stem, found in names.items() if len(found) > 1} == {}
