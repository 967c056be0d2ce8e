"""A spike of spend in live traffic is reported once, with its cause, and sent to a webhook."""

import asyncio
import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, serving
from tests.support.http_client import http_client
from tollway.gateway import settings as config
from tollway.gateway.anomalies.detector import TICK_S
from tollway.gateway.wiring import build
from tollway.gateway.wiring.jobs import look

pytestmark = pytest.mark.integration

HOOK = """
[anomalies]
min_usd_per_hour = 0.01

[[webhooks]]
name = "on-call"
url = "{url}/hook"
events = ["spend_anomaly", "spend_usual"]
"""


class Hook:
    """A receiver of webhooks."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.some = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.got.append(orjson.loads((await receive())["body"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        self.some.set()


def test_a_spike_is_reported_with_its_cause_and_its_end(tmp_path: Path) -> None:
    async def main() -> None:
        hook, now = Hook(), [1_700_000_000.0]
        async with serving(Upstream()) as a, serving(Upstream()) as b, serving(hook) as at:
            more = HOOK.format(url=at) + budget("cap", "0.5", more='window = "month"')
            settings = config.parse(two_backends(a, b, more=more), {}, folder=tmp_path)
            gateway = build(settings, rng=random.Random(0), wall=lambda: now[0])
            async with serving(gateway.app, lifespan="on") as url:
                async with http_client() as client:

                    async def looks(count: int, requests: int) -> None:
                        for _ in range(count):
                            now[0] += TICK_S
                            for _ in range(requests):
                                await client.post(url + "/v2/models/m/infer", json=BODY)
                            await look(gateway)

                    await looks(130, 1)
                    assert hook.got == []
                    await looks(6, 20)
                    await asyncio.wait_for(hook.some.wait(), 10)
                    metrics = (await client.get(url + "/metrics")).text
                    assert "tollway_spend_anomaly{" in metrics
                    assert 'tollway_spend_usual_usd_per_hour{kind="all",name=""}' in metrics
                    hook.some.clear()
                    await looks(60, 1)
                    await asyncio.wait_for(hook.some.wait(), 10)
        began, over = hook.got
        assert began["type"] == "tollway.spend_anomaly"
        assert began["data"]["cause"] == "volume"
        assert began["data"]["ratio"] > 3
        assert began["data"]["budgets_last_s"]["cap"] > 0
        assert "budget cap runs out in" in began["data"]["text"]
        assert over["type"] == "tollway.spend_usual"

    run(main)


BODY = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 0]}]}
