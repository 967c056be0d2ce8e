"""Batches through a whole gateway: rows, charges, budgets, metrics, reloads, failures."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.reloading import File
from tests.support.until import until
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.listener.request_head import HeadLimits

pytestmark = pytest.mark.integration

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
adaptive = false
concurrency = {concurrency}
price = {{ device_usd_per_hour = 3.6 }}
{batch}

[[routes]]
name = "m"
path = "/v2/models/m/infer"
protocol = "oip"
backends = ["model"]
context = {{ numeric = ["inputs[0].data[0]"] }}
score = {{ exact = "outputs[0].data[0]" }}

[[budgets]]
name = "all"
limit_usd = {limit}
"""
BATCH = "batch = { max_size = 8, max_wait_ms = 200 }"


def text(url: str, batch: str = BATCH, limit: float = 1.0, concurrency: int = 4) -> str:
    return CONFIG.format(url=url, batch=batch, limit=limit, concurrency=concurrency)


@dataclass
class Doubling(Upstream):
    """A model that doubles the first number of each row; a row of 13 is too much for it."""

    device_s: float | None = 0.008
    unlucky: float = 13.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.device_s is not None:
            self.headers = [(b"x-device-seconds", repr(self.device_s).encode())]
        self.status = 200
        await super().__call__(scope, receive, send)

    def answer(self, body: bytes) -> bytes:
        given = orjson.loads(body)["inputs"][0]
        rows, width = given["shape"]
        firsts = given["data"][::width]
        if self.unlucky in firsts:
            self.status = 500
            return b'{"error":"unlucky"}'
        doubled = [2 * number for number in firsts]
        output = {"name": "label", "shape": [rows], "datatype": "FP64", "data": doubled}
        return orjson.dumps({"model_name": "m", "outputs": [output]})


async def spent_nano(tollway: Running) -> int:
    (one,) = (await tollway.get("/_tollway/budgets"))["budgets"]
    return int(one["spent_nano"])


def cost_nano(reply: Any) -> int:
    return round(float(reply.headers["x-tollway-cost-usd"]) * 1e9)


def test_each_client_gets_its_row_and_a_share_of_the_device_time(tmp_path: Path) -> None:
    async def main() -> None:
        model = Doubling()
        async with serving(model) as url, running(text(url), tmp_path) as tollway:
            replies = await asyncio.gather(*(tollway.infer(float(n)) for n in range(8)))
            assert model.calls == 1
            for n, reply in enumerate(replies):
                told = reply.json()
                assert told["outputs"][0]["data"] == [2.0 * n]
                assert told["outputs"][0]["shape"] == [1]
                assert told["id"] == "q"
                assert cost_nano(reply) == 1_000  # 8 ms at $0.001 a second, for 8 rows
                assert reply.headers["x-device-seconds"] == "0.001"
            assert await spent_nano(tollway) == 8_000
            sources = {row["provenance"] for row in tollway.journalled("attempt")}
            assert sources == {"usage"}
            decision = replies[3].headers["x-tollway-decision"]
            taught = await tollway.feedback({"decision": decision, "label": 6.0})
            assert taught.status_code == 202
            assert [row["quality"] for row in tollway.journalled("feedback")] == [1.0]
            metrics = (await tollway.client.get(f"{tollway.url}/metrics")).text
            assert 'tollway_batch_calls_total{backend="model",result="joined"} 8.0' in metrics
            assert 'tollway_batch_rows_bucket{backend="model",le="8.0"} 1.0' in metrics
            assert 'tollway_batch_rows_limit{backend="model"} 8.0' in metrics

    run(main)


def test_time_that_nobody_reports_is_measured_once_and_divided(tmp_path: Path) -> None:
    async def main() -> None:
        model = Doubling(device_s=None, delay_s=0.2)
        async with serving(model) as url, running(text(url), tmp_path) as tollway:
            replies = await asyncio.gather(*(tollway.infer(float(n)) for n in range(8)))
            assert model.calls == 1
            total = sum(map(cost_nano, replies))
            assert 200_000 <= total < 8 * 200_000  # the batch's time, not each call's
            assert await spent_nano(tollway) == total

    run(main)


def test_one_bad_request_fails_alone(tmp_path: Path) -> None:
    async def main() -> None:
        model = Doubling()
        async with serving(model) as url, running(text(url), tmp_path) as tollway:
            values = [1.0, 2.0, 13.0, 4.0, 5.0, 6.0, 7.0, 8.0]
            replies = await asyncio.gather(*(tollway.infer(value) for value in values))
            assert [reply.status_code for reply in replies] == [
                500 if value == 13.0 else 200 for value in values
            ]
            assert replies[2].json()["error"] == "unlucky"
            assert tollway.gateway.backends["model"].up
            assert model.calls == 9

    run(main)


def test_a_server_that_is_down_counts_once(tmp_path: Path) -> None:
    async def main() -> None:
        model = Upstream(status=503, body=b'{"error":"loading"}', headers=[(b"retry-after", b"1")])
        async with serving(model) as url, running(text(url), tmp_path) as tollway:
            replies = await asyncio.gather(*(tollway.infer(float(n)) for n in range(8)))
            assert {reply.status_code for reply in replies} == {503}
            assert model.calls == 1
            backend = tollway.gateway.routes["m"].backends["model"]
            assert backend.breaker._failures == 1
            assert await spent_nano(tollway) == 0

    run(main)


