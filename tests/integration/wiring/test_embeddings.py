"""A route with an embedding of its prompts: built, learned from, saved, and refused if wrong."""

from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.harness import Upstream, run, running, serving
from tests.support.static_model import model
from tollway.gateway import settings
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.wiring import build
from tollway.policies.types import EMBEDDING

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "one"
kind = "gpu"
protocol = "openai"
url = "{one}"
price = {{ per_request_usd = 0.001 }}
[[backends]]
name = "two"
kind = "gpu"
protocol = "openai"
url = "{two}"
price = {{ per_request_usd = 0.001 }}
[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["one", "two"]
{route}
context = {{ text = ["messages[*].content"], embedding = "{embedding}" }}
"""
URL = "http://127.0.0.1:9"


def says(text: str) -> bytes:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    return orjson.dumps({"choices": [choice]})


async def ask(client: httpx.AsyncClient, url: str, text: str) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return await client.post(url + "/v1/chat/completions", json=body)


def test_a_policy_learns_with_the_embedding_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    model(tmp_path)

    async def main() -> None:
        async with (
            serving(Upstream(body=says("1"))) as one,
            serving(Upstream(body=says("2"))) as two,
        ):
            toml = CONFIG.format(one=one, two=two, route="", embedding=".")
            async with running(toml, tmp_path) as app:
                for number in range(40):
                    text = "red" if number % 2 else "blue"
                    reply = await ask(app.client, app.url, text)
                    right = reply.headers["x-tollway-backend"] == ("one" if number % 2 else "two")
                    decision = reply.headers["x-tollway-decision"]
                    done = await app.feedback({"decision": decision, "correct": right})
                    assert done.status_code == 202
                (row, *_) = app.journalled("decision")
                assert row["dense"][-EMBEDDING] in (0.0, 2.0)
                before = app.gateway.routes["chat"].policy.figures()["embedding_gain"]
                metrics = (await app.client.get(app.url + "/metrics")).text
                assert 'tollway_embedding_share{route="chat"}' in metrics
            async with running(toml, tmp_path) as app:
                after = app.gateway.routes["chat"].policy.figures()["embedding_gain"]
                assert after == pytest.approx(before)

    run(main)


@pytest.mark.parametrize(
    ("route", "embedding", "said"),
    [
        ("cascade = true", "wordllama", "without cascade"),
        ('policy = "cheapest"', "wordllama", 'only policy = "lagrangian"'),
        ('policy_options = { head = "vowpal" }', "wordllama", 'needs head = "ridge"'),
        ("", "nowhere", "must have tokenizer.json"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    route: str, embedding: str, said: str, tmp_path: Path
) -> None:
    toml = CONFIG.format(one=URL, two=URL, route=route, embedding=embedding)
    with pytest.raises(ConfigError, match=said):
        build(settings.parse(toml, {}, folder=tmp_path))


def test_an_embedding_needs_texts(tmp_path: Path) -> None:
    toml = CONFIG.format(one=URL, two=URL, route="", embedding="wordllama")
    toml = toml.replace('text = ["messages[*].content"], ', "")
    with pytest.raises(ConfigError, match="needs texts"):
        settings.parse(toml, {}, folder=tmp_path)
