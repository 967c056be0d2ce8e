"""Several workers act as one gateway: in metrics, budgets and learning."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, serving
from tests.support.http_client import http_client
from tests.support.process import Process, free_port
from tests.support.until import until

pytestmark = pytest.mark.integration

CHEAP_NANO = 100_000


def worker_of(decision: str) -> str:
    """Return what identifies a decision's worker: the journal segment with its row."""
    return decision.partition(".")[0]


@asynccontextmanager
async def workers(
    folder: Path,
    upstream: Upstream,
    *,
    count: int = 2,
    policy: str = "cheapest",
    server: str = "",
    route: str = "",
    more: str = "",
) -> AsyncIterator[tuple[Process, str]]:
    """Run a gateway of `count` workers over one upstream; yield it and its address."""
    url = f"http://127.0.0.1:{free_port()}"
    async with serving(upstream) as backend:
        config = folder / "tollway.toml"
        config.write_text(
            two_backends(
                backend,
                backend,
                policy=policy,
                route=route,
                server=f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"\n{server}',
                more=more,
                ledger="sqlite:///tollway.db",
            )
        )
        gateway = Process(config, "--workers", str(count))
        try:
            await gateway.ready(url)
            await until(lambda: asyncio.to_thread(is_announced, folder))
            yield gateway, url
        finally:
            gateway.kill()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def is_announced(folder: Path) -> bool:
    return "is listening on" in (folder / "log").read_text()


async def fresh(url: str, path: str, document: Any = None) -> httpx.Response:
    """Send a request on a new connection, which any worker may get."""
    async with http_client(timeout=30) as client:
        if document is None:
            return await client.get(url + path)
        return await client.post(url + path, json=document)


async def both(url: str, most: int = 200) -> dict[str, list[str]]:
    """Send requests until each of two workers has had ten; return their decisions by worker."""
    had: dict[str, list[str]] = {}
    for _ in range(most):
        reply = await fresh(url, "/v2/models/m/infer", inference())
        assert reply.status_code == 200, reply.text
        decision = reply.headers["x-tollway-decision"]
        had.setdefault(worker_of(decision), []).append(decision)
        if len(had) == 2 and min(map(len, had.values())) >= 10:
            return had
    raise AssertionError(
        f"the kernel did not deal them out: { {k: len(v) for k, v in had.items()} }"
    )


