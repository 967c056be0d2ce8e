"""Measures what batches save: device-seconds and dollars of an inference, by their largest size.

    python benchmarks/batching.py [--model large] [--clients 32] [--requests 2000] [--json FILE]

An example server of digits runs in its own process. The same images are asked for through a gateway
without batches, and through gateways with batches of at most 2, 4, ... rows, in turns: each round
goes through all of them. Device-seconds are those that the server reports, dollars those that the
gateway charged: both must agree. Then small, large and adaptive batches are measured again, against
the target that the small ones just keep: `p99 of target` is the 99th percentile of the time that a
batch took at the server, as a share of it. Gateway and clients share one event loop and two
cores with the server, so compare lines only with each other.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvloop

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from examples.digits.data import halves  # noqa: E402
from examples.digits.processes import start  # noqa: E402
from tests.support.harness import Running, running  # noqa: E402
from tollway.backends.batching.batcher import Batcher  # noqa: E402
from tollway.backends.documents import header  # noqa: E402
from tollway.backends.http.factory import open_transport  # noqa: E402
from tollway.backends.types import Call  # noqa: E402
from tollway.gateway.listener.http_protocol import limited_protocol  # noqa: E402
from tollway.gateway.listener.request_head import HeadLimits  # noqa: E402

USD_PER_HOUR = 2.50
PATH = b"/v2/models/digits/infer"
FIELDS = [(b"content-type", b"application/json")]
NANO_PER_S = USD_PER_HOUR / 3600 * 1e9

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "model"
kind = "gpu"
protocol = "oip"
url = "{url}"
model = "digits"
adaptive = false
concurrency = {concurrency}
queue_s = 10
price = {{ device_usd_per_hour = {usd} }}
{batch}

[[routes]]
name = "digits"
path = "/v2/models/digits/infer"
protocol = "oip"
backends = ["model"]
context = {{ numeric = ["inputs[0].data[0]"] }}
"""


@dataclass
class Line:
    """One line of the table: medians over the rounds."""

    name: str
    rows: float
    device_s: float
    usd: float
    p50_ms: float
    p99_ms: float
    per_s: float
    p99_of_target: float | None = None


def configured(url: str, batch: str, concurrency: int) -> str:
    """Return the configuration of a gateway; `batch` is the table of its batches, or empty."""
    table = f"batch = {{ {batch} }}" if batch else ""
    return CONFIG.format(url=url, batch=table, usd=USD_PER_HOUR, concurrency=concurrency)


