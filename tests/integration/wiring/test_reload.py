"""A reload applies as a whole or not at all, under load, and loses no learning or money."""

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, running, serving
from tests.support.http_client import http_client
from tests.support.process import Process, free_port
from tests.support.reloading import File
from tests.support.until import until
from tollway.gateway.security.keys import hash_key

pytestmark = pytest.mark.integration


def test_backends_change_under_load_and_nobody_notices(tmp_path: Path) -> None:
    async def main() -> None:
        old, new = Upstream(label=1, hold=asyncio.Event()), Upstream(label=2)
        async with serving(Upstream()) as a, serving(old) as b, serving(new) as c:
            before = two_backends(a, b, policy="most_accurate", more=budget("all", "10.0"))
            after = two_backends(a, c, policy="most_accurate", more=budget("all", "10.0"))
            async with running(before, tmp_path) as tollway:
                file = File(tollway, tmp_path)
                held = [asyncio.ensure_future(tollway.infer()) for _ in range(5)]
                await until(lambda: old.calls >= 5)
                assert (await file.reload(after)).json() == {"changed": ["backend dear changed"]}
                statuses: Counter[int] = Counter()
                for _ in range(20):
                    statuses[(await tollway.infer()).status_code] += 1
                assert old.hold is not None
                old.hold.set()
                ended = [reply.status_code for reply in await asyncio.gather(*held)]
                assert statuses == {200: 20}
                assert ended == [200] * 5
                assert (old.calls, new.calls) == (5, 20)
                (one,) = (await tollway.get("/_tollway/budgets"))["budgets"]
                assert one["spent_nano"] == 25 * 1_000_000
                assert (await tollway.get("/_tollway/spend"))["cost_nano"] == 25 * 1_000_000

    run(main)


def test_what_was_learned_stays_and_a_new_price_acts_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            text = two_backends(a, b, policy="lagrangian", more=budget("all", "10.0"))
            async with running(text, tmp_path) as tollway:
                file = File(tollway, tmp_path)
                for _ in range(3):
                    decision = (await tollway.infer()).headers["x-tollway-decision"]
                    await tollway.feedback({"decision": decision, "quality": 1.0})
                policy = tollway.gateway.routes["m"].policy
                assert policy.version == 3
                repriced = text.replace("per_request_usd = 0.001 ", "per_request_usd = 0.004 ")
                assert repriced != text
                assert (await file.reload(repriced)).status_code == 200
                assert tollway.gateway.routes["m"].policy is policy
                reply = await tollway.infer()
                told = await tollway.get(
                    f"/_tollway/decisions/{reply.headers['x-tollway-decision']}"
                )
                offered = {one["arm"]: one["cost_hat_usd"] for one in told["stages"][0]["offered"]}
                assert offered["dear"] == pytest.approx(0.004)
                another = repriced.replace(
                    'name = "m"', 'name = "m"\nobjective = "max_quality"\naccuracy_floor = 0.5'
                )
                assert (await file.reload(another)).status_code == 200
                assert tollway.gateway.routes["m"].policy is not policy
                assert tollway.gateway.routes["m"].policy.version == 3

    run(main)


def test_a_bad_configuration_is_refused_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            text = two_backends(a, a, more=budget("all", "10.0"))
            async with running(text, tmp_path) as tollway:
                file = File(tollway, tmp_path)
                settings, app = tollway.gateway.settings, tollway.gateway.app
                wrong = await file.reload(text.replace("limit_usd = 10.0", 'limit_usd = "ten"'))
                assert wrong.status_code == 422
                assert "limit_usd" in wrong.json()["problems"][0]["key"]
                moved = await file.reload(text + '\n[journal]\ndir = "elsewhere"\n')
                assert moved.status_code == 422
                (problem,) = moved.json()["problems"]
                assert (problem["key"], "restart" in problem["why"]) == ("journal", True)
                assert tollway.gateway.settings is settings
                assert tollway.gateway.app is app
                assert (await tollway.infer()).status_code == 200
                events = (await tollway.get("/_tollway/events"))["events"]
                assert [event["kind"] for event in events[:2]] == ["reload_refused"] * 2
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                assert 'tollway_config_reloads_total{result="refused"} 2.0' in metrics

    run(main)


