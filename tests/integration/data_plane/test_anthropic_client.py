"""The official `anthropic` client, unchanged but for its address and key, against a gateway."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import orjson
import pytest
from pydantic import BaseModel

from tests.support.harness import run, serving
from tests.support.messages import DOCUMENTED, event
from tests.support.scripted import Asked, Said, Scripted, document, events
from tests.support.until import until
from tollway.gateway import settings as config
from tollway.gateway.listener import server as front
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.security.keys import hash_key, new_key
from tollway.gateway.wiring import Gateway, build

pytestmark = pytest.mark.integration

KEY, NARROW = new_key(), new_key()
CONFIG = """
[server]
allow_anonymous = false

[ledger]
url = "memory://"

[[backends]]
name = "claude"
kind = "api"
protocol = "anthropic"
url = "{url}/v1"
model = "claude-real"
context_tokens = 200000
auth = {{ header = "x-api-key", value_env = "TEST_ANTHROPIC_KEY" }}

[backends.price]
input_usd_per_mtok = 3
cached_input_usd_per_mtok = 0.30
cache_write_5m_usd_per_mtok = 3.75
cache_write_1h_usd_per_mtok = 6
output_usd_per_mtok = 15
per_search_usd = 0.01

[[routes]]
name = "messages"
path = "/v1/messages"
protocol = "anthropic"
backends = ["claude"]

[[routes]]
name = "other"
path = "/other"
protocol = "anthropic"
backends = ["claude"]

[[tenants]]
name = "acme"
key_hash = "{key}"

[[tenants]]
name = "narrow"
key_hash = "{narrow}"
routes = ["other"]

