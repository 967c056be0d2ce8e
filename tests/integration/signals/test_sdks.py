"""The lines of docs/signals.md that send feedback with SDKs, run against a gateway."""

import asyncio
import re
import textwrap
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.support.chat_servers import ChatServer, chat_backend, chat_route
from tests.support.harness import run, running, serving

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[3] / "docs" / "signals.md"
MESSAGES = [{"role": "user", "content": "hi"}]


def snippets() -> list[str]:
    """Return the page's Python."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


async def executed(code: str, **names: Any) -> None:
    """Run a snippet in a thread, with names."""

    await asyncio.to_thread(exec, textwrap.dedent(code), names)


def anthropic_reply() -> bytes:
    return (
        b'{"id":"m","type":"message","role":"assistant","model":"m","stop_reason":"end_turn",'
        b'"content":[{"type":"text","text":"hello"}],"usage":{"input_tokens":5,"output_tokens":2}}'
    )


def test_the_snippets_of_the_page_send_feedback(tmp_path: Path) -> None:
    header, thumb, claude = snippets()

    async def messages(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": anthropic_reply()})

    async def main() -> None:
        server = ChatServer(lambda prompt: "hello")
        async with serving(server) as url, serving(messages) as other:
            toml = chat_route(["one"], 'signals = [{ kind = "users" }]') + chat_backend("one", url)
            toml += chat_backend("claude", other).replace('"openai"', '"anthropic"')
            toml += """
[[routes]]
name = "messages"
path = "/v1/messages"
protocol = "anthropic"
backends = ["claude"]
"""
            async with running(toml, tmp_path) as tollway:
                gateway = tollway.url
                client = openai.OpenAI(base_url=f"{gateway}/v1", api_key="any")
                names = {"gateway": gateway, "httpx": httpx}
                await executed(thumb, client=client, messages=MESSAGES, **names)
                told = [*MESSAGES, {"role": "assistant", "content": "hello"}, *MESSAGES]
                await executed(header, client=client, messages=told)
                await tollway.gateway.signals.runner.settled()
                theirs = anthropic.Anthropic(base_url=gateway, api_key="any")
                await executed(claude, client=theirs, messages=MESSAGES, **names)
                feedback, signals = tollway.journalled("feedback"), tollway.journalled("signal")
                client.close()
                theirs.close()
        assert [row["quality"] for row in feedback] == [1.0, 0.0]
        assert [row["scores"] for row in signals] == [{"one": {"users": 0.0}}]
        assert signals[0]["id"] == feedback[0]["id"]

    run(main)
