"""The supervisor replaces dead workers, backs off if they die early, and stops on a signal."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SCRIPT = """
import os, signal, sys, time
from tollway.gateway.workers.supervisor import Supervisor

def work(start):
    # The first process of slot 1 dies, and so does its first successor: the third one stays.
    with open(sys.argv[1], "a") as log:
        print(start.index, file=log)
    starts = open(sys.argv[1]).read().split().count("1")
    os.write(start.ready_fd, bytes([start.index]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[2])))
    if start.index == 1 and starts < 3:
        time.sleep(0.05)
        os._exit(7)
    if start.index == 1:
        os.kill(os.getppid(), signal.SIGTERM)
    while True:  # a pause would not end for a signal that comes just before it
        time.sleep(0.01)

def say(what):
    return lambda: print(what, flush=True)

done = Supervisor(work, 2, drain_s=5, on_ready=say("ready"), on_stop=say("stop")).run()
print("done", done)
"""


def supervised(log: str, code: int) -> tuple[list[str], str]:
    """Return stdout and stderr of a gateway with workers that exit with `code`."""
    command = [sys.executable, "-c", SCRIPT, log, str(code)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return ran.stdout.split("\n"), ran.stderr


def test_a_dead_worker_is_replaced_until_the_stop(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    said, errors = supervised(str(log), 0)
    assert said == ["ready", "stop", "done 0", ""]
    assert sorted(log.read_text().split()) == ["0", "1", "1", "1"]
    assert "exited with code 7; a replacement starts in 0.2 s" in errors
    assert "exited with code 7; a replacement starts in 0.4 s" in errors


def test_a_worker_that_does_not_stop_cleanly_changes_the_exit_code(tmp_path: Path) -> None:
    said, _ = supervised(str(tmp_path / "starts"), 5)
    assert said == ["ready", "stop", "done 1", ""]


STARTING = """
import os, signal, time
from tollway.gateway.workers.supervisor import Supervisor

def work(start):
    if start.index == 0:
        os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(30)  # still starting: SIGTERM does what it does by default

done = Supervisor(work, 2, drain_s=5, on_ready=lambda: None, on_stop=lambda: None).run()
print("done", done)
"""


def test_workers_stopped_before_they_serve_have_stopped_cleanly() -> None:
    command = [sys.executable, "-c", STARTING]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert ran.stdout == "done 0\n"


LATE = """
import os, signal, time
from tollway.gateway.workers.supervisor import Supervisor

def work(start):
    def late(*_):  # it becomes ready as it is told to stop
        os.write(start.ready_fd, bytes([start.index]))
        os._exit(0)
    signal.signal(signal.SIGTERM, late)
    if start.index == 0:
        os.kill(os.getppid(), signal.SIGTERM)
    while True:  # one long sleep would not end for a signal that comes just before it
        time.sleep(0.01)

said = []
done = Supervisor(
    work, 2, drain_s=5, on_ready=lambda: said.append("ready"), on_stop=lambda: said.append("stop")
).run()
print(said, done)
"""


def test_a_stopping_gateway_is_no_longer_announced() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, timeout=20, check=True
    )
    assert ran.stdout == "['stop'] 0\n"