[[budgets]]
name = "acme"
scope = {{ tenant = "acme" }}
limit_usd = {limit}
enforcement = "{enforcement}"
"""
IN, READ, WRITE, HOUR, OUT, SEARCH = 3000, 300, 3750, 6000, 15_000, 10_000_000
HELLO: Any = [{"role": "user", "content": "Hello"}]
ASK: Any = {"model": "any", "max_tokens": 1024, "messages": HELLO, "timeout": 60}
USED = {"input_tokens": 12, "output_tokens": 6}


def message(*content: Any, usage: Any = None, stop: str = "end_turn", **more: Any) -> Said:
    return document(
        {
            "id": "msg_01",
            "type": "message",
            "role": "assistant",
            "model": "claude-real",
            "content": list(content),
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": usage or USED,
        },
        headers=[("request-id", "req_upstream")],
        **more,
    )


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def failure(status: int, kind: str, **more: Any) -> Said:
    error = {
        "type": "error",
        "error": {"type": kind, "message": kind},
        "request_id": "req_upstream",
    }
    return document(error, status, headers=[("request-id", "req_upstream")], **more)


@dataclass
class Scene:
    gateway: Gateway
    client: Any
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
    monkeypatch.setenv("TEST_ANTHROPIC_KEY", "sk-ant-real")

    @asynccontextmanager
    async def scene(
        answer: Callable[[Asked], Said], limit: str, enforcement: str, **options: Any
    ) -> AsyncIterator[Scene]:
        model = Scripted(answer)
        async with serving(model) as url:
            toml = CONFIG.format(
                url=url,
                limit=limit,
                enforcement=enforcement,
                key=hash_key(KEY),
                narrow=hash_key(NARROW),
            )
            gateway = build(config.parse(toml, {}, folder=tmp_path))
            protocol = limited_protocol(front.HeadLimits(body_bytes=100_000), gateway.app.shape)
            async with front.serving(gateway.app, protocol=protocol) as (host, port):
                options = {"api_key": KEY, "max_retries": 0, **options}
                base_url = f"http://{host}:{port}"
                async with anthropic.AsyncAnthropic(base_url=base_url, **options) as client:
                    yield Scene(gateway, client, model)

    def started(
        part: Play,
        said: Said | Callable[[Asked], Said],
        limit: str = "1.0",
        enforcement: str = "expected",
        **options: Any,
    ) -> None:
        answer = said if callable(said) else lambda asked: said

        async def main() -> None:
            async with scene(answer, limit, enforcement, **options) as on:
                await part(on)

        run(main)

    return started


async def create(on: Scene, **more: Any) -> Any:
    return await on.client.messages.create(**{**ASK, **more})


@pytest.mark.parametrize("how", ["x-api-key", "bearer"])
def test_a_message_is_answered_and_charged_by_its_usage(
    play: Callable[..., None], how: str
) -> None:
    keys: Any = {"api_key": KEY} if how == "x-api-key" else {"api_key": None, "auth_token": KEY}

    async def part(on: Scene) -> None:
        raw = await on.client.messages.with_raw_response.create(
            model="any", max_tokens=1024, messages=HELLO
        )
        told = await raw.parse()
        assert (told.content[0].text, told.stop_reason) == ("Hi!", "end_turn")
        assert raw.headers["request-id"] == "req_upstream"
        (asked,) = on.model.asked
        assert (asked.target, asked.headers["x-api-key"]) == ("/v1/messages", "sk-ant-real")
        assert asked.document["model"] == "claude-real"
        assert asked.headers["anthropic-version"]
        assert KEY not in repr(asked)
        assert float(raw.headers["x-tollway-cost-usd"]) == (12 * IN + 6 * OUT) / 1e9
        assert on.spent_nano == 12 * IN + 6 * OUT

    play(part, message(text("Hi!")), **keys)


def test_cache_writes_and_reads_and_searches_have_their_prices(play: Callable[..., None]) -> None:
    used = {
        "input_tokens": 2048,
        "cache_read_input_tokens": 1800,
        "cache_creation_input_tokens": 248,
        "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
        "output_tokens": 503,
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
    }

    async def part(on: Scene) -> None:
        told = await create(on)
        assert told.usage.cache_read_input_tokens == 1800
        cost_nano = 2048 * IN + 1800 * READ + 148 * WRITE + 100 * HOUR + 503 * OUT + 2 * SEARCH
        assert on.spent_nano == cost_nano
        assert (await on.settled())["provenance"] == "usage"

    play(part, message(text("Hi!"), usage=used))


def test_a_documented_stream_reaches_the_client_byte_for_byte(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        async with on.client.messages.with_streaming_response.create(
            model="any", max_tokens=1024, messages=HELLO, stream=True
        ) as response:
            assert await response.read() == b"".join(DOCUMENTED)
        assert (await on.settled())["cost_nano"] == 25 * IN + 15 * OUT
        async with on.client.messages.stream(
            model="any", max_tokens=1024, messages=HELLO
        ) as stream:
            assert "".join([words async for words in stream.text_stream]) == "Hello!"
            final = await stream.get_final_message()
        assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 15)

    play(part, events(*DOCUMENTED))


def test_thinking_and_tools_stream_through(play: Callable[..., None]) -> None:
    parts = [
        DOCUMENTED[0],
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        event(
            "content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Let me"}
        ),
        event(
            "content_block_delta", index=0, delta={"type": "signature_delta", "signature": "EqQB"}
        ),
        event("content_block_stop", index=0),
        event(
            "content_block_start",
            index=1,
            content_block={"type": "tool_use", "id": "t1", "name": "weather", "input": {}},
        ),
        event(
            "content_block_delta",
            index=1,
            delta={"type": "input_json_delta", "partial_json": '{"place": "Bern"}'},
        ),
        event("content_block_stop", index=1),
        event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 89}),
        event("message_stop"),
    ]
    tool = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    content = [{"type": "image", "source": image}, text("where?")]

    async def part(on: Scene) -> None:
        async with on.client.messages.stream(
            model="any",
            max_tokens=4096,
            messages=[{"role": "user", "content": content}],
            tools=[tool],
            thinking={"type": "enabled", "budget_tokens": 2048},
        ) as stream:
            final = await stream.get_final_message()
        assert [block.type for block in final.content] == ["thinking", "tool_use"]
        assert final.content[0].signature == "EqQB"
        assert final.content[1].input == {"place": "Bern"}
        assert on.model.asked[0].document["messages"][0]["content"] == content
        assert (await on.settled())["cost_nano"] == 25 * IN + 89 * OUT

    play(part, events(*parts))


def test_a_structured_answer_is_parsed(play: Callable[..., None]) -> None:
    class Place(BaseModel):
        name: str

    async def part(on: Scene) -> None:
        told = await on.client.messages.parse(
            model="any", max_tokens=64, messages=HELLO, output_format=Place
        )
        assert told.parsed_output == Place(name="Bern")

    play(part, message(text('{"name": "Bern"}')))


def test_a_refusal_of_the_model_is_passed_on(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        assert (await create(on)).stop_reason == "refusal"
        assert on.spent_nano == 12 * IN + 6 * OUT

    play(part, message(stop="refusal"))


def test_beta_fields_reach_the_model_and_names_of_accounts_do_not(
    play: Callable[..., None],
) -> None:
    async def part(on: Scene) -> None:
        await on.client.beta.messages.create(
            model="any",
            max_tokens=10,
            messages=HELLO,
            betas=["context-1m-2025-08-07", "fast-mode-2026-02-01"],
            extra_headers={"anthropic-workspace-id": "w", "anthropic-organization": "o"},
        )
        (asked,) = on.model.asked
        assert asked.target.partition("?")[0] == "/v1/messages"
        assert asked.headers["anthropic-beta"] == "context-1m-2025-08-07,fast-mode-2026-02-01"
        assert not {"anthropic-workspace-id", "anthropic-organization"} & set(asked.headers)

    play(part, message(text("Hi!")))


@pytest.mark.parametrize(
    ("status", "kind", "exception"),
    [
        (400, "invalid_request_error", "BadRequestError"),
        (404, "not_found_error", "NotFoundError"),
        (413, "request_too_large", "ContentTooLargeError"),
        (429, "rate_limit_error", "RateLimitError"),
        (500, "api_error", "InternalServerError"),
        (529, "overloaded_error", "OverloadedError"),
    ],
)
def test_a_backends_refusal_is_the_clients_exception(
    play: Callable[..., None], status: int, kind: str, exception: str
) -> None:
    async def part(on: Scene) -> None:
        with pytest.raises(getattr(anthropic, exception, anthropic.APIStatusError)) as caught:
            await create(on)
        assert type(caught.value).__name__ == exception
        assert (caught.value.status_code, caught.value.type) == (status, kind)
        assert caught.value.request_id == "req_upstream"
        assert on.spent_nano == 0

    play(part, failure(status, kind))


def test_the_gateways_own_refusals_are_the_clients_exceptions(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        with pytest.raises(anthropic.BadRequestError) as bad:
            await on.client.post("/v1/messages", body={"model": "m"}, cast_to=object)
        assert bad.value.type == "invalid_request_error"
        with pytest.raises(anthropic.AuthenticationError) as unknown:
            await on.client.with_options(api_key="tw_unknown").messages.create(**ASK)
        assert unknown.value.type == "authentication_error"
        with pytest.raises(anthropic.PermissionDeniedError) as narrow:
            await on.client.with_options(api_key=NARROW).messages.create(**ASK)
        assert narrow.value.type == "permission_error"
        with pytest.raises(anthropic.APIStatusError) as large:
            await create(on, system="s" * 200_000)
        assert (large.value.status_code, large.value.type) == (413, "request_too_large")
        assert not on.model.asked

    play(part, message(text("Hi!")))


def test_a_count_of_tokens_is_free_and_asks_the_named_model(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        await create(on)
        spent_nano = on.spent_nano
        told = await on.client.messages.count_tokens(model="any", messages=HELLO)
        assert told.input_tokens == 2095
        assert on.spent_nano == spent_nano
        assert on.model.asked[1].target == "/v1/messages/count_tokens"
        assert on.model.asked[1].document == {"model": "claude-real", "messages": HELLO}
        with pytest.raises(anthropic.APIStatusError):
            await create(on)  # the budget is exhausted, and counting goes on
        await on.client.messages.count_tokens(model="any", messages=HELLO)

    def answer(asked: Asked) -> Said:
        if asked.target.endswith("/count_tokens"):
            return document({"input_tokens": 2095})
        return message(text("Hi!"), usage={"input_tokens": 12, "output_tokens": 4000})

    play(part, answer, limit="0.05")


def test_an_exhausted_budget_is_402_and_is_not_retried(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        await create(on)
        with pytest.raises(anthropic.APIStatusError) as spent:
            await create(on)
        assert type(spent.value).__name__ == "PaymentRequiredError"
        assert (spent.value.status_code, spent.value.type) == (402, "billing_error")
        assert spent.value.error_code == "budget_exhausted"
        assert spent.value.body["limit_usd"] == 0.05
        assert spent.value.body["request_id"] == spent.value.response.headers["x-tollway-decision"]
        assert len(on.model.asked) == 1

    used = {"input_tokens": 12, "output_tokens": 4000}
    play(part, message(text("Hi!"), usage=used), limit="0.05", max_retries=2)


def test_a_call_that_nothing_bounds_is_refused_under_a_hard_budget(
    play: Callable[..., None],
) -> None:
    search: Any = {"type": "web_search_20250305", "name": "web_search"}

    async def part(on: Scene) -> None:
        with pytest.raises(anthropic.UnprocessableEntityError, match="max_uses"):
            await create(on, tools=[search])
        assert not on.model.asked
        await create(on, tools=[{**search, "max_uses": 1}])
        row = await on.settled()
        # The context, at the dearest kind of input, and an answer, both twice; and a search.
        assert row["reserved_nano"]["acme"] == 2 * (200_000 * HOUR + 1024 * OUT) + SEARCH
        assert on.spent_nano == 12 * IN + 6 * OUT

    play(part, message(text("Hi!")), limit="100", enforcement="hard")


def test_a_hard_budget_with_little_left_leaves_room_for_an_answer_beside_the_thinking(
    play: Callable[..., None],
) -> None:
    async def part(on: Scene) -> None:
        thinking = {"type": "enabled", "budget_tokens": 1024}
        await create(on, max_tokens=64_000, thinking=thinking)
        (asked,) = on.model.asked
        assert 1024 < asked.document["max_tokens"] < 64_000
        with pytest.raises(anthropic.APIStatusError) as spent:
            await create(on, max_tokens=64_000, thinking={**thinking, "budget_tokens": 32_000})
        assert spent.value.status_code == 402

    play(part, message(text("Hi!")), limit="0.05", enforcement="hard")


def test_a_stream_that_is_left_is_closed_and_charged(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        async with on.client.messages.stream(
            model="any", max_tokens=1024, messages=HELLO
        ) as stream:
            await anext(aiter(stream))
        await until(on.model.left.is_set)
        row = await on.settled()
        assert row["provenance"] == "estimated"
        assert on.spent_nano >= 25 * IN + OUT

    play(part, events(DOCUMENTED[0], *DOCUMENTED[1:], gate=asyncio.Event()))


def test_a_stream_that_breaks_off_ends_with_an_error_event(play: Callable[..., None]) -> None:
    gate = asyncio.Event()  # it breaks off once the client has its first part

    async def part(on: Scene) -> None:
        with pytest.raises(anthropic.APIStatusError, match="api_error"):
            async for _ in await create(on, stream=True):
                gate.set()

    play(part, events(*DOCUMENTED[:5], gate=gate, cut=True))


def test_an_error_event_before_the_answer_is_the_error_reply(play: Callable[..., None]) -> None:
    failed = event("error", error={"type": "overloaded_error", "message": "Overloaded"})

    async def part(on: Scene) -> None:
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            await create(on, stream=True)
        assert overloaded.value.status_code == 529
        assert overloaded.value.type == "overloaded_error"
        assert on.spent_nano == 0

    play(part, events(DOCUMENTED[2], failed))


def test_an_error_event_in_the_middle_reaches_the_client(play: Callable[..., None]) -> None:
    failed = event("error", error={"type": "overloaded_error", "message": "Overloaded"})

    async def part(on: Scene) -> None:
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            async for _ in await create(on, stream=True):
                pass
        row = await on.settled()
        assert row["cost_nano"] >= 25 * IN + OUT

    play(part, events(*DOCUMENTED[:5], failed))


def test_unknown_members_pass_byte_for_byte(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        body = b'{"model":"any","max_tokens":5,"messages":[{"role":"user","content":"q"}],'
        body += b'"of_tomorrow":{"n":123456789012345678901234567890,"n":1.10}}'
        await on.client.post("/v1/messages", content=body, cast_to=object)
        assert on.model.asked[0].body == body.replace(b'"any"', b'"claude-real"')

    odd = orjson.dumps({"type": "of_tomorrow", "content": [{"type": "x"}], "usage": USED})
    play(part, Said([odd]))
