"""The official `google-genai` client, unchanged but for its address and key, against a gateway."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

from tests.support.gemini import ARRAY, EVENTS, TEXT
from tests.support.harness import run, serving
from tests.support.http_client import http_client
from tests.support.scripted import Asked, Said, Scripted, document, events
from tests.support.until import until
from tollway.gateway import settings as config
from tollway.gateway.listener import server as front
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.security.keys import hash_key, new_key
from tollway.gateway.wiring import Gateway, build

pytestmark = [
    pytest.mark.integration,
    # The client's own, where aiohttp is installed too.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]

KEY = new_key()
CONFIG = """
[server]
allow_anonymous = false

[ledger]
url = "memory://"

[[backends]]
name = "flash"
kind = "api"
protocol = "gemini"
url = "{url}/v1beta"
model = "gemini-real"
context_tokens = 1000000
auth = {{ header = "x-goog-api-key", value_env = "TEST_GOOGLE_KEY" }}
price = {{ input_usd_per_mtok = 1, cached_input_usd_per_mtok = 0.1, output_usd_per_mtok = 10 }}

[[backends]]
name = "pro"
kind = "api"
protocol = "gemini"
url = "{url}/v1beta"
auth = {{ header = "x-goog-api-key", value_env = "TEST_GOOGLE_KEY" }}
price = {{ input_usd_per_mtok = 2, output_usd_per_mtok = 20 }}

[[routes]]
name = "flash"
path = "/{{version}}/*"
protocol = "gemini"
models = ["fast"]
backends = ["flash"]

[[routes]]
name = "others"
path = "/{{version}}/*"
protocol = "gemini"
backends = ["pro"]

[[tenants]]
name = "acme"
key_hash = "{key}"

[[budgets]]
name = "acme"
scope = {{ tenant = "acme" }}
limit_usd = {limit}
enforcement = "{enforcement}"
"""
IN, OUT = 1000, 10_000
USED = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}


def answered(*parts: Any, usage: Any = None) -> Said:
    candidate = {"content": {"parts": list(parts), "role": "model"}, "finishReason": "STOP"}
    return document({"candidates": [candidate], "usageMetadata": usage or USED})


def failure(code: int, status: str) -> Said:
    return document({"error": {"code": code, "message": "no", "status": status}}, code)


@dataclass
class Scene:
    gateway: Gateway
    url: str
    client: Any
    http: httpx.AsyncClient
    model: Scripted

    @property
    def spent_nano(self) -> int:
        (budget,) = self.gateway.reservations.status()
        return budget.spent_nano

    async def settled(self) -> dict[str, Any]:
        """Return the row with the last call's cost, once it is settled."""

        def rows() -> list[dict[str, Any]]:
            found = self.gateway.journal.find(self.gateway.recent[-1]) or []
            return [row for row in found if row["kind"] in ("attempt", "settlement")]

        await until(lambda: rows()[-1]["provenance"] != "pending")
        return rows()[-1]


