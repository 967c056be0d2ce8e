"""Measures how fast `tollway serve` starts, its memory then, and how that grows with requests.

    python benchmarks/start.py                       # five starts, and 100,000 requests
    python benchmarks/start.py --requests 1000000    # some minutes
    python benchmarks/start.py --requests 0          # the starts only, without nginx and wrk

The gateway runs `gateway.toml`, with every feature on. A start lasts from exec to the first 200 of
/readyz; bytecode is compiled before, as an installer does. On a busy machine most of it is spent
waiting for a core: compare its CPU time.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import soak
from benchmarks.throughput import contestants
from benchmarks.throughput.processes import cpu_s

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Start:
    """One start. `waited_s`: the time that the process was ready to run and had no core."""

    wall_s: float
    cpu_s: float
    waited_s: float
    rss_mib: float
    anonymous_mib: float


def start(pycache: Path, python: str = sys.executable) -> Start:
    """Start a gateway, measure it when it is ready, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        one = contestants.gateway(Path(folder), 9, python=python)
        environ = {**os.environ, **one.environ, "PYTHONPYCACHEPREFIX": str(pycache)}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        began_s = time.perf_counter()
        process = subprocess.Popen(
            one.command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until_ready(one.port, process)
            wall_s = time.perf_counter() - began_s
            waited = Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]
            return Start(
                wall_s,
                cpu_s(process.pid),
                int(waited) / 1e9,
                status_mib(process.pid, "VmRSS"),
                status_mib(process.pid, "RssAnon"),
            )
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=PATIENCE_S)


def several(count: int, python: str = sys.executable) -> list[Start]:
    """Start a gateway so many times, one after the other, with compiled bytecode."""
    with tempfile.TemporaryDirectory() as pycache:
        start(Path(pycache), python)  # compiles
        return [start(Path(pycache), python) for _ in range(count)]


def wait_until_ready(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Return at the first 200 of /readyz; SystemExit if the process ends or takes too long."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except ConnectionError:
            time.sleep(0.002)
        finally:
            connection.close()
    raise SystemExit(f"{process.args!r} did not become ready")


def status_mib(pid: int, name: str) -> float:
    """Return one of the amounts of memory in /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    starts = several(args.starts)
    for one in starts:
        print(
            f"start {one.wall_s:6.2f} s, of that CPU {one.cpu_s:5.2f} s and {one.waited_s:6.2f} s "
            f"waiting for a core; {one.rss_mib:6.1f} MiB, {one.anonymous_mib:6.1f} MiB anonymous"
        )
    print(f"median: CPU {median(one.cpu_s for one in starts):.2f} s, ", end="")
    print(f"{median(one.rss_mib for one in starts):.1f} MiB")
    marks = soak.soak(args.requests) if args.requests else []
    if len(marks) > 1:
        soak.conclude(marks)
    if args.json:
        found = {
            "starts": [asdict(one) for one in starts],
            "growth": [asdict(one) for one in marks],
        }
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
