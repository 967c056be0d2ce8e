"""The official `openai` client calls every endpoint, directly and through a gateway.

What the server is sent and what the client gets must be the same both ways, byte for byte, and each
call is charged for what its reply reports, its request asks for, or, if neither tells, an estimate.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.support.harness import Running, running, serving
from tests.support.openai_calls import (
    BILLED,
    CHAR,
    FREE,
    IMAGE,
    PNG,
    SECOND,
    WAV,
    Call,
    outcome,
    outcome_now,
)
from tests.support.scripted_api import MP3, ScriptedApi

# Some calls are deprecated in the client, and clients still make them.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PRICE = (
    "{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0, per_image_usd = 0.04, "
    "audio_usd_per_hour = 0.36, per_mchar_usd = 15.0 }"
)
PATHS = (
    *("chat/completions", "completions", "embeddings", "responses", "responses/*"),
    *("audio/speech", "audio/transcriptions", "audio/translations"),
    *("images/generations", "images/edits", "images/variations"),
    *("moderations", "rerank", "files", "files/*", "uploads", "uploads/*"),
    *("conversations", "conversations/*", "chat/completions/*"),
)


def config(url: str, paths: tuple[str, ...] = PATHS, price: str = PRICE, more: str = "") -> str:
    routes = "".join(
        f'[[routes]]\nname = "r{n}"\npath = "/v1/{path}"\nprotocol = "openai"\nbackends = ["up"]\n'
        for n, path in enumerate(paths)
    )
    return f"""
