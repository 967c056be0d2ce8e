"""A share of prompts and replies is captured, if that is asked for, and can be exported."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.harness import run, running, serving
from tollway.gateway.cli.main import main as tollway_main

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[journal]
dir = "{folder}/journal"

[state]
dir = "{folder}/state"

[[backends]]
name = "up"
kind = "api"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}

[[routes]]
name = "r"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["up"]

[capture]
dir = "{folder}/captures"
"""
ON = """
share = 1.0
redact = ["[\\\\w.]+@[\\\\w.]+"]
key = "0123456789abcdef0123456789abcdef"
"""
ASK = {"model": "m", "messages": [{"role": "user", "content": "I am ann@example.com"}]}


async def model(scope: Any, receive: Any, send: Any) -> None:
    document = orjson.loads((await receive())["body"])
    stream = document.get("stream", False)
    kind = b"text/event-stream" if stream else b"application/json"
    choice = {
        "index": 0,
        "finish_reason": "stop",
        ("delta" if stream else "message"): {"content": "hi"},
    }
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    body = orjson.dumps({"choices": [choice], "usage": usage})
    body = b"data: %b\n\ndata: [DONE]\n\n" % body if stream else body
    fields = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("captured", [True, False])
def test_prompts_and_replies_are_captured_if_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], captured: bool
) -> None:
    file = tmp_path / "tollway.toml"

    async def main() -> None:
        async with serving(model) as url:
            config = CONFIG.format(url=url, folder=tmp_path) + (ON if captured else "")
            file.write_text(config)
            async with running(config, tmp_path) as tollway:
                for ask in (ASK, {**ASK, "stream": True}):
                    path = f"{tollway.url}/v1/chat/completions"
                    assert (await tollway.client.post(path, json=ask)).status_code == 200

    run(main)
    assert tollway_main(["captures", str(file)], {}) == 0
    records = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == (2 if captured else 0)
    for record in records:
        content = record["request"]["messages"][0]["content"]
        assert (content, record["answer"]) == ("I am [redacted]", "hi")
        assert (record["cost_nano"], record["route"], record["backend"]) == (60_000, "r", "up")
