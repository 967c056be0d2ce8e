"""Generated files are current: a change to what they are made of is not forgotten."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "script",
    [
        "deploy/kubernetes/generate.py",
        "deploy/grafana/generate.py",
        "scripts/generate-journal-schema",
    ],
)
def test_what_is_generated_is_current(script: str) -> None:
    command = [sys.executable, ROOT / script, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), f"run {script}"
