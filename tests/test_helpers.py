"""Test helpers are imported by one name; two names would make two modules of each."""

import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent
IMPORTS = re.compile(r"^ *from ([\w.]+) import ", re.MULTILINE)


def imported(path: Path) -> set[str]:
    """Return the names of the modules that a file imports from, also in programs that it starts."""
    return set(IMPORTS.findall(path.read_text()))


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


def test_no_test_module_is_imported_by_another() -> None:
    found = {
        path.relative_to(TESTS).as_posix(): names
        for path in TESTS.rglob("*.py")
        if (names := [n for n in imported(path) if n.rpartition(".")[2].startswith("test_")])
    }
    assert found == {}
