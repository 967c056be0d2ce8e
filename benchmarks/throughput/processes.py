"""Processes under measurement: started on a core, waited for, and what they use."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


def pinned(core: int) -> list[str]:
    """Return the prefix that keeps a command on one core, where there are two."""
    return ["taskset", "-c", str(CORES[core])] if len(CORES) > 1 else []


def stay(core: int) -> None:
    """Keep this process on one core, where there are two."""
    os.sched_setaffinity(0, {CORES[core]} if len(CORES) > 1 else CORES)


@contextmanager
def started(
    command: list[str],
    port: int,
    core: int | None,
    environ: Mapping[str, str] | None = None,
    log: Path = Path(os.devnull),
) -> Iterator[int]:
    """Run `command` until the block ends; yield its process id once the port answers.

    It has a core to itself, or all where `core` is None; what it says goes to `log`.
    """
    everywhere = ["taskset", "-c", ",".join(map(str, CORES))]
    prefix = everywhere if core is None else pinned(core)
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*prefix, *command],
            start_new_session=True,
            env={**os.environ, **(environ or {})},
            stdout=said,
            stderr=said,
        )
    try:
        wait_for(port, process)
        yield process.pid
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:  # some rivals do not stop when they are told
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(port: int, process: "subprocess.Popen[bytes]", patience_s: float = 60.0) -> None:
    """Return once something listens on a port; SystemExit where the process ends before."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nothing answered on port {port}")


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process and its descendants have used so far."""
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process and its descendants; what they share counts twice."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors(pid: int) -> int:
    """Return how many files and sockets a process and its descendants have open."""
    return sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in family(pid))