[server]
allow_anonymous = true
[ledger]
url = "memory://"
[[backends]]
name = "up"
kind = "gpu"
protocol = "openai"
url = "{url}/v1"
price = {price}
{routes}
{more}
"""


class Sent:
    """The last body that a client has sent."""

    def __init__(self) -> None:
        self.body = b""

    async def hook(self, request: httpx2.Request) -> None:
        self.body = await request.aread()


@asynccontextmanager
async def scene(
    folder: Path, api: ScriptedApi | None = None, **options: Any
) -> AsyncIterator[tuple[ScriptedApi, Running, openai.AsyncOpenAI, openai.AsyncOpenAI, Sent]]:
    """Yield a server, a gateway, a client of the server, one of the gateway, and what it sends."""
    api, sent = api or ScriptedApi(), Sent()
    async with serving(api) as url, running(config(url, **options), folder) as gateway:
        hooks: Any = {"request": [sent.hook]}
        async with (
            httpx2.AsyncClient(event_hooks=hooks, trust_env=False) as http,
            openai.AsyncOpenAI(
                base_url=f"{gateway.url}/v1", api_key="x", max_retries=0, http_client=http
            ) as client,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as direct,
        ):
            yield api, gateway, direct, client, sent


def cost_nano(gateway: Running) -> int:
    """Return what all calls so far have cost."""
    rows = gateway.journalled("attempt") + gateway.journalled("settlement")
    return sum(row["cost_nano"] for row in rows)


def test_every_billed_endpoint_is_answered_as_by_the_server_and_charged(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as (api, gateway, direct, client, sent):
            for name, (call, cost) in BILLED.items():
                wanted = await outcome(direct, call)
                before = cost_nano(gateway)
                assert await outcome(client, call) == wanted, name
                assert api.asked[-1].body == sent.body, name
                charged = cost_nano(gateway) - before
                assert charged == cost if cost is not None else charged > 0, (name, charged)

    asyncio.run(main())


def test_every_free_endpoint_is_answered_as_by_the_server_and_costs_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as (api, gateway, direct, client, sent):
            for name, call in FREE.items():
                wanted = await outcome(direct, call)
                assert await outcome(client, call) == wanted, name
                assert api.asked[-1].body == sent.body, name
            assert cost_nano(gateway) == 0
            assert not gateway.gateway.recent  # no decision: nothing is learned from these

    asyncio.run(main())


def test_the_client_without_asyncio_gets_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as (_, gateway, direct, _, _):
            base_url = f"{gateway.url}/v1"
            with openai.OpenAI(base_url=base_url, api_key="x", max_retries=0) as client:
                calls = {**{name: call for name, (call, _) in BILLED.items()}, **FREE}
                for name, call in calls.items():
                    wanted = await outcome(direct, call)
                    assert await asyncio.to_thread(outcome_now, client, call) == wanted, name

    asyncio.run(main())


def test_a_file_reaches_the_client_in_pieces_and_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as (_, _, _, client, _):
            pieces = []
            speech = client.audio.speech.with_streaming_response
            async with speech.create(model="m", voice="alloy", input="hello") as reply:
                async for piece in reply.iter_bytes():
                    pieces.append(piece)
                assert reply.headers["content-length"] == str(len(MP3))
                assert reply.headers["content-type"] == "audio/mpeg"
            assert b"".join(pieces) == MP3
            assert len(pieces) > 1

    asyncio.run(main())


HARD = '[[budgets]]\nname = "all"\nscope = {}\nlimit_usd = 1.0\nenforcement = "hard"\n'


async def refusal(client: openai.AsyncOpenAI, call: Call) -> Any:
    with pytest.raises(openai.APIStatusError) as refused:
        await call(client)
    return refused.value


def transcribe(client: Any) -> Any:
    return client.audio.transcriptions.create(model="m", file=WAV)


def batch(client: Any) -> Any:
    return client.batches.create(
        input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
    )


@pytest.mark.parametrize(
    ("call", "price", "names"),
    [
        (transcribe, "{ audio_usd_per_hour = 0.36 }", "max_audio_s"),
        (batch, "{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 1.0 }", "per_request_usd"),
        (batch, "{ audio_usd_per_hour = 0.36 }", "per_request_usd"),
        (
            lambda c: c.images.generate(model="m", prompt="a", n=0),
            "{ per_image_usd = 0.04 }",
            "whole number",
        ),
    ],
)
def test_a_hard_budget_refuses_what_nothing_bounds_and_says_what_would(
    tmp_path: Path, call: Call, price: str, names: str
) -> None:
    paths = ("audio/transcriptions", "batches", "images/generations")

    async def main() -> None:
        async with scene(tmp_path, paths=paths, price=price, more=HARD) as (api, _, _, client, _):
            refused = await refusal(client, call)
            assert (refused.status_code, refused.code) == (422, "cost_unbounded")
            assert names in str(refused)
            assert not api.asked

    asyncio.run(main())


@pytest.mark.parametrize(
    ("call", "price", "backend", "most"),
    [
        (transcribe, "{ audio_usd_per_hour = 0.36 }", "max_audio_s = 1500", 1500 * SECOND),
        (batch, "{ per_request_usd = 0.5 }", "", 500_000_000),
        (
            lambda c: c.images.edit(model="m", prompt="a", image=PNG, n=3),
            "{ per_image_usd = 0.04 }",
            "",
            3 * IMAGE,
        ),
        (
            lambda c: c.audio.speech.create(model="m", voice="alloy", input="grüße"),
            "{ per_mchar_usd = 15.0 }",
            "",
            5 * CHAR,
        ),
    ],
)
def test_a_hard_budget_reserves_the_declared_maximum(
    tmp_path: Path, call: Call, price: str, backend: str, most: int
) -> None:
    paths = ("audio/transcriptions", "audio/speech", "batches", "images/edits")

    async def main() -> None:
        priced = f"{price}\n{backend}"
        async with scene(tmp_path, paths=paths, price=priced, more=HARD) as (_, gateway, _, c, _):
            await call(c)
            (row,) = gateway.journalled("attempt")
            assert row["reserved_nano"] == {"all": most}
            assert sum(r["cost_nano"] for r in gateway.journalled("settlement") or [row]) > 0

    asyncio.run(main())


def test_the_backends_name_of_a_model_is_written_into_a_form(tmp_path: Path) -> None:
    async def main() -> None:
        named = f'{PRICE}\nmodel = "large"\ndrop_fields = ["temperature"]'
        async with scene(tmp_path, price=named) as (api, _, _, client, sent):
            await client.audio.transcriptions.create(model="m", file=WAV, temperature=0.5)
            expected = sent.body.replace(
                b'name="model"\r\n\r\nm\r\n', b'name="model"\r\n\r\nlarge\r\n'
            )
            start = expected.index(b'Content-Disposition: form-data; name="temperature"')
            end = expected.index(b"Content-Disposition", start + 1)
            assert api.asked[-1].body == expected[:start] + expected[end:]

    asyncio.run(main())


def test_a_call_that_nothing_tells_the_usage_of_is_estimated_and_never_free(tmp_path: Path) -> None:
    price = "{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }"

    async def main() -> None:
        async with scene(tmp_path, price=price) as (_, gateway, _, client, _):
            await client.audio.speech.create(model="m", voice="alloy", input="hello")
            await client.moderations.create(input="a")
            await client.images.create_variation(image=PNG)
            rows = gateway.journalled("settlement") + gateway.journalled("attempt")[1:]
            assert [row["provenance"] for row in rows] == ["estimated"] * 3
            assert all(row["cost_nano"] > 0 for row in rows)

    asyncio.run(main())


def test_the_model_of_a_form_selects_the_route(tmp_path: Path) -> None:
    shared = "".join(
        f'[[routes]]\nname = "{name}"\npath = "/v1/audio/translations"\nprotocol = "openai"\n'
        f'models = ["{name}"]\nbackends = ["up"]\n'
        for name in ("small", "large")
    )

    async def main() -> None:
        paths = ("audio/transcriptions",)
        async with scene(tmp_path, paths=paths, more=shared) as (api, gateway, _, client, _):
            for model in ("large", "small"):
                await client.audio.translations.create(model=model, file=WAV)
            assert [row["route"] for row in gateway.journalled("attempt")] == ["large", "small"]
            for body in ({"model": "other"}, {}):
                sent = await gateway.client.post(
                    f"{gateway.url}/v1/audio/translations", data=body, files={"file": WAV}
                )
                assert sent.status_code == 404
            twice = [("model", (None, "small")), ("model", (None, "large")), ("file", WAV)]
            sent = await gateway.client.post(
                f"{gateway.url}/v1/audio/translations",
                files=twice,  # type: ignore[arg-type]
            )
            assert sent.status_code == 400
            assert len(api.asked) == 2

    asyncio.run(main())


def test_a_file_larger_than_any_reply_that_is_read_passes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 2_000

    async def main() -> None:
        api = ScriptedApi({("GET", "files/file-1/content"): (b"application/octet-stream", content)})
        small = "[server]\nallow_anonymous = true\nmax_reply_bytes = 100000\n"
        async with serving(api) as url:
            toml = config(url).replace("[server]\nallow_anonymous = true\n", small)
            async with running(toml, tmp_path) as gateway:
                reply = await gateway.client.get(f"{gateway.url}/v1/files/file-1/content")
                assert reply.content == content

    asyncio.run(main())


def test_a_file_that_breaks_off_never_looks_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, api=ScriptedApi(cut_media={"audio/speech": 5_000})) as made:
            _, gateway, _, client, _ = made
            speech = client.audio.speech.with_streaming_response
            got = b""
            with pytest.raises(httpx2.RemoteProtocolError):
                async with speech.create(model="m", voice="alloy", input="hello") as reply:
                    async for piece in reply.iter_bytes():
                        got += piece
            assert MP3.startswith(got)
            (row,) = gateway.journalled("settlement")
            assert row["cost_nano"] == 5 * CHAR
            assert row["error"]

    asyncio.run(main())


def test_free_calls_are_logged_traced_and_counted(tmp_path: Path) -> None:
    more = '[log]\nrequests = "all"\n'

    async def main() -> None:
        async with scene(tmp_path, more=more) as (_, gateway, _, client, _):
            await client.files.retrieve("file-1")
            await client.files.content("file-1")
            with pytest.raises(openai.NotFoundError):
                await client.files.retrieve("file-2")
            text = (await gateway.client.get(f"{gateway.url}/metrics")).text
            counts = [
                line.rpartition(" ")[2]
                for line in text.splitlines()
                if line.startswith("tollway_requests_total") and 'route="r14"' in line
            ]
            assert sum(float(one) for one in counts) >= 2
            assert 'outcome="client_error"' in text
            assert 'outcome="failed",route="r14"' not in text

    asyncio.run(main())


def test_a_repeated_upload_with_a_key_is_one_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as (api, _, _, client, _):
            for _ in range(2):
                await client.files.create(
                    file=("a.jsonl", b"{}\n"),
                    purpose="batch",
                    extra_headers={
                        "idempotency-key": "k",
                        "content-type": "multipart/form-data; boundary=same",
                    },
                )
            assert len(api.asked) == 1

    asyncio.run(main())