def test_a_hard_budget_holds_and_what_it_has_is_spent(tmp_path: Path) -> None:
    async def main() -> None:
        model = Doubling()
        # A call may take 30 s of the device, 0.03 dollars: 0.1 dollars hold three at a time.
        async with serving(model) as url, running(text(url, limit=0.1), tmp_path) as tollway:
            replies = await asyncio.gather(*(tollway.infer(float(n)) for n in range(12)))
            answered = [reply for reply in replies if reply.status_code == 200]
            assert answered
            assert {reply.status_code for reply in replies} <= {200, 429}
            assert await spent_nano(tollway) == sum(map(cost_nano, answered)) <= 100_000_000

    run(main)


def test_a_client_that_hangs_up_leaves_the_others_their_rows(tmp_path: Path) -> None:
    async def main() -> None:
        model = Doubling(hold=asyncio.Event())
        own = limited_protocol(HeadLimits())
        async with serving(model) as url, running(text(url), tmp_path, http=own) as tollway:
            tasks = [asyncio.ensure_future(tollway.infer(float(n))) for n in range(8)]
            await until(lambda: model.calls == 1)
            tasks[3].cancel()
            await until(lambda: tollway.gateway.backends["model"].transport.stats.ends["left"])
            assert model.hold is not None
            model.hold.set()
            replies = await asyncio.gather(*tasks, return_exceptions=True)
            kept = [n for n, reply in enumerate(replies) if not isinstance(reply, BaseException)]
            assert kept == [0, 1, 2, 4, 5, 6, 7]
            for n in kept:
                assert replies[n].json()["outputs"][0]["data"] == [2.0 * n]
            assert model.calls == 1

    run(main)


def test_a_reload_turns_batches_on_and_off_without_losing_a_call(tmp_path: Path) -> None:
    async def main() -> None:
        model = Doubling(hold=asyncio.Event())
        async with serving(model) as url, running(text(url, ""), tmp_path) as tollway:
            file = File(tollway, tmp_path)
            single = [asyncio.ensure_future(tollway.infer(float(n))) for n in range(2)]
            await until(lambda: model.calls == 2)
            assert (await file.reload(text(url))).json() == {"changed": ["backend model changed"]}
            joined = [asyncio.ensure_future(tollway.infer(float(n))) for n in range(8)]
            await until(lambda: model.calls == 3)
            stats = tollway.gateway.backends["model"].transport.stats
            other = text(url, "batch = { max_size = 4, max_wait_ms = 1 }")
            assert (await file.reload(other)).status_code == 200
            assert tollway.gateway.backends["model"].transport.stats is stats
            assert (await file.reload(text(url, ""))).status_code == 200
            again = asyncio.ensure_future(tollway.infer(9.0))
            await until(lambda: model.calls == 4)
            assert model.hold is not None
            model.hold.set()
            replies = await asyncio.gather(*single, *joined, again)
            assert [reply.status_code for reply in replies] == [200] * 11
            assert stats.ends["joined"] == 8

    run(main)


def test_stopping_answers_what_waits_to_be_joined(tmp_path: Path) -> None:
    async def main() -> None:
        model = Doubling()
        async with serving(model) as url:
            slow = text(url, "batch = { max_size = 8, max_wait_ms = 500 }")
            async with running(slow, tmp_path) as tollway:
                asked = [asyncio.ensure_future(tollway.infer(float(n))) for n in range(3)]
                transport = tollway.gateway.backends["model"].transport
                await until(lambda: transport.waiting == 3)
                # Leaving the block stops the gateway while they wait.
                ending = asyncio.gather(*asked)
                replies = await ending
            assert [reply.status_code for reply in replies] == [200] * 3
            assert model.calls == 1

    run(main)


@dataclass
class Rows(Upstream):
    """A model of any server with rows in JSON."""

    def answer(self, body: bytes) -> bytes:
        document = orjson.loads(body)
        rows = document if isinstance(document, list) else document["instances"]
        told = [sum(row) for row in rows]
        return orjson.dumps(told if isinstance(document, list) else {"predictions": told})


@pytest.mark.parametrize("protocol", ["mlflow", "tfserving", "http", "plain"])
@pytest.mark.parametrize("tells", [True, False])
def test_rows_in_json_are_joined_for_every_protocol(
    tmp_path: Path, protocol: str, tells: bool
) -> None:
    path = "/v1/models/m:predict" if protocol == "tfserving" else "/invocations"
    fields = [(b"x-device-seconds", b"0.008")] if tells else []

    async def main() -> None:
        model = Rows(delay_s=0.2, headers=fields)
        async with serving(model) as url:
            config = text(url).replace('"oip"', f'"{protocol}"')
            config = config.replace("/v2/models/m/infer", path)
            config = config.replace("inputs[0].data[0]", "instances[0][0]")
            config = "\n".join(line for line in config.splitlines() if "score" not in line)
            async with running(config, tmp_path) as tollway:
                bodies: list[Any] = [[[n, 1]] for n in range(8)]
                if protocol not in ("http", "plain"):
                    bodies = [{"instances": rows} for rows in bodies]
                replies = await asyncio.gather(
                    *(tollway.client.post(tollway.url + path, json=body) for body in bodies)
                )
                assert model.calls == 1
                for n, reply in enumerate(replies):
                    told = reply.json()
                    assert (told if isinstance(told, list) else told["predictions"]) == [n + 1]
                total = sum(map(cost_nano, replies))
                assert total == 8_000 if tells else 200_000 <= total < 400_000
                assert await spent_nano(tollway) == total

    run(main)