def test_budgets_come_go_and_change_with_money_reserved(tmp_path: Path) -> None:
    async def main() -> None:
        slow = Upstream(hold=asyncio.Event())
        async with serving(slow) as a, serving(Upstream()) as b:
            server = "allow_anonymous = true\nhold_wait_s = 0"
            plain = two_backends(a, b, policy="cheapest", server=server)
            small = plain + budget("gone", "0.0003") + budget("kept", "0.0004")
            async with running(small, tmp_path) as tollway:
                file = File(tollway, tmp_path)
                held = [asyncio.ensure_future(tollway.infer()) for _ in range(3)]
                await until(lambda: slow.calls >= 3)
                assert (await tollway.infer()).status_code == 429  # by the budget that goes
                told = await file.reload(plain + budget("kept", "0.0005") + budget("new", "9.0"))
                assert told.json()["changed"] == [
                    "budget gone removed",
                    "budget kept changed",
                    "budget new added",
                ]
                assert slow.hold is not None
                slow.hold.set()
                assert {reply.status_code for reply in await asyncio.gather(*held)} == {200}
                outcomes = [(await tollway.infer()).status_code for _ in range(4)]
                assert outcomes == [200, 200, 402, 402]
                budgets = (await tollway.get("/_tollway/budgets"))["budgets"]
                spent = {one["name"]: one["spent_nano"] for one in budgets}
                assert spent == {"kept": 500_000, "new": 200_000}
                back = await file.reload(plain + budget("gone", "0.001"))
                assert back.status_code == 200
                (gone,) = (await tollway.get("/_tollway/budgets"))["budgets"]
                assert gone["spent_nano"] == 300_000

    run(main)


