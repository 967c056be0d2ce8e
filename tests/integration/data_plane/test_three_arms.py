"""A stranger's first hour: OpenAI beside two servers of one's own, ten lines of configuration, the
official client, mixed requests, 100 at once.

The servers refuse what the real ones refuse: OpenAI takes no fields of vLLM's and needs its key;
the vLLM servers were started without a tool parser and with a context of 8,192 tokens.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from tests.support.harness import Running, run, running, serving

pytestmark = pytest.mark.integration

KEY = "sk-of-the-provider-0123456789"
CONFIG = """
server = {{ allow_anonymous = true }}
backends = [
  {{ name = "openai", kind = "api", protocol = "openai", url = "{openai}", auth = {{ bearer_env = "TEST_OPENAI_KEY" }}, drop_fields = ["top_k"], declared_accuracy = 0.95, price = {{ input_usd_per_mtok = 2.0, output_usd_per_mtok = 8.0 }} }},
  {{ name = "vllm-a", kind = "gpu", protocol = "openai", url = "{a}", lacks = ["tools"], context_tokens = 8192, declared_accuracy = 0.86, price = {{ input_usd_per_mtok = 0.1, output_usd_per_mtok = 0.2 }} }},
  {{ name = "vllm-b", kind = "gpu", protocol = "openai", url = "{b}", lacks = ["tools"], context_tokens = 8192, declared_accuracy = 0.80, price = {{ input_usd_per_mtok = 0.05, output_usd_per_mtok = 0.1 }} }},
]
routes = [
  {{ name = "chat", path = "/v1/chat/completions", protocol = "openai", backends = ["openai", "vllm-a", "vllm-b"], objective = "min_cost", accuracy_floor = 0.85 }},
]
"""  # noqa: E501 - one line a backend, as people write them
CONTEXT_TOKENS = 8192
NANO_IN, NANO_OUT = 2000, 8000  # what a token costs at OpenAI
TOOLS: Any = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": {"type": "object"}, "strict": True},
}


def tokens(document: Any) -> int:
    """Return how many tokens a prompt has: four characters each."""
    return sum(len(message["content"]) for message in document["messages"]) // 4 + 4


@dataclass
class Model:
    """A server of chat completions; `refuses` returns the status and message of a refusal."""

    name: str
    asked: list[Any] = field(default_factory=list)

    def refuses(self, document: Any, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        raise NotImplementedError

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        document = orjson.loads(body)
        self.asked.append(document)
        refused = self.refuses(document, dict(scope["headers"]))
        if refused is not None:
            status, why = refused
            error = {"message": why, "type": "invalid_request_error", "param": None, "code": None}
            await answer(send, status, b"application/json", orjson.dumps({"error": error}))
        elif document.get("stream"):
            await answer(send, 200, b"text/event-stream", b"".join(self.events(document)))
        else:
            await answer(send, 200, b"application/json", orjson.dumps(self.reply(document)))

    def reply(self, document: Any) -> Any:
        message: dict[str, Any] = {"role": "assistant", "content": f"from {self.name}"}
        if document.get("tools"):
            call = {"name": "look_up", "arguments": "{}"}
            message["tool_calls"] = [{"id": "c", "type": "function", "function": call}]
        choices = [
            {"index": index, "message": message, "finish_reason": "stop", "logprobs": None}
            for index in range(document.get("n") or 1)
        ]
        return {**self.head("chat.completion"), "choices": choices, "usage": usage(document)}

    def events(self, document: Any) -> list[bytes]:
        chunk = self.head("chat.completion.chunk")
        deltas = [
            {"role": "assistant", "content": ""},
            {"content": "from "},
            {"content": self.name},
        ]
        chunks = [{**chunk, "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        chunks.append({**chunk, "choices": [last]})
        if (document.get("stream_options") or {}).get("include_usage"):
            chunks.append({**chunk, "choices": [], "usage": usage(document)})
        return [b"data: %b\n\n" % orjson.dumps(one) for one in chunks] + [b"data: [DONE]\n\n"]

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": self.name}


class Provider(Model):
    def refuses(self, document: Any, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        if headers.get(b"authorization") != b"Bearer " + KEY.encode():
            return 401, f"Incorrect API key provided: {headers.get(b'authorization')!r}"
        for name in ("top_k", "chat_template_kwargs", "guided_json"):
            if name in document:
                return 400, f"Unrecognized request argument supplied: {name}"
        return None


class Vllm(Model):
    def refuses(self, document: Any, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        if document.get("tools"):
            return 400, '"auto" tool choice requires --enable-auto-tool-choice'
        total = tokens(document) + (document.get("max_tokens") or 0)
        if total > CONTEXT_TOKENS:
            return 400, (
                f"This model's maximum context length is {CONTEXT_TOKENS} tokens. "
                f"However, you requested {total} tokens."
            )
        return None


def usage(document: Any) -> dict[str, int]:
    read, written = tokens(document), 20 * (document.get("n") or 1)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def answer(send: Any, status: int, kind: bytes, body: bytes) -> None:
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]}
    )
    await send({"type": "http.response.body", "body": body})


def asks(number: int) -> dict[str, Any]:
    """Return the arguments of a request: seven kinds, in turns."""
    said = f"question {number}: " + "how is the weather there? " * (number % 5)
    plain: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": said}]}
    long = [{"role": "user", "content": said + "so it went on and on. " * 3000}]  # 16,500 tokens
    kinds: list[dict[str, Any]] = [
        {},
        {"stream": True},
        {"tools": TOOLS},
        {"messages": long},
        {"extra_body": {"top_k": 5}, "max_tokens": 100},
        {"response_format": SCHEMA, "n": 2},
        {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0.1},
    ]
    return {**plain, **kinds[number % len(kinds)]}


@contextlib.asynccontextmanager
async def scene(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Running, openai.AsyncOpenAI, dict[str, Model]]]:
    monkeypatch.setenv("TEST_OPENAI_KEY", KEY)
    models = {"openai": Provider("openai"), "a": Vllm("vllm-a"), "b": Vllm("vllm-b")}
    async with contextlib.AsyncExitStack() as stack:
        urls = {name: await stack.enter_async_context(serving(one)) for name, one in models.items()}
        toml = CONFIG.format(**urls) + '[ledger]\nurl = "memory://"\n'
        on = await stack.enter_async_context(running(toml, folder))
        sdk = openai.AsyncOpenAI(base_url=f"{on.url}/v1", api_key="sk-any", max_retries=0)
        yield on, await stack.enter_async_context(sdk), models


async def ask(sdk: openai.AsyncOpenAI, number: int) -> str:
    """Make a request; return its decision, once its answer is read whole."""
    arguments = asks(number)
    raw = await sdk.chat.completions.with_raw_response.create(**arguments)
    decision: str = raw.headers["x-tollway-decision"]
    if not arguments.get("stream"):
        told = raw.parse()
        assert len(told.choices) == arguments.get("n", 1)
        assert told.choices[0].message.content
        assert bool(told.choices[0].message.tool_calls) == ("tools" in arguments)
        return decision
    text, counted = "", False
    async for chunk in raw.parse():
        counted = counted or chunk.usage is not None
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text.startswith("from ")
    assert counted == ("stream_options" in arguments)  # the count is shown to who asked for it
    return decision


def test_mixed_requests_succeed_cost_less_and_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = 700

    async def main() -> None:
        async with scene(tmp_path, monkeypatch) as (on, sdk, models):
            places = asyncio.Semaphore(100)

            async def one(number: int) -> str:
                async with places:
                    return await ask(sdk, number)  # any error is one that OpenAI would not give

            ids = await asyncio.gather(*[one(number) for number in range(requests)])
            assert len(set(ids)) == requests

            spent_nano, drawn = 0, Counter[str]()
            for number, id in enumerate(ids):
                told = await on.get(f"/_tollway/decisions/{id}")
                assert told["story"], told
                spent_nano += told["cost_nano"]
                drawn[told["attempts"][-1]["backend"]] += 1
                unable = told["stages"][0].get("left_out", {})
                needs = asks(number)
                if "tools" in needs or tokens(needs) > CONTEXT_TOKENS:
                    assert set(unable) == {"vllm-a", "vllm-b"}, told
                    assert told["attempts"][-1]["backend"] == "openai"
                    assert any("vllm-a" in sentence for sentence in told["story"]), told["story"]
            always_nano = sum(
                NANO_IN * usage(asks(number))["prompt_tokens"]
                + NANO_OUT * usage(asks(number))["completion_tokens"]
                for number in range(requests)
            )
            able = sum(
                "tools" not in asks(number) and tokens(asks(number)) <= CONTEXT_TOKENS
                for number in range(requests)
            )
            assert drawn["vllm-a"] + drawn["vllm-b"] > able // 4, drawn
            assert 0 < spent_nano < always_nano
            # Nobody sent a request where it could only be refused.
            for name in ("a", "b"):
                assert all(models[name].refuses(one, {}) is None for one in models[name].asked)

    run(main)