def total(exposition: str, name: str) -> float:
    """Return the sum of a metric's samples."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in exposition.splitlines()
        if re.match(rf"{name}(\{{|\s)", line)
    )


def test_every_worker_reports_the_figures_of_all(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with workers(tmp_path, upstream, more=budget("cap", "10.0")) as (_, url):
            had = await both(url)
            sent = sum(map(len, had.values()))
            assert upstream.calls == sent
            for _ in range(12):  # whichever is asked
                text = (await fresh(url, "/metrics")).text
                assert total(text, "tollway_requests_total") == sent
                assert total(text, "tollway_gateway_duration_seconds_count") == sent
                assert round(total(text, "tollway_cost_usd_total") * 1e9) == sent * CHEAP_NANO
                assert round(total(text, "tollway_budget_spent_usd") * 1e9) == sent * CHEAP_NANO
                assert total(text, "tollway_build_info") == 1
                spend = (await fresh(url, "/_tollway/spend")).json()
                assert spend["cost_nano"] == sent * CHEAP_NANO
                (cap,) = (await fresh(url, "/_tollway/budgets")).json()["budgets"]
                assert cap["spent_nano"] == sent * CHEAP_NANO
            for decisions in had.values():
                for _ in range(6):
                    told = (await fresh(url, f"/_tollway/decisions/{decisions[0]}")).json()
                    assert told["cost_nano"] == CHEAP_NANO

    run(main)


def test_feedback_to_one_worker_is_learned_by_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with workers(tmp_path, Upstream(label=2), policy="lagrangian") as (_, url):
            had = await both(url)
            decisions = [one for mine in had.values() for one in mine]
            for one in decisions:
                told = await fresh(url, "/_tollway/feedback", {"decision": one, "label": 2})
                assert told.status_code == 202, told.text
            for one in decisions:
                again = await fresh(url, "/_tollway/feedback", {"decision": one, "label": 2})
                assert again.json()["result"] == "duplicate"

            async def learned_everywhere() -> bool:
                seen = [(await fresh(url, "/_tollway/routes")).json()["routes"] for _ in range(12)]
                return all(route["policy_version"] == len(decisions) for [route] in seen)

            await until(learned_everywhere)
            text = (await fresh(url, "/metrics")).text
            assert total(text, "tollway_policy_version") == len(decisions)
            assert total(text, "tollway_feedback_total") == 2 * len(decisions)

    run(main)


def test_two_workers_spend_a_budget_to_its_end_and_no_further(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        # However busy the machine, nobody gives up waiting for money that the other worker holds.
        patient = "hold_wait_s = 600"
        more, route = budget("cap", "0.03"), "timeout_s = 600"
        async with workers(tmp_path, upstream, server=patient, route=route, more=more) as (_, url):
            async with http_client(
                timeout=600, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
            ) as client:

                async def spend() -> list[int]:
                    path = url + "/v2/models/m/infer"
                    return [
                        (await client.post(path, json=inference())).status_code for _ in range(60)
                    ]

                statuses = [
                    one
                    for some in await asyncio.gather(*(spend() for _ in range(8)))
                    for one in some
                ]
            assert statuses.count(200) == upstream.calls == 300  # $0.03 at $0.0001 a call
            assert statuses.count(402) == len(statuses) - 300

    run(main)


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost_but_what_it_had_open(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        upstream = Upstream(delay_s=0.002)
        more = budget("cap", "50.0")
        async with workers(tmp_path, upstream, policy="lagrangian", more=more) as (gateway, url):
            answered = failed = 0
            stop = asyncio.Event()

            async def client() -> None:
                nonlocal answered, failed
                while not stop.is_set():
                    try:
                        reply = await fresh(url, "/v2/models/m/infer", inference())
                    except httpx.TransportError:
                        failed += 1
                        continue
                    assert reply.status_code == 200, reply.text
                    answered += 1

            clients = [asyncio.create_task(client()) for _ in range(4)]
            floor = 0.0
            for round_ in range(2):
                seen = answered
                await until(lambda seen=seen: answered > seen + 50)  # type: ignore[misc]
                text = (await fresh(url, "/metrics")).text
                before = total(text, "tollway_requests_total")
                assert before >= floor, "a counter fell"
                floor = before
                victim = gateway.workers[round_]  # the one that learns, then the other
                os.kill(victim, signal.SIGKILL)

                async def replaced(victim: int = victim) -> bool:
                    return victim not in gateway.workers and len(gateway.workers) == 2

                await until(replaced)
            seen = answered
            await until(lambda: answered > seen + 50)
            stop.set()
            await asyncio.gather(*clients)
            assert failed <= 2 * len(clients)  # those whose worker was killed
            await both(url)

            async def settled() -> bool:
                (cap,) = (await fresh(url, "/_tollway/budgets")).json()["budgets"]
                return bool(cap["held_nano"] == 0)

            await until(settled)  # what the dead held is back
            (cap,) = (await fresh(url, "/_tollway/budgets")).json()["budgets"]
            billed = upstream_bill(upstream)
            assert billed <= cap["spent_nano"] <= billed + cap["unaccounted_nano"]
            text = (await fresh(url, "/metrics")).text
            assert total(text, "tollway_requests_total") >= floor
            assert gateway.end(signal.SIGTERM) == 0

    run(main)


def upstream_bill(upstream: Upstream) -> int:
    """Return what the calls that an upstream has had cost, by the model that each named."""
    return sum(
        1_000_000 if b"/large/" in path else CHEAP_NANO for _, path, _, _ in upstream.requests
    )


def test_sigterm_ends_what_is_under_way_and_the_address_is_free_again(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream(hold=asyncio.Event())
        async with workers(tmp_path, upstream) as (gateway, url):
            asking = [
                asyncio.create_task(fresh(url, "/v2/models/m/infer", inference())) for _ in range(8)
            ]

            async def under_way() -> bool:
                return upstream.calls == len(asking)

            await until(under_way)
            ending = asyncio.create_task(asyncio.to_thread(gateway.end, signal.SIGTERM))

            async def closed() -> bool:
                try:
                    await fresh(url, "/livez")
                except httpx.ConnectError:
                    return True
                except httpx.TransportError:
                    pass
                return False

            await until(closed)
            assert upstream.hold is not None
            upstream.hold.set()
            assert {reply.status_code for reply in await asyncio.gather(*asking)} == {200}
            assert await ending == 0
            assert (tmp_path / "log").read_text().count("is listening on") == 1

    run(main)


def test_workers_follow_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    async def main() -> None:
        async with workers(tmp_path, Upstream()) as (gateway, url):
            orphans = gateway.workers
            assert gateway.end(signal.SIGKILL) == -9

            async def gone() -> bool:
                return not any(map(is_alive, orphans))

            await until(gone)
            with pytest.raises(httpx.TransportError):
                await fresh(url, "/livez")

    run(main)


def test_workers_that_cannot_start_end_the_gateway_with_an_error(tmp_path: Path) -> None:
    config = tmp_path / "tollway.toml"
    config.write_text(
        two_backends(
            "http://127.0.0.1:9",
            "http://127.0.0.1:9",
            server='allow_anonymous = true\nlisten = "127.0.0.1:0"',
            ledger="unix:///nowhere/redis.sock",
            more=budget("cap", "1.0"),
        )
    )
    gateway = Process(config, "--workers", "2")
    assert gateway.wait() == 1
    assert "listening" not in (tmp_path / "log").read_text()
