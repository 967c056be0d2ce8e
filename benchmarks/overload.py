"""Measures a gateway that gets more requests than its backend can answer.

    python benchmarks/overload.py [--seconds 15] [--json FILE]

The upstream has 8 slots and takes 20 ms per call: 400 a second; further calls wait in its queue.
Requests are sent at a steady rate whatever happens (an open loop), at one to four times that rate,
through two gateways: one with the default configuration, and one that sheds no load (10,000 calls
at once, a queue of a minute). Clients give up after two seconds, and a later answer does not count.
Goodput is the rate of answers in time, as a share of the upstream's capacity.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]

from benchmarks.throughput import cases  # noqa: E402
from benchmarks.throughput.load import at_rate, percentile, request_bytes  # noqa: E402
from benchmarks.throughput.processes import free_port, started, stay  # noqa: E402

PLACES, SERVICE_S = 8, 0.02
CAPACITY = PLACES / SERVICE_S
PATIENCE_S = 2.0
LOADS = (0.5, 1.0, 2.0, 4.0)

CONFIG = """
[server]
allow_anonymous = true
listen = "127.0.0.1:{port}"

[[backends]]
name = "only"
kind = "gpu"
protocol = "oip"
url = "http://127.0.0.1:{upstream}"
price = {{ per_request_usd = 0.0001 }}
{backend}

[[routes]]
name = "x"
path = "/v2/models/x/infer"
protocol = "oip"
backends = ["only"]
policy = "cheapest"

[[budgets]]
name = "all"
limit_usd = 1000000
"""
SHEDDING, TAKING_ALL = "", "concurrency = 10000\nadaptive = false\nqueue_s = 60\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One gateway at one load. Latencies in ms; goodput as a share of the upstream's capacity."""

    gateway: str
    load: float
    goodput: float
    accepted_p50_ms: float
    accepted_p99_ms: float
    refused: float
    refused_p50_ms: float
    refused_p99_ms: float
    late: float


class Upstream(asyncio.Protocol):
    """A model server: `PLACES` calls at once, each for `SERVICE_S`; further calls wait."""

    places: asyncio.Semaphore

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.data.endswith(cases.SMALL.body.encode()):
            self.data = b""
            self.task = asyncio.get_running_loop().create_task(self.answer())

    async def answer(self) -> None:
        async with self.places:
            await asyncio.sleep(SERVICE_S)
        head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        reply = f"{head}content-length: {len(cases.OIP_REPLY)}\r\n\r\n{cases.OIP_REPLY}"
        self.transport.write(reply.encode())


def serve_upstream(port: int) -> None:
    """Serve until killed."""

    async def main() -> None:
        Upstream.places = asyncio.Semaphore(PLACES)
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(main())


@contextlib.contextmanager
def upstream() -> Iterator[int]:
    """Run the upstream as a process of its own; yield its port."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=serve_upstream, args=[port])
    process.start()
    try:
        yield port
    finally:
        process.kill()
        process.join()


def measure(name: str, port: int, load: float, seconds: float) -> Row:
    """Send requests at `load` times the capacity; ignore the first third, in which limits adapt."""
    request = request_bytes(cases.SMALL, {})
    replies = at_rate(port, request, load * CAPACITY, seconds, PATIENCE_S)
    replies = replies[len(replies) // 3 :]
    good = [reply.latency_s * 1e3 for reply in replies if reply.status == 200]
    refused = [reply.latency_s * 1e3 for reply in replies if reply.status == 503]
    none = [0.0]
    row = Row(
        gateway=name,
        load=load,
        goodput=len(good) / len(replies) * load,
        accepted_p50_ms=percentile(good or none, 0.5),
        accepted_p99_ms=percentile(good or none, 0.99),
        refused=len(refused) / len(replies),
        refused_p50_ms=percentile(refused or none, 0.5),
        refused_p99_ms=percentile(refused or none, 0.99),
        late=(len(replies) - len(good) - len(refused)) / len(replies),
    )
    print(
        f"{name:12}{load:6.1f}x{row.goodput:10.3f}{row.accepted_p50_ms:12.1f}"
        f"{row.accepted_p99_ms:10.1f}{row.refused:10.1%}{row.refused_p50_ms:10.2f}"
        f"{row.refused_p99_ms:10.2f}{row.late:9.1%}",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    stay(-1)
    rows = []
    print(f"{'':12}{'load':>7}{'goodput':>10}{'good p50 ms':>12}{'p99 ms':>10}{'refused':>10}"
          f"{'p50 ms':>10}{'p99 ms':>10}{'late':>9}")  # fmt: skip
    for name, backend in (("default", SHEDDING), ("no shedding", TAKING_ALL)):
        with tempfile.TemporaryDirectory() as folder, upstream() as up:
            port, config = free_port(), Path(folder) / "tollway.toml"
            config.write_text(CONFIG.format(port=port, upstream=up, backend=backend))
            with started([sys.executable, "-m", "tollway", "serve", str(config)], port, 0):
                rows += [measure(name, port, load, args.seconds) for load in LOADS]
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
