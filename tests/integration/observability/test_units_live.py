"""Units end to end: what a provider reports is charged, journalled, counted and explained."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.harness import Upstream, run, running, serving

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true
[ledger]
url = "memory://"

[[budgets]]
name = "cap"
limit_usd = 1.0
window = "day"

[[backends]]
name = "up"
kind = "api"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 1, output_usd_per_mtok = 10, service_tiers = {{ flex = 0.5 }} }}

[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["up"]
objective = "max_quality"
"""
TOKENS = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
PLAIN = 100 * 1000 + 10 * 10_000


def reply(usage: Any, **more: Any) -> bytes:
    choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
    return orjson.dumps({"choices": [choice], "usage": usage, **more})


REPLIES = [
    (reply(TOKENS), PLAIN, "usage"),
    (reply(TOKENS, service_tier="flex"), PLAIN // 2, "usage"),
    (reply(TOKENS, service_tier="priority"), PLAIN * 2, "estimated"),
    (reply({**TOKENS, "cost": 0.0001234567891}), 123_457, "reported"),
    (
        reply({**TOKENS, "prompt_tokens_details": {"audio_tokens": 60}}),
        PLAIN + 60 * 15_000,
        "estimated",
    ),
    (reply(dict.fromkeys(TOKENS, 0)), 0, "usage"),
]


def test_every_view_of_a_call_has_its_units_and_where_its_cost_comes_from(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with serving(upstream) as url, running(CONFIG.format(url=url), tmp_path) as tollway:
            told = []
            for body, nano, provenance in REPLIES:
                upstream.body = body
                answer = await tollway.client.post(
                    f"{tollway.url}/v1/chat/completions",
                    json={"model": "m", "messages": [{"role": "user", "content": "hi"}]},
                )
                assert answer.content == body
                decision = answer.headers["x-tollway-decision"]
                told.append(await tollway.get(f"/_tollway/decisions/{decision}"))
                (attempt,) = told[-1]["attempts"]
                assert (attempt["cost_nano"], attempt["provenance"]) == (nano, provenance)
            plain, flex, priority, _, audio, _ = [one["attempts"][0] for one in told]
            assert not {"service_tier", "guessed", "audio_input_tokens"} & plain.keys()
            assert flex["service_tier"] == "flex"
            assert "guessed" not in flex
            assert priority["guessed"] == ["service_tier"]
            assert (audio["audio_input_tokens"], audio["guessed"]) == (60, ["audio_input_tokens"])
            story = " ".join(told[4]["story"])
            assert "The backend has no price for audio_input_tokens" in story
            metrics = (await tollway.client.get(f"{tollway.url}/metrics")).text
            for line in (
                'tollway_audio_input_tokens_total{backend="up",route="chat",tenant="anonymous"} 60',
                'tollway_unpriced_usage_total{backend="up",unit="audio_input_tokens"} 1',
                'tollway_unpriced_usage_total{backend="up",unit="service_tier"} 1',
                'tollway_zero_usage_total{backend="up"} 1',
            ):
                assert f"{line}.0\n" in metrics, line
            (budget,) = (await tollway.get("/_tollway/budgets"))["budgets"]
            spent = sum(nano for _, nano, _ in REPLIES)
            assert budget["spent_nano"] == spent
            assert (await tollway.get("/_tollway/spend"))["cost_nano"] == spent

    run(main)
