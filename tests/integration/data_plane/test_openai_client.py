"""The official `openai` client, unchanged but for base_url and key, against a running gateway."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.harness import run, serving
from tests.support.parrot import Parrot
from tests.support.until import until
from tollway.gateway import settings as config
from tollway.gateway.listener import server as front
from tollway.gateway.listener.http_protocol import limited_protocol
from tollway.gateway.security.keys import hash_key, new_key
from tollway.gateway.wiring import Gateway, build

pytestmark = pytest.mark.integration

KEY, NARROW = new_key(), new_key()
ROUTES = "".join(
    f"""
[[routes]]
name = "{path.rpartition("/")[2]}-{number}"
path = "/v1/{path}"
protocol = "openai"
backends = ["parrot"]
"""
    for number, path in enumerate(("chat/completions", "completions", "embeddings", "responses"))
)
CONFIG = f"""
[server]

[ledger]
url = "memory://"

[[backends]]
name = "parrot"
kind = "gpu"
protocol = "openai"
url = "{{url}}"
model = "polly"

[backends.price]
input_usd_per_mtok = 1.0
cached_input_usd_per_mtok = 0.5
output_usd_per_mtok = 10.0
{ROUTES}
[[tenants]]
name = "acme"
key_hash = "{hash_key(KEY)}"

[[tenants]]
name = "narrow"
key_hash = "{hash_key(NARROW)}"
routes = ["embeddings-2"]

[[budgets]]
name = "acme"
scope = {{{{ tenant = "acme" }}}}
limit_usd = {{limit}}
"""
NANO_IN, NANO_OUT = 1000, 10_000
HELLO: Any = [{"role": "user", "content": "hello there"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "repeat",
            "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
        },
    }
]


@dataclass
class Scene:
    gateway: Gateway
    base_url: str
    client: openai.AsyncOpenAI
    parrot: Parrot

    def settled(self) -> list[dict[str, Any]]:
        """Return the rows of the last decision's attempts and settlements."""
        return self.settled_of(self.gateway.recent[-1])

    def settled_of(self, decision: str) -> list[dict[str, Any]]:
        rows = self.gateway.journal.find(decision) or []
        return [row for row in rows if row["kind"] in ("attempt", "settlement")]

    @property
    def spent_nano(self) -> int:
        (budget,) = self.gateway.reservations.status()
        return budget.spent_nano


Play = Callable[[Scene], Any]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., None]:
    """Run a scene with a client, a gateway behind its listener, and a parrot as backend."""

    @asynccontextmanager
    async def scene(limit: str, **options: Any) -> AsyncIterator[Scene]:
        parrot = Parrot()
        async with serving(parrot) as url:
            settings = config.parse(CONFIG.format(url=url, limit=limit), {}, folder=tmp_path)
            gateway = build(settings)
            protocol = limited_protocol(front.HeadLimits(body_bytes=100_000), gateway.app.shape)
            async with front.serving(gateway.app, protocol=protocol) as (host, port):
                base_url = f"http://{host}:{port}/v1"
                options = {"api_key": KEY, **options}
                async with openai.AsyncOpenAI(base_url=base_url, **options) as client:
                    yield Scene(gateway, base_url, client, parrot)

    def started(part: Play, limit: str = "1.0", **options: Any) -> None:
        async def main() -> None:
            async with scene(limit, **options) as on:
                await part(on)

        run(main)

    return started


async def settled_of(on: Scene) -> dict[str, Any]:
    """Return the journal row with the last call's cost, once its stream is settled."""
    await until(lambda: on.settled()[-1]["provenance"] != "pending")
    row: dict[str, Any] = on.settled()[-1]
    return row