async def told(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Return what the server has counted."""
    stats: dict[str, Any] = (await client.get(f"{url}/stats")).json()
    return stats


async def measured(
    tollway: Running, url: str, bodies: list[bytes], clients: int
) -> tuple[float, ...]:
    """Ask for all images; return (rows of a call, device-s, dollars, p50, p99, per second)."""
    before = await told(tollway.client, url)
    left, took, nano = iter(bodies), [], []
    transport = open_transport(tollway.url, connections=clients)  # lighter than a client library

    async def client() -> None:
        for body in left:
            begun = time.perf_counter()
            loop = asyncio.get_running_loop()
            reply = await transport.send(Call(b"POST", PATH, list(FIELDS), body), loop.time() + 60)
            await reply.read(1 << 20)
            took.append(time.perf_counter() - begun)
            assert reply.status == 200, reply.status
            cost = header(reply.headers, b"x-tollway-cost-usd")
            assert cost is not None
            nano.append(round(float(cost) * 1e9))

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    whole_s = time.perf_counter() - begun
    await transport.aclose()
    after = await told(tollway.client, url)
    calls, images = (after[name] - before[name] for name in ("calls", "images"))
    device_s = after["device_s"] - before["device_s"]
    # Each call's cost is rounded up to a nano-dollar, and the server's seconds to nanoseconds.
    excess = sum(nano) - device_s * NANO_PER_S
    assert -2.0 * calls <= excess <= 2.0 * calls + len(bodies), excess
    p50, p99 = np.quantile(took, [0.5, 0.99])
    count = len(bodies)
    return images / calls, device_s / count, sum(nano) / 1e9 / count, p50, p99, count / whole_s


async def main(given: argparse.Namespace) -> list[Line]:
    """Measure all lines in turns; return them."""
    images = halves()[1].images
    bodies = []
    for number in range(given.requests):
        image = [float(pixel) for pixel in images[number % len(images)].ravel()]
        tensor = {"name": "image", "datatype": "FP32", "shape": [1, 64], "data": image}
        bodies.append(json.dumps({"inputs": [tensor]}).encode())
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "examples.digits.serve", "--model", given.model]
        server = await start("digits", arguments, Path(folder, "server.log"))
        try:
            async with AsyncExitStack() as stack:
                kinds = {"none": ""}
                for size in given.sizes:
                    kinds[f"{size}"] = f"max_size = {size}, max_wait_ms = {given.wait_ms}"
                gateways: dict[str, Running] = {}

                async def opened(name: str, batch: str) -> None:
                    config = configured(server.url, batch, given.concurrency)
                    where = Path(folder, name)
                    where.mkdir()  # noqa: ASYNC240 - nothing else runs
                    gateways[name] = await stack.enter_async_context(
                        running(config, where, http=limited_protocol(HeadLimits()))
                    )

                for name, batch in kinds.items():
                    await opened(name, batch)
                times = {name: watched(tollway) for name, tollway in gateways.items()}
                found = await rounds(gateways, server.url, bodies, given)
                lines += [summed(name, rows) for name, rows in found.items()]
                # A target that small batches keep and the largest do not.
                small, most = (f"{given.sizes[at]}" for at in (len(given.sizes) // 2, -1))
                target_s = float(np.quantile([took for _, took in times[small]], 0.99))
                adaptive = f"{most}, adaptive"
                limit_ms = 1000 * target_s + given.wait_ms
                await opened(adaptive, f"{kinds[most]}, target_ms = {limit_ms:.3f}")
                await measured(gateways[adaptive], server.url, bodies, given.clients)  # it finds it
                times[adaptive] = watched(gateways[adaptive])
                pair = {name: gateways[name] for name in (small, most, adaptive)}
                for name in pair:
                    times[name].clear()
                found = await rounds(pair, server.url, bodies, given)
                for name, rows in found.items():
                    line = summed(name, rows)
                    line.p99_of_target = float(
                        np.quantile([took for _, took in times[name]], 0.99) / target_s
                    )
                    lines.append(line)
        finally:
            server.stop()
    return lines


async def rounds(
    gateways: dict[str, Running], url: str, bodies: list[bytes], given: argparse.Namespace
) -> dict[str, list[tuple[float, ...]]]:
    """Measure all gateways in turns, after a first round that does not count."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in gateways}
    for number in range(given.rounds + 1):
        for name, tollway in gateways.items():
            row = await measured(tollway, url, bodies, given.clients)
            if number:
                found[name].append(row)
    return found


def summed(name: str, rows: list[tuple[float, ...]]) -> Line:
    """Return the medians of the rounds as a line."""
    size, device_s, usd, p50, p99, per_s = np.median(np.array(rows), axis=0)
    return Line(name, size, device_s, usd, 1000 * p50, 1000 * p99, per_s)


def watched(tollway: Running) -> list[tuple[int, float]]:
    """Return a list that collects (rows, seconds) of the batches of a gateway."""
    batcher = tollway.gateway.backends["model"].transport
    times: list[tuple[int, float]] = []
    if isinstance(batcher, Batcher):
        observe = batcher.size.observe

        def both(rows: int, latency_s: float) -> None:
            times.append((rows, latency_s))
            observe(rows, latency_s)

        batcher.size.observe = both  # type: ignore[method-assign]
    return times


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="large", choices=("rules", "cpu", "large"))
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=1, help="slots of the backend")
    parser.add_argument("--sizes", type=int, nargs="*", default=[2, 4, 8, 16, 32])
    parser.add_argument("--wait-ms", type=float, default=3.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    table = uvloop.run(main(chosen))
    alone = table[0]
    print(f"digits-{chosen.model}, {chosen.clients} clients, ${USD_PER_HOUR} an hour of the device")
    head = "rows  device-s/inference  $/inference  ratio    p50    p99  requests/s  p99 of target"
    print(f"{'at most':14}  {head}")
    for line in table:
        kept = "" if line.p99_of_target is None else f"{line.p99_of_target:13.2f}"
        print(
            f"{line.name:14} {line.rows:5.1f}  {line.device_s:18.7f}  {line.usd:11.3e}  "
            f"{line.usd / alone.usd:5.2f}  {line.p50_ms / alone.p50_ms:5.2f}  "
            f"{line.p99_ms / alone.p99_ms:5.2f}  {line.per_s / alone.per_s:10.2f}  {kept}"
        )
    print("p50, p99 (of clients) and requests/s are ratios to the first line.")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(line) for line in table], indent=1))
