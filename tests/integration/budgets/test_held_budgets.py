"""Requests wait for money held by calls in progress; over sockets, by the backend's bill."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.configs import budget, one_model
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.until import until
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.listener.request_head import HeadLimits

pytestmark = pytest.mark.integration

CHAT = "/v1/chat/completions"
REPLY = orjson.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "4"},
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1000, "total_tokens": 1001},
    }
)
"""A reply that costs $0.01."""


WHOLE = "min_output_tokens = 10_000"
"""No request is given a lower limit than its own, so what it holds is known."""


def configuration(url: str, limit_usd: float, server: str = "", backend: str = WHOLE) -> str:
    """Return one model under a hard monthly budget `b`."""
    return one_model(
        url,
        price="{ input_usd_per_mtok = 0, output_usd_per_mtok = 10.0 }",
        server=server,
        backend="declared_accuracy = 0.99\n" + backend,
        more=budget("b", str(limit_usd), more='window = "month"\nenforcement = "hard"'),
    )


async def ask(app: Running, max_tokens: int | None, **headers: str) -> httpx.Response:
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    if max_tokens is not None:
        asked["max_tokens"] = max_tokens
    return await app.client.post(
        app.url + CHAT, json=asked, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


async def none_waits(app: Running) -> bool:
    return not await figure(app, "tollway_budget_waiting")


async def figure(app: Running, name: str) -> float:
    text = (await app.client.get(app.url + "/metrics")).text
    [line] = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(line.split()[-1])


@pytest.mark.parametrize("at_once", [1, 10, 100])
@pytest.mark.parametrize("max_tokens", [None, 1000, 2000, 5000, 100_000])
def test_a_hard_budget_answers_as_many_calls_at_any_concurrency(
    tmp_path: Path, at_once: int, max_tokens: int | None
) -> None:
    """$0.40 at $0.01 a call, for any limit in the request, or none."""

    async def main() -> None:
        upstream = Upstream(body=REPLY, delay_s=0.02)
        async with serving(upstream) as url:
            async with running(configuration(url, 0.4, backend=""), tmp_path) as app:
                gate = asyncio.Semaphore(at_once)

                async def one() -> int:
                    async with gate:
                        return (await ask(app, max_tokens)).status_code

                seen = Counter(await asyncio.gather(*[one() for _ in range(100)]))
                assert seen == {200: 40, 402: 60}
                assert upstream.calls == 40
                [told] = (await app.get("/_tollway/budgets"))["budgets"]
                assert told["spent_nano"] == 400_000_000
                assert told["overdraft_nano"] == 0

    run(main)


def test_a_wait_without_success_ends_with_a_429_that_clients_repeat(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream(body=REPLY, hold=asyncio.Event())
        async with serving(upstream) as url:
            toml = configuration(url, 0.05, server="hold_wait_s = 0.2")
            async with running(toml, tmp_path) as app:
                first = asyncio.create_task(ask(app, 5000))
                await until(lambda: upstream.calls)
                held = await ask(app, 1000)
                assert held.status_code == 429
                assert held.headers["retry-after"] == "1"
                assert held.headers["x-should-retry"] == "true"
                body = held.json()
                assert body["error"]["code"] == "budget_held"
                assert body["retryable"] is True
                assert (body["spent_usd"], body["held_usd"], body["limit_usd"]) == (0, 0.05, 0.05)
                assert await figure(app, 'tollway_budget_waits_total{result="timed_out"}') == 1
                assert await figure(app, "tollway_budget_waiting") == 0
                assert upstream.hold is not None
                upstream.hold.set()
                assert (await first).status_code == 200
                spent = await ask(app, 5000)  # $0.04 is left, and this may cost $0.05
                assert spent.status_code == 402
                assert spent.headers["x-should-retry"] == "false"
                assert (await ask(app, 4000)).status_code == 200

    run(main)


def test_a_request_waits_no_longer_than_its_own_deadline(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream(body=REPLY, hold=asyncio.Event())
        async with serving(upstream) as url:
            async with running(configuration(url, 0.05), tmp_path) as app:
                first = asyncio.create_task(ask(app, 5000))
                await until(lambda: upstream.calls)
                async with asyncio.timeout(5):
                    held = await ask(app, 1000, x_tollway_deadline_ms="200")
                assert held.status_code == 429
                assert upstream.hold is not None
                upstream.hold.set()
                await first

    run(main)


def test_a_client_that_leaves_while_it_waits_costs_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream(body=REPLY, hold=asyncio.Event())
        async with serving(upstream) as url:
            toml = configuration(url, 0.05)
            async with running(toml, tmp_path, http=limited_protocol(HeadLimits())) as app:
                first = asyncio.create_task(ask(app, 5000))
                await until(lambda: upstream.calls)
                waits = asyncio.create_task(ask(app, 1000))
                await until(lambda: figure(app, "tollway_budget_waiting"))
                waits.cancel()
                await asyncio.gather(waits, return_exceptions=True)
                await until(lambda: none_waits(app))
                assert await figure(app, 'tollway_budget_waits_total{result="left"}') == 1
                assert upstream.hold is not None
                upstream.hold.set()
                await first
                assert upstream.calls == 1

    run(main)


def test_another_arm_that_can_be_paid_now_is_asked_before_anybody_waits(tmp_path: Path) -> None:
    async def main() -> None:
        upstream, cheap = Upstream(body=REPLY, hold=asyncio.Event()), Upstream(body=REPLY)
        async with serving(upstream) as url, serving(cheap) as other:
            toml = configuration(url, 0.05).replace(
                'backends = ["llm"]\npolicy = "cheapest"',
                'backends = ["llm", "free"]\npolicy = "most_accurate"',
            )
            free = f"""
[[backends]]
name = "free"
kind = "cpu"
protocol = "openai"
url = "{other}"
price = {{ free = true }}
declared_accuracy = 0.8
"""
            async with running(toml + free, tmp_path) as app:
                first = asyncio.create_task(ask(app, 5000))
                await until(lambda: upstream.calls)
                answer = await ask(app, 1000)
                assert answer.headers["x-tollway-backend"] == "free"
                assert upstream.hold is not None
                upstream.hold.set()
                await first

    run(main)


def test_money_spent_for_every_arm_is_not_reported_as_held(
    tmp_path: Path,
) -> None:
    """Both arms' money is held when the second call comes, and spent when the first has ended."""

    async def main() -> None:
        costly = REPLY.replace(b'"completion_tokens":1000', b'"completion_tokens":19000')
        upstream = Upstream(body=costly, hold=asyncio.Event())
        async with serving(upstream) as url:
            toml = configuration(url, 0.1).replace('["llm"]', '["llm", "half"]')
            half = f"""
[[backends]]
name = "half"
kind = "gpu"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 0, output_usd_per_mtok = 5.0 }}
min_output_tokens = 20_000
"""
            async with running(toml + half, tmp_path) as app:
                first = asyncio.create_task(ask(app, 20_000))  # $0.10 at half the price
                await until(lambda: upstream.calls)
                second = asyncio.create_task(ask(app, 9_000))
                await until(lambda: figure(app, "tollway_budget_waiting"))
                assert upstream.hold is not None
                upstream.hold.set()
                assert (await first).status_code == 200
                spent = await second
                assert (spent.status_code, spent.json()["retryable"]) == (402, False)

    run(main)