def test_a_chat_is_answered_and_charged_by_its_usage(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        raw = await on.client.chat.completions.with_raw_response.create(
            model="any", messages=HELLO, n=2
        )
        told = raw.parse()
        assert [choice.message.content for choice in told.choices] == ["hello there"] * 2
        assert told.usage is not None
        assert (told.usage.prompt_tokens, told.usage.completion_tokens) == (2, 2)
        assert on.parrot.asked[0]["model"] == "polly"
        cost_nano = 2 * NANO_IN + 2 * NANO_OUT
        assert float(raw.headers["x-tollway-cost-usd"]) == pytest.approx(cost_nano / 1e9)
        assert on.spent_nano == cost_nano

    play(part)


def test_cached_tokens_reach_the_client_and_are_charged_at_their_own_price(
    play: Callable[..., None],
) -> None:
    async def part(on: Scene) -> None:
        more = [*HELLO, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "ok"}]
        await on.client.chat.completions.create(model="any", messages=HELLO)
        before_nano = on.spent_nano
        told = await on.client.chat.completions.create(model="any", messages=more)
        assert told.usage is not None
        assert told.usage.prompt_tokens_details is not None
        assert told.usage.prompt_tokens_details.cached_tokens == 2
        assert on.spent_nano - before_nano == 2 * NANO_IN + 2 * NANO_IN // 2 + NANO_OUT

    play(part)


def test_a_stream_is_complete_and_has_usage_only_if_requested(
    play: Callable[..., None],
) -> None:
    async def part(on: Scene) -> None:
        chat = on.client.chat.completions
        plain = [c async for c in await chat.create(model="any", messages=HELLO, stream=True)]
        assert "".join(c.choices[0].delta.content or "" for c in plain) == "hello there"
        assert plain[-1].choices[0].finish_reason == "stop"
        assert all(chunk.usage is None for chunk in plain)
        assert (await settled_of(on))["cost_nano"] == 2 * NANO_IN + 2 * NANO_OUT
        options: Any = {"include_usage": True}
        asked = [
            chunk
            async for chunk in await chat.create(
                model="any", messages=HELLO, stream=True, stream_options=options
            )
        ]
        assert len(asked) == len(plain) + 1
        assert asked[-1].usage is not None
        assert asked[-1].usage.prompt_tokens == 2
        async with chat.stream(model="any", messages=HELLO) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.content == "hello there"

    play(part)


def test_the_first_word_of_a_stream_is_there_before_the_last_is_made(
    play: Callable[..., None],
) -> None:
    async def part(on: Scene) -> None:
        on.parrot.hold = asyncio.Event()
        stream = await on.client.chat.completions.create(model="any", messages=HELLO, stream=True)
        words = []
        async for chunk in stream:
            words.append(chunk.choices[0].delta.content)
            if words[-1] == "hello ":
                assert not on.parrot.hold.is_set()
                on.parrot.hold.set()
        assert words == ["", "hello ", "there", None]

    play(part)


def test_tools_are_called_whole_and_in_a_stream(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        chat = on.client.chat.completions
        whole = await chat.create(model="any", messages=HELLO, tools=TOOLS)
        (call,) = whole.choices[0].message.tool_calls or ()
        assert call.type == "function"
        assert (call.function.name, call.function.arguments) == ("repeat", '{"text":"hello there"}')
        async with chat.stream(model="any", messages=HELLO, tools=TOOLS) as stream:
            final = await stream.get_final_completion()
        (streamed,) = final.choices[0].message.tool_calls or ()
        assert streamed.function.arguments == call.function.arguments
        done: Any = [
            *HELLO,
            whole.choices[0].message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "done"},
        ]
        said = await chat.create(model="any", messages=done, tools=TOOLS)
        assert said.choices[0].message.content == "done"
        assert on.parrot.asked[-1]["messages"] == done

    play(part)


def test_json_is_returned_if_it_was_requested(play: Callable[..., None]) -> None:
    class Said(BaseModel):
        first: str

    async def part(on: Scene) -> None:
        kind: Any = {"type": "json_object"}
        chat = on.client.chat.completions
        loose = await chat.create(model="any", messages=HELLO, response_format=kind)
        assert loose.choices[0].message.content == '{"said":"hello there"}'
        strict = await chat.parse(model="any", messages=HELLO, response_format=Said)
        assert strict.choices[0].message.parsed == Said(first="hello there")

    play(part)


