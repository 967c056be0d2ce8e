"""One gateway to a folder: a second one is refused, and none is refused by one that has ended."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tollway.gateway.storage import folder_lock
from tollway.gateway.storage.folder_lock import FolderInUse

HOLD = """
import os, sys, time
from pathlib import Path
from tollway.gateway.storage import folder_lock

with folder_lock.held(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        time.sleep(60)
    print(child, flush=True)
    time.sleep(60)
"""


def test_a_second_gateway_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with folder_lock.held(tmp_path):
        with (
            pytest.raises(FolderInUse, match=f"process {os.getpid()}"),
            folder_lock.held(tmp_path, wait_s=0.0),
        ):
            pass
    with folder_lock.held(tmp_path, wait_s=0.0):
        pass


def test_it_waits_for_a_gateway_that_is_ending(tmp_path: Path) -> None:
    ending, ended = threading.Event(), threading.Event()

    def first() -> None:
        with folder_lock.held(tmp_path):
            ending.set()
            ended.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert ending.wait(10)
    threading.Timer(0.2, ended.set).start()
    with folder_lock.held(tmp_path, wait_s=30.0):
        pass
    thread.join()


def test_a_killed_gateway_leaves_no_lock_but_its_workers_keep_it(tmp_path: Path) -> None:
    program = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        worker = int(first.stdout.readline())
        first.kill()
        first.wait()
        with pytest.raises(FolderInUse), folder_lock.held(tmp_path, wait_s=0.0):
            pass
        os.kill(worker, signal.SIGKILL)
        with folder_lock.held(tmp_path, wait_s=30.0):
            pass


def test_its_file_is_the_users_alone(tmp_path: Path) -> None:
    with folder_lock.held(tmp_path / "journal"):
        mode = (tmp_path / "journal" / folder_lock.NAME).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
