"""Models as the clients of OpenAI, Anthropic and Gemini list them, from one gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.support.harness import Running, running, serving
from tests.support.scripted import Asked, Said, Scripted, document
from tollway.gateway.security.keys import hash_key, new_key

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

KEY, NARROW = new_key(), new_key()
CLAUDES = [f"claude-{number}" for number in range(25)]
TOKENS = "price = { input_usd_per_mtok = 1, output_usd_per_mtok = 1 }"


def config(url: str, *, every: bool = False, gpt: str = "/v1/chat/completions") -> str:
    backends = "".join(
        f'[[backends]]\nname = "{name}"\nkind = "api"\nprotocol = "{name}"\n'
        f'url = "{url}{base}"\n{TOKENS}\n'
        for name, base in (("openai", "/v1"), ("anthropic", ""), ("gemini", "/v1beta"))
    )
    models = {"openai": ["gpt"], "anthropic": CLAUDES, "gemini": ["fast", "slow"]}
    paths = {
        "openai": gpt,
        "anthropic": "/v1/messages",
        "gemini": "/{version}/models/*",
    }
    routes = "".join(
        f'[[routes]]\nname = "{name}"\npath = "{path}"\nprotocol = "{name}"\n'
        f"models = {repr('*') if every and name != 'openai' else models[name]}\n"
        f'backends = ["{name}"]\n'
        for name, path in paths.items()
    )
    return f"""
[ledger]
url = "memory://"
{backends}{routes}
[[tenants]]
name = "acme"
key_hash = "{hash_key(KEY)}"

[[tenants]]
name = "narrow"
key_hash = "{hash_key(NARROW)}"
routes = ["openai"]
"""


def servers(asked: Asked) -> Said:
    """Answer with the list of a server, each API by its own path and fields."""
    if asked.target == "/v1beta/models?pageSize=1000":
        return document({"models": [{"name": "models/pro", "inputTokenLimit": 9}]})
    if asked.target == "/v1/models?limit=1000" and "anthropic-version" in dict(asked.headers):
        told = {"type": "model", "id": "opus", "display_name": "Opus", "created_at": "2026-01-01"}
        return document({"data": [told], "has_more": False})
    return document({"error": "asked in no known way"}, 400)


@asynccontextmanager
async def scene(
    folder: Path, *, every: bool = False, gpt: str = "/v1/chat/completions"
) -> AsyncIterator[Running]:
    async with serving(Scripted(servers)) as url:
        async with running(config(url, every=every, gpt=gpt), folder) as one:
            yield one


@asynccontextmanager
async def clients(
    url: str, key: str = KEY
) -> AsyncIterator[tuple[openai.AsyncOpenAI, anthropic.AsyncAnthropic, genai.client.AsyncClient]]:
    async with AsyncExitStack() as stack:
        gpt = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        claude = anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0)
        gemini = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url)).aio
        stack.push_async_callback(gpt.close)
        stack.push_async_callback(claude.close)
        stack.push_async_callback(gemini.aclose)
        yield gpt, claude, gemini


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/*"])
def test_each_client_lists_and_finds_the_models_that_it_can_call(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with scene(tmp_path, gpt=path) as on, clients(on.url) as (gpt, claude, gemini):
            assert [one.id async for one in gpt.models.list()] == ["gpt"]
            assert [one.id async for one in claude.models.list()] == CLAUDES  # in two pages
            found = await claude.models.retrieve("claude-7")
            assert (found.type, found.display_name) == ("model", "claude-7")
            with pytest.raises(anthropic.NotFoundError) as unknown:
                await claude.models.retrieve("gpt")
            assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
            listed = await gemini.models.list(config={"page_size": 1})
            assert [one.name async for one in listed] == ["models/fast", "models/slow"]
            assert (await gemini.models.get(model="slow")).display_name == "slow"
            with pytest.raises(errors.ClientError) as missing:
                await gemini.models.get(model="gpt")
            assert (missing.value.code, missing.value.status) == (404, "NOT_FOUND")

    asyncio.run(main())


def test_anthropics_pages_go_forwards_and_backwards(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as on:

            async def page(query: str) -> tuple[list[str], bool]:
                headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
                reply = await on.client.get(f"{on.url}/v1/models?{query}", headers=headers)
                told = reply.json()
                ids = [one["id"] for one in told["data"]]
                assert (told["first_id"], told["last_id"]) == (ids[0], ids[-1])
                return ids, told["has_more"]

            assert await page("") == (CLAUDES[:20], True)
            assert await page("limit=1000") == (CLAUDES, False)
            assert await page("limit=2&after_id=claude-22") == (CLAUDES[23:], False)
            assert await page("limit=2&before_id=claude-3") == (CLAUDES[1:3], True)
            assert await page("limit=9&before_id=claude-3") == (CLAUDES[:3], False)

    asyncio.run(main())


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "after_id=nobody"])
def test_a_page_that_does_not_exist_is_refused_in_anthropics_words(
    tmp_path: Path, query: str
) -> None:
    async def main() -> None:
        async with scene(tmp_path) as on:
            headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
            reply = await on.client.get(f"{on.url}/v1/models?{query}", headers=headers)
            assert reply.status_code == 400
            assert reply.json()["error"]["type"] == "invalid_request_error"

    asyncio.run(main())


def test_a_key_sees_no_model_that_it_may_not_call_in_any_shape(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as on, clients(on.url, NARROW) as (gpt, claude, gemini):
            assert [one.id async for one in gpt.models.list()] == ["gpt"]
            assert [one.id async for one in claude.models.list()] == []
            assert [one.name async for one in await gemini.models.list()] == []
            unknown: httpx.Response = await on.client.get(
                f"{on.url}/v1/models", headers={"anthropic-version": "2023-06-01"}
            )
            assert unknown.status_code == 401
            assert unknown.json()["error"]["type"] == "authentication_error"

    asyncio.run(main())


def test_servers_are_asked_for_their_models_in_their_own_api(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, every=True) as on, clients(on.url) as (_, claude, gemini):
            (opus,) = [one async for one in claude.models.list()]
            assert (opus.id, opus.display_name) == ("opus", "Opus")
            (pro,) = [one async for one in await gemini.models.list()]
            assert (pro.name, pro.input_token_limit) == ("models/pro", 9)

    asyncio.run(main())
