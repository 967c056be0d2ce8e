"""A step of the wall clock while a gateway serves: no window is opened twice."""

import asyncio
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, serving
from tests.support.http_client import http_client
from tests.support.process import Process, free_port

pytestmark = pytest.mark.integration

CALLS = 30  # what an hour's limit pays for
HOUR_S = 3600
STEPPED = """
import mmap, struct, sys, time

with open(sys.argv.pop(1), "r+b") as file:
    step = mmap.mmap(file.fileno(), 8)
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + struct.unpack("d", step)[0]
time.time_ns = lambda: real_ns() + int(1e9 * struct.unpack("d", step)[0])

from tollway.gateway.cli.main import main
sys.exit(main())
"""


def test_a_stepped_clock_opens_no_window_twice_and_spends_none_beyond_its_limit(
    tmp_path: Path,
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    step = tmp_path / "step"
    begun_s = time.time()
    middle_s = HOUR_S / 2 - begun_s % HOUR_S  # so that a slow machine does not cross an hour

    def jump(hours: float) -> None:
        with step.open("r+b") as file:
            file.write(struct.pack("d", middle_s + hours * HOUR_S))

    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as a:
            step.write_bytes(bytes(8))
            jump(0)
            config = tmp_path / "tollway.toml"
            server = f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"'
            hourly = budget("hourly", f"{CALLS * 0.0001:.4f}", more='window = "hour"')
            toml = two_backends(
                a, a, route="fallback = false", server=server, more=hourly, ledger="sqlite:///l.db"
            )
            # The expensive backend could never be paid for, and would only make refusals slower.
            config.write_text(toml.replace('["cheap", "dear"]', '["cheap"]'))
            program = ("-c", STEPPED, str(step))
            process = Process(config, "--workers", "2", program=program)
            try:
                async with http_client(timeout=20) as http:
                    await process.ready(url, http)
                    seen: list[float] = []
                    # Forward over a border, back into a window that is spent, forward by more,
                    # a little, and back to the first but one.
                    for hours in (0, 1, 0, 3.2, 1):
                        jump(hours)
                        await exhausted(http, url)
                        seen.append(int(0.5 + hours))
                        assert upstream.calls == CALLS * len({*seen}), f"after {seen}"
                    told = Counter(
                        event["details"]["share"]
                        for event in (await http.get(f"{url}/_tollway/events")).json()["events"]
                        if event["kind"] == "threshold"
                    )
                    assert told == dict.fromkeys((0.8, 0.9, 1.0), len({*seen}))
                    metrics = (await http.get(f"{url}/metrics")).text
                    assert not negative(metrics)
            finally:
                process.stop()

    run(main)


async def exhausted(http: httpx.AsyncClient, url: str) -> None:
    """Send requests until they have been refused for longer than a step can go undetected."""
    refused_since: float | None = None
    async with asyncio.timeout(30):
        while refused_since is None or time.monotonic() < refused_since + 1.5:
            reply = await http.post(url + "/v2/models/m/infer", json=inference())
            assert reply.status_code in (200, 402, 503), reply.text
            if reply.status_code == 402:
                refused_since = refused_since or time.monotonic()
                await asyncio.sleep(0.02)
            else:
                refused_since = None


def negative(metrics: str) -> list[str]:
    samples: list[Any] = [line.rsplit(" ", 1) for line in metrics.splitlines() if line[:1] != "#"]
    return [name for name, value in samples if float(value) < 0 and "input_psi" not in name]
