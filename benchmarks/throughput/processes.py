"""Measured processes: starts them on a core, waits for them, and reads their resource usage."""

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
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


def pinned(core: int) -> list[str]:
    """Return the prefix that pins a command to one core, if there are two."""
    return ["taskset", "-c", str(CORES[core])] if len(CORES) > 1 else []


def stay(core: int) -> None:
    """Pin this process to one core, if there are two."""
    os.sched_setaffinity(0, {CORES[core]} if len(CORES) > 1 else CORES)


@contextmanager
def started(
    command: list[str],
    port: int,
    core: int | None,
    environ: Mapping[str, str] | None = None,
    log: Path = Path(os.devnull),
    patience_s: float = 60.0,
) -> Iterator[int]:
    """Run `command` until the block ends; yield its process id once the port answers.

    It is pinned to `core`, or to none if that is None; its output goes to `log`. SystemExit if it
    ends, or the port does not answer within `patience_s`.
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
        wait_for(port, process, patience_s)
        yield process.pid
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:  # some rivals ignore SIGTERM
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(port: int, process: "subprocess.Popen[bytes]", patience_s: float = 60.0) -> None:
    """Return once something listens on a port; SystemExit if the process ends before."""
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
    """Return the CPU time (user + sys) that a process and its descendants have used so far.

    It is read from the processes' CPU clocks. /proc/PID/stat has the same in ticks of 10 ms, which
    is too coarse for nginx over one connection.
    """
    return sum(time.clock_gettime(cpu_clock(one)) for one in family(pid))


def cpu_clock(pid: int) -> int:
    """Return the id of a process' CPU clock, as clock_getcpuclockid(3) does on Linux."""
    return (~pid << 3) | 2


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process and its descendants; shared pages count twice."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors(pid: int) -> int:
    """Return the number of open files and sockets of a process and its descendants."""
    return sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in family(pid))