def test_routes_and_keys_change(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            text = two_backends(a, b)
            async with running(text, tmp_path) as tollway:
                file = File(tollway, tmp_path)
                more = text + (
                    '[[routes]]\nname = "n"\npath = "/v2/models/n/infer"\nprotocol = "oip"\n'
                    'backends = ["cheap"]\n'
                )
                assert (await tollway.infer(path="/v2/models/n/infer")).status_code == 404
                assert (await file.reload(more)).status_code == 200
                assert (await tollway.infer(path="/v2/models/n/infer")).status_code == 200
                assert (await file.reload(text)).status_code == 200
                assert (await tollway.infer(path="/v2/models/n/infer")).status_code == 404
                keyed = text.replace(
                    "allow_anonymous = true",
                    'allow_anonymous = false\nadmin_key = "0123456789abcdef"',
                )
                keyed += f'[[tenants]]\nname = "t"\nkey_hash = "{hash_key("tw_one")}"\n'
                assert (await file.reload(keyed)).status_code == 200
                assert (await tollway.infer()).status_code == 401
                assert (await tollway.infer(authorization="Bearer tw_one")).status_code == 200
                spend = await tollway.client.get(tollway.url + "/_tollway/spend")
                assert spend.status_code == 401

    run(main)


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_reloads_every_process(tmp_path: Path, workers: int) -> None:
    async def main() -> None:
        url = f"http://127.0.0.1:{free_port()}"
        server = f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"'
        async with serving(Upstream(label=1)) as a, serving(Upstream(label=2)) as b:
            file = tmp_path / "tollway.toml"
            options: dict[str, Any] = {"server": server, "policy": "cheapest"}
            options["ledger"] = "sqlite:///tollway.db"
            file.write_text(two_backends(a, b, **options))
            gateway = Process(file, "--workers", str(workers))
            try:
                await gateway.ready(url)
                async with http_client() as client:

                    async def label() -> Any:
                        # A connection of its own, so that each worker is met.
                        async with http_client() as fresh:
                            path = url + "/v2/models/m/infer"
                            reply = await fresh.post(path, json=inference())
                        return reply.json()["outputs"][0]["data"][0]

                    async def all_say(wanted: int) -> bool:
                        return [await label() for _ in range(8)] == [wanted] * 8

                    async def is_refused() -> bool:
                        return "reload_refused" in (await client.get(url + "/_tollway/events")).text

                    assert await label() == 1
                    file.write_text("no = toml = at all")
                    gateway.tell(signal.SIGHUP)
                    await until(is_refused, every_s=0.05)
                    assert await label() == 1
                    file.write_text(two_backends(b, a, **options))
                    gateway.tell(signal.SIGHUP)
                    await until(lambda: all_say(2))
                    file.write_text(two_backends(a, b, **options))
                    asked = await client.post(url + "/_tollway/reload")
                    assert asked.json() == {
                        "changed": ["backend cheap changed", "backend dear changed"]
                    }
                    await until(lambda: all_say(1))
                assert gateway.end(signal.SIGTERM) == 0
            finally:
                gateway.stop()

    run(main)


def test_another_limit_of_bodies_binds_the_next_request_of_an_open_connection(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        url = f"http://127.0.0.1:{free_port()}"
        async with serving(Upstream()) as a:
            file = tmp_path / "tollway.toml"

            def write(most: int) -> None:
                server = f'allow_anonymous = true\nmax_body_bytes = {most}\nlisten = "{url[7:]}"'
                file.write_text(two_backends(a, a, server=server))

            write(2048)
            gateway = Process(file)
            try:
                await gateway.ready(url)
                async with http_client() as client:

                    async def status(size: int) -> int:
                        body = json.dumps(inference() | {"parameters": {"x": "x" * size}})
                        path = url + "/v2/models/m/infer"
                        return (await client.post(path, content=body)).status_code

                    seen = []
                    for most in (2048, 8192, 4096):
                        write(most)
                        reloaded = await client.post(url + "/_tollway/reload")
                        assert reloaded.status_code == 200
                        seen.append([await status(size) for size in (1000, 3000, 6000, 9000)])
                assert seen == [
                    [200, 413, 413, 413],
                    [200, 200, 200, 413],
                    [200, 200, 413, 413],
                ]
                assert gateway.end(signal.SIGTERM) == 0
            finally:
                gateway.stop()

    run(main)


@pytest.mark.parametrize("workers", [1, 2])
def test_after_sigterm_it_serves_until_the_grace_period_ends(tmp_path: Path, workers: int) -> None:
    async def main() -> None:
        url = f"http://127.0.0.1:{free_port()}"
        server = f'allow_anonymous = true\ngrace_s = 6\nlisten = "{url.removeprefix("http://")}"'
        async with serving(Upstream()) as a:
            file = tmp_path / "tollway.toml"
            file.write_text(two_backends(a, a, server=server, ledger="sqlite:///tollway.db"))
            gateway = Process(file, "--workers", str(workers))
            try:
                await gateway.ready(url)
                # One that answers may be the first: a worker that still starts has no grace period.
                await until(lambda: "is listening" in (tmp_path / "log").read_text(), within_s=60)
                gateway.tell(signal.SIGTERM)
                seen: Counter[int] = Counter()
                async with asyncio.timeout(30):
                    while True:
                        try:
                            async with http_client() as client:
                                ready = (await client.get(url + "/readyz")).status_code
                                path = url + "/v2/models/m/infer"
                                reply = await client.post(path, json=inference())
                        except httpx.TransportError:
                            break
                        if ready == 503:
                            seen[reply.status_code] += 1
                            closes = reply.headers.get("connection") == "close"
                            assert closes or workers > 1  # another may hear of it a moment later
                assert set(seen) == {200}
                assert gateway.wait() == 0
            finally:
                gateway.stop()

    run(main)
