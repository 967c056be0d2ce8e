"""A million requests through one gateway: does anything grow?

    python benchmarks/soak.py                           # a million: some minutes
    python benchmarks/soak.py --requests 100000 --json soak.json

nginx answers as the upstream; the gateway runs `gateway.toml`, everything on. Prints, as it goes,
its resident memory, its open files and sockets, and how late its event loop is: the longest that
/livez took on a connection of its own since the line before, asked every 50 ms.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]

from benchmarks.throughput import cases, contestants  # noqa: E402
from benchmarks.throughput.load import percentile, wrk  # noqa: E402
from benchmarks.throughput.processes import descriptors, free_port, rss_mib, started, stay  # noqa: E402

LEG_S = 10


@dataclass(frozen=True, slots=True)
class Mark:
    """How the gateway stood after so many requests. Lags in ms, of /livez."""

    requests: int
    rss_mib: float
    descriptors: int
    lag_p50_ms: float
    lag_max_ms: float


async def lags(port: int, until: asyncio.Event) -> list[float]:
    """Ask for /livez every 50 ms until told; return how long each took, in ms."""
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
    """Load the gateway for a while; return how many requests that were, and the lags."""
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    stay(-1)
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        one = contestants.gateway(folder, port)
        with (
            started(contestants.upstream(folder, port), port, -1),
            started(one.command, one.port, 0, one.environ) as pid,
        ):
            marks = [mark(pid, 0, [0.0])]
            while marks[-1].requests < args.requests:
                more, took = asyncio.run(leg(folder, one, args.connections))
                marks.append(mark(pid, marks[-1].requests + more, took))
    # The first tenth fills caches, windows and the allocator's pools; what counts is what follows.
    warm = next(one for one in marks if one.requests >= args.requests / 10)
    print(
        f"at start {marks[0].rss_mib:.1f} MiB, after the first tenth {warm.rss_mib:.1f} MiB, ",
        end="",
    )
    print(f"then grown by {marks[-1].rss_mib - warm.rss_mib:+.1f} MiB")
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in marks], indent=1))


if __name__ == "__main__":
    main()
