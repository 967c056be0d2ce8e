"""The folder of spooled logs: deleted in the end, and after a kill by the next process."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tollway.simulations.replay import log_files, logs, memory
from tollway.simulations.replay.columns import Columns
from tollway.simulations.replay.logs import BadLog
from tollway.simulations.replay.scratch import PREFIX, Scratch


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def aged(folder: Path) -> None:
    long_ago = time.time() - 3600.0
    os.utime(folder, (long_ago, long_ago))


def test_the_folder_goes_with_its_object(parent: Path) -> None:
    scratch = Scratch()
    assert list(parent.iterdir()) == [scratch.path]
    del scratch
    assert not list(parent.iterdir())


def test_the_folder_of_a_killed_process_is_deleted_by_the_next(parent: Path) -> None:
    code = (
        "import os; from tollway.simulations.replay.scratch import Scratch; s = Scratch();"
        "(s.path / 'part').write_text('x'); os.kill(os.getpid(), 9)"
    )
    environ = {**os.environ, "TMPDIR": str(parent)}
    killed = subprocess.run([sys.executable, "-c", code], env=environ, check=False, timeout=60)
    assert killed.returncode == -9
    (left,) = parent.iterdir()
    aged(left)
    scratch = Scratch()
    assert list(parent.iterdir()) == [scratch.path]


def test_a_folder_in_use_or_just_made_is_kept(parent: Path) -> None:
    used, new = Scratch(), parent / f"{PREFIX}new"
    new.mkdir()
    aged(used.path)
    other = Scratch()
    assert {used.path, new, other.path} == set(parent.iterdir())


@pytest.mark.parametrize(
    ("limit", "expected"), [("3000", 1500), ("max", 4096), ("500", 0), ("900000", 4096)]
)
def test_the_lesser_of_machine_and_container_is_available(
    limit: str, expected: int, tmp_path: Path
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 4 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("2000\n")
    (tmp_path / "memory.stat").write_text("anon 1500\ninactive_file 500\n")
    assert memory.available_bytes(tmp_path, tmp_path / "meminfo") == expected
    assert memory.available_bytes(tmp_path / "none", tmp_path / "none") is None


def test_a_log_that_does_not_fit_is_refused_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    path = tmp_path / "log.csv"
    path.write_text("arm,propensity,quality\n" + "x,1,1\n" * 60)
    monkeypatch.setattr(logs.memory, "available_bytes", lambda: 1000)
    with pytest.raises(BadLog, match=r"60 decisions over 1 arms need about .* are available"):
        log_files.read(path, Scratch(), Columns())
