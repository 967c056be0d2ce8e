"""scripts/test repeats failed tests and reports it; in CI a test that failed once still fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Loading these plugins takes most of the time of a run.
INI = """
[pytest]
markers =
  integration
  alone
addopts = -p no:schemathesis -p no:anyio -p no:hypothesispytest
"""
FLAKY = """
import pathlib, pytest

@pytest.mark.integration
@pytest.mark.parametrize("n", [1, 2])
def test_once(n):
    seen = pathlib.Path(f"seen{n}")
    before = seen.exists()
    seen.touch()
    assert before

@pytest.mark.integration
@pytest.mark.alone
def test_alone():
    pass
"""
DEAD = "import pytest\n\n@pytest.mark.integration\ndef test_dead():\n    assert False\n"
DEAD_ALONE = DEAD.replace("\n\n", "\n\n@pytest.mark.alone\n")
WELL = "def test_well():\n    pass\n"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("tests", "ci", "code", "told"),
    [
        (FLAKY, "", 0, "Repeated alone: 2 tests."),
        (FLAKY, "true", 1, "Repeated alone: 2 tests."),
        (DEAD, "", 1, "Repeated alone: 1 test."),
        (DEAD_ALONE, "", 1, "Repeated alone: 1 test."),
        (WELL, "true", 0, "1 passed"),
    ],
)
def test_repetitions_are_counted_and_fail_in_ci(
    tmp_path: Path, tests: str, ci: str, code: int, told: str
) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name in ("test", "repeated"):
        shutil.copy(ROOT / "scripts" / name, scripts)
    (scripts / "_env").write_text(f"#!/bin/sh\necho {sys.executable}\n")
    (scripts / "_env").chmod(0o755)
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "test_it.py").write_text(tests)
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [scripts / "test", "-n", "0"],
        env={**environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, told in done.stdout) == (code, True), done.stdout + done.stderr
    if "2 tests" in told:
        assert "test_it.py::test_once[1]" in done.stdout
