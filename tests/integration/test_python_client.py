"""The Python API's client against a real gateway."""

import asyncio
from pathlib import Path

import pytest

import tollway
from tests.support.harness import Upstream, run, running, serving

pytestmark = pytest.mark.integration


def test_a_client_reads_budgets_spend_and_decisions_and_sends_feedback(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as backend:
            async with running(toml(backend), tmp_path) as gateway:
                reply = await gateway.infer()
                decision = reply.headers["x-tollway-decision"]
                client = tollway.Client(gateway.url)
                (budget,) = await asyncio.to_thread(client.budgets)
                assert (budget["name"], budget["spent_usd"]) == ("daily", 0.001)
                assert (await asyncio.to_thread(client.budget, "daily"))["limit_usd"] == 10.0
                assert (await asyncio.to_thread(client.spend))["cost_usd"] == 0.001
                assert (await asyncio.to_thread(client.decision, decision))["story"]

                def feedback(decision: str, quality: float) -> str:
                    return client.feedback(decision, quality=quality)

                assert await asyncio.to_thread(feedback, decision, 0.9) == "learned"
                assert await asyncio.to_thread(feedback, decision, 0.9) == "duplicate"
                with pytest.raises(tollway.Declined, match="quality must be a number from 0 to 1"):
                    await asyncio.to_thread(feedback, decision, 2.0)
                with pytest.raises(tollway.Declined, match="no segment of this id"):
                    await asyncio.to_thread(feedback, "abc.1.wxyz", 0.5)

    run(main)


def test_a_gateway_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(tollway.Unreachable, match="no gateway answers"):
        tollway.Client("http://127.0.0.1:1").budgets()


def toml(backend: str) -> str:
    return f"""
    [server]
    allow_anonymous = true
    [ledger]
    url = "memory://"
    [[backends]]
    name = "cpu"
    kind = "cpu"
    url = "{backend}"
    protocol = "oip"
    price = {{ per_request_usd = 0.001 }}
    [[routes]]
    name = "m"
    path = "/v2/models/m/infer"
    protocol = "oip"
    backends = ["cpu"]
    policy = "cheapest"
    [[budgets]]
    name = "daily"
    limit_usd = 10.0
    window = "day"
    """
