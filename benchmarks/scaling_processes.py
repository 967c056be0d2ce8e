"""Digits servers that a gateway starts and stops, under a load that triples and falls again.

    python benchmarks/scaling_processes.py [--phase 60]

A gateway with a command actuator, the servers of examples/digits and clients are real processes on
this machine; calls take 0.2 s. One client works in the first and the last phase, three in the
second, and each sends its next request 0.06 s after an answer. Printed are the requests and those
that failed, the changes of replicas, and the replica-seconds against as many as the peak needed,
all the time.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.digits import processes
from examples.digits.http1 import Http
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
MOST, DELAY_MS, PAUSE_S = 4, 200, 0.06
CONFIG = """
[server]
allow_anonymous = true
listen = "127.0.0.1:{port}"
[ledger]
url = "sqlite:///tollway.db"
[[backends]]
name = "digits"
kind = "cpu"
protocol = "oip"
model = "digits"
url = "{first}"
replicas = {others}
health_path = "/v2/health/ready"
price = {{ per_request_usd = 0.0001 }}
[[routes]]
name = "digits"
path = "/v2/models/digits/infer"
protocol = "oip"
backends = ["digits"]
[[scaling]]
name = "digits"
min = 1
max = {most}
calls_per_replica = 1
target_utilization = 0.95
lead_s = 5
scale_up_after_s = 0
scale_down_after_s = 60
[scaling.action]
kind = "command"
command = {command}
timeout_s = 120
min_interval_s = 5
"""
PIXELS = [float(number % 16) for number in range(64)]
IMAGE = {"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": PIXELS}]}


@dataclass(slots=True)
class Seen:
    """What clients and the watch have seen."""

    statuses: list[int] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    replicas: list[tuple[float, int]] = field(default_factory=list)


async def ran(*words: str) -> None:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT)
    await process.wait()


async def client(url: str, seen: Seen) -> None:
    """Send one request after the other."""
    http = Http(url)
    try:
        while True:
            began = time.monotonic()
            reply = await http.post("/v2/models/digits/infer", IMAGE)
            seen.statuses.append(reply.status)
            seen.latencies_s.append(time.monotonic() - began)
            if reply.status != 200:
                print(f"status {reply.status}: {reply.body.decode(errors='replace')[:300]}")
            await asyncio.sleep(PAUSE_S)
    finally:
        await http.aclose()


async def watch(url: str, seen: Seen) -> None:
    """Note once a second how many replicas were set last."""
    http = Http(url)
    while True:
        reply = await http.get("/_tollway/scaling/digits")
        found = reply.json().get("action")
        count = 1 if found is None or found["replicas"] is None else found["replicas"]
        # While a change is made, those that start or end cost too.
        pending = 0 if found is None else found["pending"] or 0
        seen.replicas.append((time.monotonic(), max(count, pending)))
        await asyncio.sleep(1.0)


async def phase(url: str, seen: Seen, clients: int, seconds: float) -> None:
    """Let clients work for a while; each ends after an answer."""
    tasks = [asyncio.create_task(client(url, seen)) for _ in range(clients)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def main() -> None:
    """Run the phases, and print what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phase", type=float, default=60.0, help="seconds of the middle phase")
    seconds = parser.parse_args().phase
    seen = Seen()
    with tempfile.TemporaryDirectory() as name:
        folder, (port, *ports) = Path(name), [free_port() for _ in range(MOST + 1)]
        words = [sys.executable, "-m", "examples.digits.scale", "--dir", str(folder / "servers")]
        words += ["--delay-ms", str(DELAY_MS), "--ports", *map(str, ports), "--replicas"]
        urls = [f"http://127.0.0.1:{one}" for one in ports]
        text = CONFIG.format(
            port=port,
            first=urls[0],
            others=json.dumps(urls[1:]),
            most=MOST,
            command=json.dumps([*words, "{replicas}"]),
        )
        (folder / "tollway.toml").write_text(text)
        url = f"http://127.0.0.1:{port}"
        gateway = None
        try:
            await ran(*words, "1")
            arguments = ["-m", "tollway", "serve", str(folder / "tollway.toml")]
            gateway = await processes.start("gateway", arguments, folder / "gateway.log")
            watching = asyncio.create_task(watch(url, seen))
            await phase(url, seen, 1, seconds)
            await phase(url, seen, 3, seconds)
            await phase(url, seen, 1, 2 * seconds)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        finally:
            if gateway is not None:
                gateway.stop()
            await ran(*words, "0", "--drain", "0")
    report(seen)


def report(seen: Seen) -> None:
    """Print what was seen."""
    latencies = sorted(seen.latencies_s)
    counts = [count for _, count in seen.replicas]
    path = [counts[0], *(later for before, later in pairwise(counts) if before != later)]
    used = sum((b[0] - a[0]) * a[1] for a, b in pairwise(seen.replicas))
    whole = (seen.replicas[-1][0] - seen.replicas[0][0]) * max(counts)
    failed = sum(status != 200 for status in seen.statuses)
    print(f"requests {len(seen.statuses)}, failed {failed}")
    print(f"latency p50 {latencies[len(latencies) // 2]:.2f} s, highest {latencies[-1]:.2f} s")
    print("replicas " + " -> ".join(map(str, path)))
    print(
        f"replica-seconds {used:.0f}; {max(counts)} all the time: {whole:.0f}; {used / whole:.0%}"
    )


if __name__ == "__main__":
    asyncio.run(main())
