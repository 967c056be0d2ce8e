"""A gateway killed at any moment loses no settled spend and no learning."""

import asyncio
import contextlib
import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, serving
from tests.support.http_client import http_client
from tests.support.process import Process, free_port
from tests.support.until import until
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows

pytestmark = pytest.mark.integration


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
    async with http_client(limits=limits) as client:
        await asyncio.gather(*(worker(client) for _ in range(8)))
    return answered


async def state(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    async with http_client() as client:
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
                    server=f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"',
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
                called = cheap.calls + dear.calls
                sending = asyncio.create_task(traffic(url, 60.0))
                await until(lambda: cheap.calls + dear.calls > called + 200)  # noqa: B023
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
            assert gateway.end(signal.SIGTERM) == 0

    run(main)


KILLS = 20
CHEAP_NANO = 100_000
CLIENTS = 8
DEAR_NANO = 1_000_000


async def spenders(url: str, told: list[int], begun: asyncio.Event) -> None:
    """Have clients call until the gateway is gone; record the cost in each reply."""

    async def client(http: httpx.AsyncClient) -> None:
        with contextlib.suppress(httpx.TransportError):
            while True:
                reply = await http.post(url + "/v2/models/m/infer", json=inference())
                told.append(round(float(reply.headers["x-tollway-cost-usd"]) * 1e9))
                begun.set()

    limits = httpx.Limits(max_connections=None)
    async with http_client(limits=limits) as http:
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))


def test_twenty_kills_at_random_moments_lose_no_settled_spend(tmp_path: Path) -> None:
    """Costs in replies, the backend's bill and the journal's costs are all charged."""

    async def main() -> None:
        rng, backend, told = random.Random(17), Upstream(delay_s=0.002), list[int]()
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(backend) as address:
            config = tmp_path / "tollway.toml"
            config.write_text(
                two_backends(
                    address,
                    address,
                    policy="lagrangian",
                    server=f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"',
                    more=budget("cap", "50.0"),
                    ledger="sqlite:///tollway.db",
                )
            )
            for kill in range(KILLS):
                gateway, begun = Process(config), asyncio.Event()
                await gateway.ready(url)
                check(await state(url), backend, told, tmp_path, kill)
                clients = asyncio.create_task(spenders(url, told, begun))
                async with asyncio.timeout(20):
                    await begun.wait()
                await asyncio.sleep(rng.uniform(0.0, 0.2))
                gateway.end(signal.SIGKILL)
                await clients
            gateway = Process(config)
            await gateway.ready(url)
            check(await state(url), backend, told, tmp_path, KILLS)
            assert len(told) > 5 * KILLS
            assert gateway.end(signal.SIGTERM) == 0

    run(main)


def check(
    found: tuple[dict[str, Any], Any], backend: Upstream, told: list[int], folder: Path, kills: int
) -> None:
    """Assert that all that was spent is charged, and no more than that and what was open."""
    cap = found[0]
    charged_nano, unproven_nano = cap["spent_nano"], cap["unaccounted_nano"]
    paths = [path for _, path, *_ in backend.requests]
    billed_nano = sum(DEAR_NANO if b"/large/" in path else CHEAP_NANO for path in paths)
    journal_nano = sum(
        row["cost_nano"]
        for path in segments(folder / ".tollway" / "journal")
        for row in rows(path)
        if row["kind"] == "attempt"
    )
    assert cap["held_nano"] == 0, "what the dead held is back"
    assert charged_nano >= billed_nano >= charged_nano - unproven_nano
    assert charged_nano >= sum(told)
    # A row is written when its turn of the event loop ends: a kill takes that turn's along.
    unwritten_nano = charged_nano - unproven_nano - journal_nano
    assert 0 <= unwritten_nano <= kills * CLIENTS * DEAR_NANO
    assert unproven_nano <= kills * CLIENTS * DEAR_NANO


def test_sigterm_hands_back_all_that_was_not_spent(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream()
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(cheap) as a:
            config = tmp_path / "tollway.toml"
            server = f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"'
            config.write_text(
                two_backends(
                    a, a, server=server, more=budget("cap", "1.0"), ledger="sqlite:///tollway.db"
                )
            )
            for _ in range(2):
                gateway = Process(config)
                await gateway.ready(url)
                assert await traffic(url, 0.3) > 0
                assert gateway.end(signal.SIGTERM) == 0
            gateway = Process(config)
            await gateway.ready(url)
            cap, _ = await state(url)
            assert cap["spent_nano"] == cheap.calls * 100_000
            assert cap["unaccounted_nano"] == 0
            assert gateway.end(signal.SIGTERM) == 0

    run(main)
