"""Sends a million requests through one gateway and checks that memory and open files stay flat.

    python benchmarks/soak.py                           # a million: some minutes
    python benchmarks/soak.py --requests 100000 --json soak.json

nginx is the upstream; the gateway runs `gateway.toml`, with every feature on. Each line shows the
gateway's resident memory, its open files and sockets, and the lag of its event loop: the latency of
/livez on a separate connection since the previous line, measured every 50 ms.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.throughput import cases, contestants
from benchmarks.throughput.load import percentile, wrk
from benchmarks.throughput.processes import descriptors, free_port, rss_mib, started, stay

LEG_S = 10


@dataclass(frozen=True, slots=True)
class Mark:
    """The gateway's figures after some number of requests. Lags of /livez in ms."""

    requests: int
    rss_mib: float
    descriptors: int
    lag_p50_ms: float
    lag_max_ms: float


async def lags(port: int, until: asyncio.Event) -> list[float]:
    """Request /livez every 50 ms until told to end; return the latencies in ms."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    while not until.is_set():
        asked = time.perf_counter()
        writer.write(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b"ok\n")
        took.append((time.perf_counter() - asked) * 1e3)
        await asyncio.sleep(0.05)
    writer.close()
    return took


async def leg(
    folder: Path, one: contestants.Contestant, connections: int
) -> tuple[int, list[float]]:
    """Load the gateway for a while; return the number of requests and the lags."""
    until = asyncio.Event()
    watching = asyncio.create_task(lags(one.port, until))
    found = await asyncio.to_thread(
        wrk, folder, one.port, cases.SMALL, one.headers, connections, LEG_S
    )
    until.set()
    if found.errors:
        raise SystemExit(f"{found.errors} of {found.requests} requests failed")
    return found.requests, await watching


def mark(pid: int, requests: int, took: list[float]) -> Mark:
    """Take the gateway's figures, and print them."""
    made = Mark(requests, rss_mib(pid), descriptors(pid), percentile(took, 0.5), max(took))
    print(
        f"{made.requests:10,} requests {made.rss_mib:8.1f} MiB {made.descriptors:5} descriptors"
        f"   lag p50 {made.lag_p50_ms:6.2f} ms, longest {made.lag_max_ms:7.2f} ms",
        flush=True,
    )
    return made


def soak(requests: int, connections: int = 32, python: str = sys.executable) -> list[Mark]:
    """Send at least so many requests through a gateway; return its figures after each leg."""
    stay(-1)
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        one = contestants.gateway(folder, port, python=python)
        with (
            started(contestants.upstream(folder, port), port, -1),
            started(one.command, one.port, 0, one.environ) as pid,
        ):
            marks = [mark(pid, 0, [0.0])]
            while marks[-1].requests < requests:
                more, took = asyncio.run(leg(folder, one, connections))
                marks.append(mark(pid, marks[-1].requests + more, took))
    return marks


@dataclass(frozen=True, slots=True)
class Growth:
    """Resident memory in MiB: at the start, when warm, and its growth from then to the end."""

    requests: int
    start_mib: float
    warm_mib: float
    growth_mib: float


def growth(marks: list[Mark]) -> Growth:
    """Return the growth of memory.

    The first tenth fills caches, windows and the allocator's pools; growth counts from there.
    """
    first, last = marks[0], marks[-1]
    warm = next(one for one in marks if one.requests >= last.requests / 10)
    return Growth(last.requests, first.rss_mib, warm.rss_mib, last.rss_mib - warm.rss_mib)


def conclude(marks: list[Mark]) -> None:
    """Print the growth."""
    one = growth(marks)
    print(
        f"at start {one.start_mib:.1f} MiB, after the first tenth {one.warm_mib:.1f} MiB, "
        f"growth since then {one.growth_mib:+.1f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    marks = soak(args.requests, args.connections)
    conclude(marks)
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in marks], indent=1))


if __name__ == "__main__":
    main()
