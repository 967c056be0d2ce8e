"""The client for Azure, `AzureOpenAI`, before any backend; and Azure behind the gateway."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.harness import Running, run, running, serving
from tests.support.scripted import Asked, Said, Scripted, document, events
from tests.support.streams import chunk, usage
from tollway.gateway.security.keys import hash_key, new_key

pytestmark = pytest.mark.integration

KEY = new_key()
CONFIG = """
[server]
allow_anonymous = false

[ledger]
url = "memory://"

[[backends]]
name = "llm"
kind = "api"
protocol = "openai"
url = "{url}"
auth = {{ header = "api-key", value_env = "TEST_AZURE_KEY" }}
price = {{ input_usd_per_mtok = 1, output_usd_per_mtok = 10 }}
{backend}

[[routes]]
name = "azure"
path = "/openai/*"
protocol = "openai"
backends = ["llm"]

[[routes]]
name = "openai"
path = "/v1/*"
protocol = "openai"
backends = ["llm"]

[[tenants]]
name = "acme"
key_hash = "{key}"

[[budgets]]
name = "acme"
scope = {{ tenant = "acme" }}
limit_usd = {limit}
"""
HELLO: Any = [{"role": "user", "content": "hi"}]
USED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
VERSION = "2024-10-21"


def completion(**message: Any) -> Said:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    return document({"id": "c", "object": "chat.completion", "choices": [choice], "usage": USED})


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a scene with a gateway and a scripted server."""
    monkeypatch.setenv("TEST_AZURE_KEY", "real-azure-key")

    @asynccontextmanager
    async def scene(
        answer: Callable[[Asked], Said], backend: str, limit: str
    ) -> AsyncIterator[tuple[Running, Scripted]]:
        model = Scripted(answer)
        async with serving(model) as url:
            toml = CONFIG.format(url=url, backend=backend, limit=limit, key=hash_key(KEY))
            async with running(toml, tmp_path) as gateway:
                yield gateway, model

    def started(
        part: Callable[[Running, Scripted], Any],
        said: Said | Callable[[Asked], Said],
        backend: str = "",
        limit: str = "1.0",
    ) -> None:
        answer = said if callable(said) else lambda asked: said

        async def main() -> None:
            async with scene(answer, backend, limit) as (gateway, model):
                await part(gateway, model)

        run(main)

    return started


def azure(on: Running) -> openai.AsyncAzureOpenAI:
    return openai.AsyncAzureOpenAI(
        azure_endpoint=on.url, api_key=KEY, api_version=VERSION, max_retries=0
    )


@pytest.mark.parametrize(
    ("backend", "target"),
    [
        ("", "/v1/chat/completions"),
        (
            'api_version = "2025-01-01-preview"\nmodel = "prod"',
            "/openai/deployments/prod/chat/completions?api-version=2025-01-01-preview",
        ),
    ],
)
def test_a_client_of_azure_is_answered_by_any_backend(
    play: Callable[..., None], backend: str, target: str
) -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {}}}
    called = [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]

    async def part(on: Running, model: Scripted) -> None:
        async with azure(on) as client:
            raw = await client.chat.completions.with_raw_response.create(
                model="gpt", messages=HELLO, tools=[tool]
            )
        told = raw.parse()
        assert told.choices[0].message.tool_calls[0].function.name == "f"
        assert raw.headers["x-tollway-cost-usd"] == "0.000060000"
        (asked,) = model.asked
        assert asked.target == target
        assert asked.headers["api-key"] == "real-azure-key"
        assert KEY not in repr(asked)

    play(part, completion(content=None, tool_calls=called), backend)


def test_a_client_of_openai_is_answered_by_azure(play: Callable[..., None]) -> None:
    async def part(on: Running, model: Scripted) -> None:
        async with openai.AsyncOpenAI(base_url=f"{on.url}/v1", api_key=KEY) as client:
            stream = await client.chat.completions.create(model="gpt", messages=HELLO, stream=True)
            texts = [one.choices[0].delta.content async for one in stream if one.choices]
        assert "".join(text or "" for text in texts) == "Hi!"
        assert model.asked[0].target == (
            f"/openai/deployments/gpt/chat/completions?api-version={VERSION}"
        )

    play(part, events(chunk("Hi!"), chunk("", "stop"), usage(10, 5)), f'api_version = "{VERSION}"')


def test_embeddings_and_responses_have_their_paths(play: Callable[..., None]) -> None:
    vectors = [{"object": "embedding", "index": 0, "embedding": [0.5]}]

    async def part(on: Running, model: Scripted) -> None:
        async with azure(on) as client:
            told = await client.embeddings.create(model="small", input="hi")
            assert told.data[0].embedding == [0.5]
            await client.responses.create(model="gpt", input="hi")
        assert [asked.target.partition("?")[0] for asked in model.asked] == [
            "/openai/deployments/small/embeddings",
            "/openai/responses",
        ]

    def answer(asked: Asked) -> Said:
        if "embeddings" in asked.target:
            used = {"prompt_tokens": 1, "total_tokens": 1}
            return document({"object": "list", "data": vectors, "model": "m", "usage": used})
        said = {"type": "message", "content": [{"type": "output_text", "text": "Hi!"}]}
        used = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        return document({"id": "r", "status": "completed", "output": [said], "usage": used})

    play(part, answer, f'api_version = "{VERSION}"')


def test_a_backends_refusal_is_the_clients_exception(play: Callable[..., None]) -> None:
    async def part(on: Running, model: Scripted) -> None:
        async with azure(on) as client:
            with pytest.raises(openai.RateLimitError, match="slow down"):
                await client.chat.completions.create(model="gpt", messages=HELLO)
            unknown = client.with_options(api_key="tw_unknown")
            with pytest.raises(openai.AuthenticationError):
                await unknown.chat.completions.create(model="gpt", messages=HELLO)

    play(part, document({"error": {"code": "429", "message": "slow down"}}, 429))


def test_an_exhausted_budget_is_the_clients_exception(play: Callable[..., None]) -> None:
    used = {"prompt_tokens": 10, "completion_tokens": 6000, "total_tokens": 6010}
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "Hi!"}}

    async def part(on: Running, model: Scripted) -> None:
        async with azure(on) as client:
            await client.chat.completions.create(model="gpt", messages=HELLO)
            with pytest.raises(openai.APIStatusError) as spent:
                await client.chat.completions.create(model="gpt", messages=HELLO)
            assert (spent.value.status_code, spent.value.code) == (402, "budget_exhausted")

    play(part, document({"id": "c", "choices": [choice], "usage": used}), limit="0.05")