Play = Callable[[Scene], Any]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a scene with a client, a gateway behind its listener, and a scripted provider."""
    monkeypatch.setenv("TEST_GOOGLE_KEY", "AIza-real")
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    @asynccontextmanager
    async def scene(
        answer: Callable[[Asked], Said], limit: str, enforcement: str
    ) -> AsyncIterator[Scene]:
        model = Scripted(answer)
        async with serving(model) as url:
            toml = CONFIG.format(url=url, limit=limit, enforcement=enforcement, key=hash_key(KEY))
            gateway = build(config.parse(toml, {}, folder=tmp_path))
            protocol = limited_protocol(front.HeadLimits(body_bytes=100_000), gateway.app.shape)
            async with front.serving(gateway.app, protocol=protocol) as (host, port):
                base_url = f"http://{host}:{port}"
                options = types.HttpOptions(base_url=base_url)
                client = genai.Client(api_key=KEY, http_options=options).aio
                async with http_client(timeout=30) as http:
                    try:
                        yield Scene(gateway, base_url, client, http, model)
                    finally:
                        await client.aclose()

    def started(
        part: Play,
        said: Said | Callable[[Asked], Said],
        limit: str = "1.0",
        enforcement: str = "expected",
    ) -> None:
        answer = said if callable(said) else lambda asked: said

        async def main() -> None:
            async with scene(answer, limit, enforcement) as on:
                await part(on)

        run(main)

    return started


async def generate(on: Scene, contents: Any = "hi", model: str = "fast", **more: Any) -> Any:
    asked = types.GenerateContentConfig(**more) if more else None
    return await on.client.models.generate_content(model=model, contents=contents, config=asked)


def test_an_answer_is_charged_by_its_usage(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        told = await generate(on)
        assert (told.text, told.usage_metadata.candidates_token_count) == ("Hi!", 5)
        (asked,) = on.model.asked
        assert asked.target == "/v1beta/models/gemini-real:generateContent"
        assert asked.headers["x-goog-api-key"] == "AIza-real"
        assert KEY not in repr(asked)
        assert on.spent_nano == 10 * IN + 5 * OUT

    play(part, answered({"text": "Hi!"}))


def test_the_path_names_the_model_and_the_model_selects_the_route(
    play: Callable[..., None],
) -> None:
    async def part(on: Scene) -> None:
        await generate(on, model="gemini-3-pro")
        assert on.model.asked[0].target == "/v1beta/models/gemini-3-pro:generateContent"
        assert (await on.settled())["route"] == "others"
        assert on.spent_nano == 2 * (10 * IN + 5 * OUT)

    play(part, answered({"text": "Hi!"}))


def test_tools_images_and_structure_pass_through(play: Callable[..., None]) -> None:
    class Place(BaseModel):
        name: str

    def weather(place: str) -> str:
        """Return the weather of a place."""
        return place

    async def part(on: Scene) -> None:
        image = types.Part.from_bytes(data=b"\x89PNG", mime_type="image/png")
        told = await generate(
            on,
            [image, "where?"],
            tools=[weather],
            automatic_function_calling={"disable": True},
            thinking_config={"thinking_budget": 128},
        )
        assert told.function_calls[0].args == {"place": "Bern"}
        sent = on.model.asked[0].document
        assert "image/png" in sent["contents"][0]["parts"][0]["inlineData"].values()
        assert sent["tools"][0]["functionDeclarations"][0]["name"] == "weather"
        parsed = await generate(on, response_mime_type="application/json", response_schema=Place)
        assert parsed.parsed == Place(name="Bern")

    def answer(asked: Asked) -> Said:
        if "tools" in asked.document:
            return answered({"functionCall": {"name": "weather", "args": {"place": "Bern"}}})
        return answered({"text": '{"name": "Bern"}'})

    play(part, answer)


def test_a_stream_reaches_the_client_byte_for_byte(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        stream = await on.client.models.generate_content_stream(model="fast", contents="hi")
        assert "".join([chunk.text async for chunk in stream]) == TEXT
        assert (await on.settled())["cost_nano"] == 8 * IN + 35 * OUT
        path = "/v1beta/models/fast:streamGenerateContent"
        assert (
            on.model.asked[0].target == "/v1beta/models/gemini-real:streamGenerateContent?alt=sse"
        )
        body = {"contents": [{"parts": [{"text": "hi"}]}]}
        for query, parts in (("?alt=sse", EVENTS), ("", ARRAY)):
            reply = await on.http.post(
                f"{on.url}{path}{query}", json=body, headers={"x-goog-api-key": KEY}
            )
            assert reply.content == b"".join(parts)
            assert (await on.settled())["cost_nano"] == 8 * IN + 35 * OUT

    def answer(asked: Asked) -> Said:
        if asked.target.endswith("alt=sse"):
            return events(*EVENTS)
        return Said(ARRAY, kind="application/json; charset=UTF-8")

    play(part, answer)


def test_the_first_element_of_an_array_is_there_before_the_last_is_made(
    play: Callable[..., None],
) -> None:
    gate = asyncio.Event()

    async def part(on: Scene) -> None:
        url = f"{on.url}/v1beta/models/fast:streamGenerateContent"
        body = {"contents": [{"parts": [{"text": "hi"}]}]}
        headers = {"x-goog-api-key": KEY}
        async with on.http.stream("POST", url, json=body, headers=headers) as reply:
            chunks = reply.aiter_raw()
            assert await anext(chunks) == ARRAY[0]
            gate.set()
            assert b"".join([chunk async for chunk in chunks]) == b"".join(ARRAY[1:])

    play(part, Said(ARRAY, gate=gate))


def test_a_key_in_the_query_is_the_gateways_and_goes_no_further(
    play: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    async def part(on: Scene) -> None:
        body = {"contents": [{"parts": [{"text": "hi"}]}]}
        url = f"{on.url}/v1beta/models/fast:generateContent"
        for query in (f"?key={KEY}", f"?alt=json&key={KEY}&x=1", f"?%6bey={KEY}"):
            reply = await on.http.post(url + query, json=body)
            assert reply.status_code == 200, reply.text
            assert KEY not in repr(on.model.asked[-1])
        assert [asked.target.partition("?")[2] for asked in on.model.asked] == [
            "",
            "alt=json&x=1",
            "",
        ]
        refused = await on.http.post(f"{url}?key=tw_no", json=body)
        assert (refused.status_code, refused.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
        twice = await on.http.post(f"{url}?key={KEY}&key=tw_no", json=body)
        assert twice.status_code == 401
        on.gateway.journal.flush()

    play(part, answered({"text": "Hi!"}))
    assert KEY not in "".join(capfd.readouterr())


def test_counts_and_lists_are_free_and_embeddings_are_charged(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        told = await on.client.models.count_tokens(model="fast", contents="hi")
        assert told.total_tokens == 31
        models = await on.client.models.list()
        assert [model.name async for model in models] == ["models/fast", "models/others"]
        assert on.spent_nano == 0
        embedded = await on.client.models.embed_content(model="fast", contents=["a", "b"])
        assert len(embedded.embeddings) == 2
        asked = on.model.asked[-1]
        assert asked.target == "/v1beta/models/gemini-real:batchEmbedContents"
        assert {one["model"] for one in asked.document["requests"]} == {"models/gemini-real"}
        assert on.spent_nano > 0

    def answer(asked: Asked) -> Said:
        if asked.target.endswith(":countTokens"):
            return document({"totalTokens": 31})
        if asked.method == "GET":
            return document({"models": [{"name": "models/gemini-real"}]})
        return document({"embeddings": [{"values": [0.1]}, {"values": [0.2]}]})

    play(part, answer)


@pytest.mark.parametrize(
    ("code", "status", "exception"),
    [
        (400, "INVALID_ARGUMENT", "ClientError"),
        (404, "NOT_FOUND", "ClientError"),
        (429, "RESOURCE_EXHAUSTED", "ClientError"),
        (500, "INTERNAL", "ServerError"),
        (503, "UNAVAILABLE", "ServerError"),
    ],
)
def test_a_backends_refusal_is_the_clients_exception(
    play: Callable[..., None], code: int, status: str, exception: str
) -> None:
    async def part(on: Scene) -> None:
        with pytest.raises(getattr(errors, exception)) as caught:
            await generate(on)
        assert (caught.value.code, caught.value.status) == (code, status)
        assert on.spent_nano == 0

    play(part, failure(code, status))


def test_an_exhausted_budget_is_the_clients_exception(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        await generate(on)
        with pytest.raises(errors.ClientError) as spent:
            await generate(on)
        assert (spent.value.code, spent.value.status) == (402, "FAILED_PRECONDITION")
        assert spent.value.details["error"]["details"][0]["reason"] == "BUDGET_EXHAUSTED"
        assert spent.value.details["limit_usd"] == 0.05
        assert len(on.model.asked) == 1

    used = {"promptTokenCount": 10, "candidatesTokenCount": 6000, "totalTokenCount": 6010}
    play(part, answered({"text": "Hi!"}, usage=used), limit="0.05")


def test_a_hard_budget_writes_its_limit_into_the_request(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        await generate(on, temperature=0.5)
        sent = on.model.asked[0].document
        assert 0 < sent["generationConfig"]["maxOutputTokens"] < 4000
        assert sent["generationConfig"]["temperature"] == 0.5
        with pytest.raises(errors.ClientError, match="googleSearch") as unbounded:
            await generate(on, tools=[{"google_search": {}}])
        assert unbounded.value.code == 422
        assert len(on.model.asked) == 1

    play(part, answered({"text": "Hi!"}), limit="0.04", enforcement="hard")


@pytest.mark.parametrize("query", ["?alt=sse", ""])
def test_a_stream_that_is_left_is_closed_and_charged(play: Callable[..., None], query: str) -> None:
    async def part(on: Scene) -> None:
        url = f"{on.url}/v1beta/models/fast:streamGenerateContent{query}"
        body = {"contents": [{"parts": [{"text": "hi"}]}]}
        async with on.http.stream("POST", url, json=body, headers={"x-goog-api-key": KEY}) as reply:
            await anext(reply.aiter_raw())
        await until(on.model.left.is_set)
        row = await on.settled()
        assert row["provenance"] == "estimated"
        assert on.spent_nano >= 8 * IN + OUT

    gate = asyncio.Event()
    play(part, events(*EVENTS, gate=gate) if query else Said(ARRAY, gate=gate))


# The SDK leaves its connection open when a stream ends with an error.
@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
def test_a_stream_that_breaks_off_ends_with_its_error(play: Callable[..., None]) -> None:
    gate = asyncio.Event()  # it breaks off once the client has its first part

    async def part(on: Scene) -> None:
        with pytest.raises(errors.APIError):
            stream = await on.client.models.generate_content_stream(model="fast", contents="hi")
            async for _ in stream:
                gate.set()
        gate.clear()
        url = f"{on.url}/v1beta/models/fast:streamGenerateContent"
        body = {"contents": [{"parts": [{"text": "hi"}]}]}
        headers = {"x-goog-api-key": KEY}
        came = b""
        with pytest.raises(httpx.RemoteProtocolError):
            async with on.http.stream("POST", url, json=body, headers=headers) as reply:
                async for chunk in reply.aiter_raw():
                    came += chunk
                    gate.set()
        assert orjson.loads(came)[-1]["error"]["status"] == "UNAVAILABLE"

    def answer(asked: Asked) -> Said:
        if asked.target.endswith("alt=sse"):
            return events(EVENTS[0], EVENTS[0], gate=gate, cut=True)
        return Said([ARRAY[0], b"\n"], gate=gate, cut=True)

    play(part, answer)
    gc.collect()