def test_completions_and_embeddings_are_answered_and_charged(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        told = await on.client.completions.create(model="any", prompt="say it again")
        assert told.choices[0].text == "say it again"
        before_nano = on.spent_nano
        made = await on.client.embeddings.create(model="any", input=["a b", "c"])
        assert [entry.embedding for entry in made.data] == [[1.0, 0.0]] * 2
        assert on.spent_nano - before_nano == 3 * NANO_IN

    play(part)


def test_responses_are_answered_whole_and_streamed(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        whole = await on.client.responses.create(model="any", input="hello you there")
        assert whole.output_text == "hello you there"
        kinds = []
        stream = await on.client.responses.create(model="any", input="hello you", stream=True)
        async for event in stream:
            kinds.append(event.type)
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
        assert kinds.count("response.output_text.delta") == 2
        row = await settled_of(on)
        assert (row["provenance"], row["cost_nano"]) == ("usage", 2 * NANO_IN + 2 * NANO_OUT)

    play(part)


def test_models_are_those_that_the_key_may_call(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        ids = [model.id async for model in on.client.models.list()]
        assert ids == ["completions-0", "completions-1", "embeddings-2", "responses-3"]
        assert (await on.client.models.retrieve("embeddings-2")).owned_by == "tollway"
        with pytest.raises(openai.NotFoundError) as missing:
            await on.client.models.retrieve("gpt-2")
        assert missing.value.code == "model_not_found"
        narrow = on.client.with_options(api_key=NARROW)
        assert [model.id async for model in narrow.models.list()] == ["embeddings-2"]

    play(part)


def test_errors_are_of_the_classes_that_clients_catch(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        chat = on.client.chat.completions
        with pytest.raises(openai.BadRequestError) as empty:
            await chat.create(model="any", messages=[])
        assert "messages" in empty.value.message
        stranger = on.client.with_options(api_key="tw_nobody")
        with pytest.raises(openai.AuthenticationError) as unknown:
            await stranger.chat.completions.create(model="any", messages=HELLO)
        assert unknown.value.type == "authentication_error"
        narrow = on.client.with_options(api_key=NARROW)
        with pytest.raises(openai.PermissionDeniedError) as forbidden:
            await narrow.chat.completions.create(model="any", messages=HELLO)
        assert forbidden.value.type == "permission_error"
        with pytest.raises(openai.NotFoundError):
            await on.client.images.generate(prompt="a parrot")
        assert on.parrot.calls == 0

    play(part)


def test_a_backends_own_refusal_reaches_the_client_as_it_is(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        on.gateway.routes["completions-0"].backends["parrot"].model = "nobody"
        with pytest.raises(openai.NotFoundError) as refused:
            await on.client.chat.completions.create(model="any", messages=HELLO)
        assert (refused.value.param, refused.value.body["message"]) == ("model", "no such model")  # type: ignore[index]
        assert on.spent_nano == 0

    play(part)


@pytest.mark.parametrize("stream", [False, True])
def test_an_exhausted_budget_raises_at_once_and_is_not_tried_again(
    stream: bool, play: Callable[..., None]
) -> None:
    async def part(on: Scene) -> None:
        with pytest.raises(openai.APIStatusError) as refused:
            await on.client.chat.completions.create(model="any", messages=HELLO, stream=stream)
        error = refused.value
        assert (error.status_code, error.code, error.type) == (
            402,
            "budget_exhausted",
            "insufficient_quota",
        )
        assert error.response.headers["x-should-retry"] == "false"
        assert "acme" in error.message
        assert on.parrot.calls == 0
        # Each try would have been a decision of its own.
        assert len(on.gateway.recent) == 1

    play(part, limit="0.000000001", max_retries=5)


def test_a_client_timeout_raises_and_the_started_call_is_cancelled_and_charged(
    play: Callable[..., None],
) -> None:
    async def part(on: Scene) -> None:
        on.parrot.hold = asyncio.Event()
        timeout_s = 0.1
        while not on.parrot.calls:  # on a busy machine it may give up before the model is asked
            timeout_s *= 2
            quick = on.client.with_options(timeout=timeout_s, max_retries=0)
            with pytest.raises(openai.APITimeoutError):
                await quick.chat.completions.create(model="any", messages=HELLO)

        def charged() -> list[dict[str, Any]]:
            rows = [row for one in on.gateway.recent for row in on.settled_of(one)]
            return [row for row in rows if row["cost_nano"]]

        # The model has not answered, and need not.
        await until(lambda: len(charged()) >= on.parrot.calls)
        for attempt in charged():
            assert (attempt["error"], attempt["provenance"]) == ("client left", "estimated")
            (held_nano,) = attempt["reserved_nano"].values()
            assert (attempt["abandoned"], attempt["charged_by"]) == ("close", "hold")
            assert attempt["cost_nano"] == held_nano
        assert on.spent_nano == sum(attempt["cost_nano"] for attempt in charged())
        on.parrot.hold.set()

    play(part)


def test_a_deadline_of_the_clients_own_is_an_error_of_the_server(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        on.parrot.hold = asyncio.Event()
        with pytest.raises(openai.InternalServerError) as late:
            await on.client.chat.completions.create(
                model="any", messages=HELLO, extra_headers={"x-tollway-deadline-ms": "100"}
            )
        assert (late.value.status_code, late.value.code) == (504, "deadline_exceeded")
        assert on.parrot.calls <= 1  # 0: on a busy machine the time is up before it is asked
        on.parrot.hold.set()

    play(part, max_retries=0)


def test_a_stream_that_is_left_stops_the_model_and_is_charged_its_hold(
    play: Callable[..., None],
) -> None:
    async def part(on: Scene) -> None:
        on.parrot.hold = asyncio.Event()
        stream = await on.client.chat.completions.create(model="any", messages=HELLO, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await on.parrot.left.wait()
        row = await settled_of(on)
        assert row["provenance"] == "estimated"
        assert row["output_tokens"] >= 1
        (held_nano,) = row["reserved_nano"].values()
        assert (row["abandoned"], row["charged_by"]) == ("close", "hold")
        assert on.spent_nano == row["cost_nano"] == held_nano

    play(part)


def test_the_blocking_client_works_as_well(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        def talk() -> str:
            with openai.OpenAI(base_url=on.base_url, api_key=KEY) as client:
                chunks = client.chat.completions.create(model="any", messages=HELLO, stream=True)
                return "".join(c.choices[0].delta.content or "" for c in chunks)

        assert await asyncio.to_thread(talk) == "hello there"

    play(part)


def test_a_clients_own_ceiling_is_enforced_and_reported(play: Callable[..., None]) -> None:
    async def part(on: Scene) -> None:
        ceiling = {"x-tollway-max-cost-usd": "0.000000001"}
        with pytest.raises(openai.APIStatusError) as refused:
            await on.client.chat.completions.create(
                model="any", messages=HELLO, extra_headers=ceiling
            )
        assert (refused.value.status_code, refused.value.code) == (402, "cost_ceiling")
        assert on.parrot.calls == 0

    play(part)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_the_clients_own_error_with_status_413(
    play: Callable[..., None], chunked: bool
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 5_000

    async def part(on: Scene) -> None:
        with pytest.raises(openai.APIStatusError) as caught:
            if chunked:
                await on.client.post("/chat/completions", cast_to=object, content=parts())
            else:
                content = "x" * 200_000
                await on.client.chat.completions.create(
                    model="any", messages=[{"role": "user", "content": content}]
                )
        assert caught.value.status_code == 413
        assert caught.value.message.endswith("the body exceeds 100000 bytes")
        assert (caught.value.type, caught.value.code) == (
            "invalid_request_error",
            "content_too_large",
        )
        assert on.parrot.calls == 0

    play(part)
