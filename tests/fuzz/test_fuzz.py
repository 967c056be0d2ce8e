"""Every parser of foreign bytes, over the corpus of past finds and over new inputs."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.seeds import CORPUS, ROOT, seeds
from tests.fuzz.targets import TARGETS, served
from tests.support.corpus import SERVED

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_fuzzing_has_found_break_nothing(name: str) -> None:
    found = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    assert found, f"no corpus of {name}; make one: scripts/fuzz --keep {name}"
    for data in (b"", b"\x00", *seeds(name), *found):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_break_nothing(name: str) -> None:
    @given(st.binary(max_size=200))
    @example(b"")
    def check(data: bytes) -> None:
        TARGETS[name](data)

    check()


def test_the_request_target_accepts_valid_requests() -> None:
    """Otherwise the target could agree with itself about nothing."""
    small = [one for name, one in SERVED.items() if len(one[0]) < 400]
    assert [[(path, body)] for _, path, body in small] == [
        [(path, body) for _, path, body in served([sent])] for sent, _, _ in small
    ]


@pytest.mark.integration
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is made for Linux on x86-64 only"
)
def test_fuzzing_for_a_moment_finds_nothing(tmp_path: Path) -> None:
    """Fuzz a third of the targets: which, and how, depends on the commit. `scripts/fuzz` does more.

    One process fuzzes them, because loading the instrumented modules takes 4 s.
    """
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    seed = int(asked.stdout[:8] or "1", 16)  # 1: the sources are not in a repository
    names = list(TARGETS)[seed % 3 :: 3]
    command = [sys.executable, "-m", "tests.fuzz.run", *names, "-max_total_time=1"]
    command += [f"-seed={seed}", f"-artifact_prefix={tmp_path}/", "-max_len=4096"]

    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=150,
    )

    said = "".join(
        line
        for line in done.stdout.splitlines(keepends=True)
        if not line.startswith("INFO: Instrumenting")
    )
    assert done.returncode == 0, said[-6000:]
    assert said.count("DONE   cov:") == len(names), said  # `cov`: it sees what is reached
