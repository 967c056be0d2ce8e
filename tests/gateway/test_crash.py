"""A gateway killed at any moment loses no money and no learning."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from configs import budget, two_backends
from harness import Upstream, inference, run, serving

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


class Process:
    """`tollway serve` as a process of its own."""

    def __init__(self, config: Path, *options: str) -> None:
        self._log = (config.parent / "log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", str(config), *options],
            cwd=ROOT,
            stdout=self._log,
            stderr=self._log,
        )

    async def ready(self, url: str) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                assert self._process.poll() is None, "the gateway ended while starting"
                try:
                    if (await client.get(url + "/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    await asyncio.sleep(0.05)

    @property
    def workers(self) -> list[int]:
        """The processes that it has started."""
        pid = self._process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self) -> None:
        """End it whatever state it is in; its workers see that and follow."""
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        """Return its exit code, once it has ended."""
        code = self._process.wait(timeout=20)
        self._log.close()
        return code

    def end(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        return self.wait()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def traffic(url: str, seconds: float) -> int:
    """Send requests with feedback until the time is over or the gateway is gone."""
    answered = 0

    async def worker(client: httpx.AsyncClient) -> None:
        nonlocal answered
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                reply = await client.post(url + "/v2/models/m/infer", json=inference())
                if reply.status_code == 200:
                    answered += 1
                    told = {"decision": reply.headers["x-tollway-decision"], "label": 2}
                    await client.post(url + "/_tollway/feedback", json=told)
            except httpx.TransportError:
                return

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, limits=limits) as client:
        await asyncio.gather(*(worker(client) for _ in range(8)))
    return answered


async def state(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False) as client:
        (cap,) = (await client.get(url + "/_tollway/budgets")).json()["budgets"]
        (route,) = (await client.get(url + "/_tollway/routes")).json()["routes"]
        return cap, route


def test_sigkill_in_mid_traffic_loses_no_spend_breaks_no_budget_and_learning_goes_on(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        cheap, dear = Upstream(label=1, delay_s=0.005), Upstream(label=2, delay_s=0.005)
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(cheap) as a, serving(dear) as b:
            config = tmp_path / "tollway.toml"
            config.write_text(
                two_backends(
                    a,
                    b,
                    policy="lagrangian",
                    server=f'open = true\nlisten = "{url.removeprefix("http://")}"',
                    more=budget("cap", "50.0") + "[state]\ninterval_s = 0.2\n",
                    ledger="sqlite:///tollway.db",
                )
            )

            def seen() -> int:
                return cheap.calls * 100_000 + dear.calls * 1_000_000

            version = 0
            for round_ in range(3):
                gateway = Process(config)
                await gateway.ready(url)
                cap, route = await state(url)
                assert cap["spent_nano"] >= seen(), f"round {round_}"
                assert cap["spent_nano"] + cap["held_nano"] <= cap["limit_nano"]
                # What is charged beyond what was seen is the calls in flight at each kill.
                assert cap["spent_nano"] - seen() <= cap["unaccounted_nano"]
                assert route["policy_version"] >= version
                sending = asyncio.create_task(traffic(url, 5.0))
                await asyncio.sleep(1.0)
                version = (await state(url))[1]["policy_version"]
                assert version > 0
                assert gateway.end(signal.SIGKILL) == -9
                assert await sending > 0
            gateway = Process(config)
            await gateway.ready(url)
            cap, route = await state(url)
            assert cap["spent_nano"] >= seen() > 0
            assert route["policy_version"] >= version
            assert await traffic(url, 0.5) > 0
            assert gateway.end(signal.SIGTERM) in (0, -15)
            async with httpx.AsyncClient():
                pass

    run(main)


def test_sigterm_hands_back_all_that_was_not_spent(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream()
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(cheap) as a:
            config = tmp_path / "tollway.toml"
            server = f'open = true\nlisten = "{url.removeprefix("http://")}"'
            config.write_text(
                two_backends(
                    a, a, server=server, more=budget("cap", "1.0"), ledger="sqlite:///tollway.db"
                )
            )
            for _ in range(2):
                gateway = Process(config)
                await gateway.ready(url)
                assert await traffic(url, 0.3) > 0
                gateway.end(signal.SIGTERM)
            gateway = Process(config)
            await gateway.ready(url)
            cap, _ = await state(url)
            assert cap["spent_nano"] == cheap.calls * 100_000
            assert cap["unaccounted_nano"] == 0
            gateway.end(signal.SIGTERM)

    run(main)
