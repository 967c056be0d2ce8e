"""Every reader of others' bytes: by all that fuzzing has found, and by some more of it."""

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
FEW_WAYS = ("price", "told", "urls", "windows")


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


def test_the_target_of_requests_serves_what_is_sound() -> None:
    """Else it would agree with itself about nothing."""
    small = [one for name, one in SERVED.items() if len(one[0]) < 400]
    assert [[(path, body)] for _, path, body in small] == [
        [(path, body) for _, path, body in served([sent])] for sent, _, _ in small
    ]


@pytest.mark.integration
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is made for Linux on x86-64 only"
)
def test_fuzzing_for_a_moment_finds_nothing(tmp_path: Path) -> None:
    """`scripts/fuzz` does it for as long as one likes."""
    # Chance and the corpus are enough for what has few ways through it.
    failed, waiting = [], [name for name in TARGETS if name not in FEW_WAYS]
    running: list[tuple[str, subprocess.Popen[str]]] = []
    while waiting or running:
        while waiting and len(running) < 2:
            name = waiting.pop()
            command = [sys.executable, "-m", "tests.fuzz.run", name, "-max_total_time=1"]
            command += [f"-artifact_prefix={tmp_path}/", "-max_len=4096"]
            process = subprocess.Popen(
                command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            running.append((name, process))
        name, process = running.pop(0)
        said, _ = process.communicate(timeout=60)
        if process.returncode or "Done" not in said:
            failed.append(f"{name}: {said[-3000:]}")
    assert not failed
