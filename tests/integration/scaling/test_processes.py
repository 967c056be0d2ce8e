"""Servers that are started and stopped by a command, under a load that triples and falls."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.harness import Running, run, running
from tests.support.ports import free_port
from tests.support.until import until
from tollway.gateway.scaling.load_meter import Totals
from tollway.gateway.wiring.backends import check_health

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
CONFIG = """
[server]
allow_anonymous = true
[ledger]
url = "sqlite:///{folder}/tollway.db"
[[backends]]
name = "digits"
kind = "cpu"
protocol = "oip"
model = "digits"
url = {first}
replicas = {others}
health_path = "/v2/health/ready"
price = {{ per_request_usd = 0.0001 }}
timeout_s = 60
[[routes]]
name = "digits"
path = "/v2/models/digits/infer"
protocol = "oip"
backends = ["digits"]
timeout_s = 60
[[scaling]]
name = "digits"
min = 1
max = 4
calls_per_replica = 1
target_utilization = 0.95
lead_s = 5
scale_up_after_s = 0
scale_down_after_s = 60
[scaling.action]
kind = "command"
command = {command}
timeout_s = 300
min_interval_s = 0
"""
PIXELS = [float(number % 16) for number in range(64)]
IMAGE = {"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": PIXELS}]}


class Stage:
    """A gateway, its servers, clients that never stop, and a clock that only tests move."""

    def __init__(self, tollway: Running) -> None:
        self.tollway = tollway
        self.gateway = tollway.gateway
        self.now_s = 1000.0
        self.totals = Totals()
        self.statuses: list[int] = []
        self.set: list[int] = []
        self.gateway.wall = lambda: self.now_s
        self.gateway.scaler._wall = lambda: self.now_s

    async def client(self) -> None:
        """Send one request after the other."""
        while True:
            url = self.tollway.url + "/v2/models/digits/infer"
            self.statuses.append((await self.tollway.client.post(url, json=IMAGE)).status_code)

    async def minutes(self, count: int, load: float) -> None:
        """Let minutes pass with so many calls in progress, and have what follows be done.

        What calls count is given, because the time that real ones take is no matter of a test.
        """
        scaler = self.gateway.scaler
        for _ in range(6 * count):
            self.now_s += 10.0
            self.totals = Totals(self.totals.calls + 10 * load, self.totals.seconds + 10 * load)
            scaler.observe({"digits": self.totals}, self.now_s, {})
            await scaler.tick()
            task = scaler.acting["digits"].task
            while not (task is None or task.done()):
                await check_health(self.gateway.backends)  # a server that drains says so
                await asyncio.wait([task], timeout=0.1)
            await check_health(self.gateway.backends)
            applied = scaler.acting["digits"].applied
            assert not applied.failures, self.gateway.events.newest(5)
            if applied.replicas is not None:
                self.set.append(applied.replicas)

    async def answers(self, more: int = 20) -> None:
        """Return when so many more requests were answered."""
        wanted = len(self.statuses) + more
        await until(lambda: len(self.statuses) >= wanted, within_s=120)


@asynccontextmanager
async def clients(stage: Stage, count: int) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(stage.client()) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_servers_follow_a_load_that_triples_and_falls_and_no_request_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    ports = [free_port() for _ in range(4)]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    words = [sys.executable, "-m", "examples.digits.scale", "--dir", str(tmp_path / "servers")]
    words += ["--ports", *map(str, ports), "--drain", "1", "--replicas"]
    command = str([*words, "{replicas}"]).replace("'", '"')
    text = CONFIG.format(
        folder=tmp_path,
        first=f'"{urls[0]}"',
        others=str(urls[1:]).replace("'", '"'),
        command=command,
    )

    async def command_with(replicas: int) -> None:
        made = await asyncio.create_subprocess_exec(*words, str(replicas))
        assert await made.wait() == 0

    async def main() -> None:
        try:
            await command_with(1)
            async with running(text, tmp_path) as tollway:
                stage = Stage(tollway)
                await check_health(tollway.gateway.backends)
                async with clients(stage, 2):
                    await stage.minutes(1, load=0.9)
                    await stage.answers()
                    await stage.minutes(2, load=2.7)
                    await stage.answers()
                    await stage.minutes(3, load=0.9)
                    await stage.answers()
                assert set(stage.statuses) == {200}
                found = [stage.set[0], *(b for a, b in pairwise(stage.set) if a != b)]
                assert [found[0], max(found), found[-1]] == [1, 3, 1], found
                risen = found.index(3)
                assert found == sorted(found[: risen + 1]) + sorted(found[risen + 1 :])[::-1]
        finally:
            await command_with(0)

    run(main)
    assert not list((tmp_path / "servers").glob("*.pid"))
