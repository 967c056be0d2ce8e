"""Fields that a backend rejects are removed, declared or detected."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.harness import Running, run, running, serving
from tollway.backends.dialect import Dialect, named
from tollway.backends.protocols.openai.protocol import OpenAI
from tollway.backends.types import Payload

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "up"
kind = "api"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}
{backend}

[[routes]]
name = "r"
path = "/v1/*"
protocol = "openai"
backends = ["up"]

[[budgets]]
name = "all"
limit_usd = 1.0
window = "month"
enforcement = "expected"
"""

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**ASK, "stream": True}
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}

Refuses = Callable[[dict[str, Any]], tuple[int, Any] | None]


def event(document: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)


class Model:
    """Answers `hi`, with usage if a stream requests it, unless it refuses the request."""

    def __init__(self, refuses: Refuses = lambda document: None, *, late: bool = False) -> None:
        """`late`: the second request is answered after the third, which repeats the first."""
        self.refuses = refuses
        self.late = late
        self.repeated = asyncio.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.bodies.append(body)
        if self.late and len(self.bodies) == 2:
            await self.repeated.wait()
        document = orjson.loads(body)
        refusal = self.refuses(document)
        status, kind = 200, b"application/json"
        if refusal is not None:
            status, reply = refusal[0], orjson.dumps(refusal[1])
        elif document.get("stream"):
            kind = b"text/event-stream"
            choice = {"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}
            reply = event({"choices": [choice]})
            if (document.get("stream_options") or {}).get("include_usage"):
                reply += event({"choices": [], "usage": USAGE})
            reply += b"data: [DONE]\n\n"
        else:
            choice = {"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}
            reply = orjson.dumps({"choices": [choice], "usage": USAGE})
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reply})
        if self.late and len(self.bodies) == 3:
            self.repeated.set()


def refuses_options(document: dict[str, Any]) -> tuple[int, Any] | None:
    if "stream_options" not in document:
        return None
    message = "Unknown parameter: 'stream_options'."
    return 400, {"error": {"message": message, "param": "stream_options"}}


def refuses_usage(document: dict[str, Any]) -> tuple[int, Any] | None:
    if "include_usage" not in document.get("stream_options", {}):
        return None
    place = ["body", "stream_options", "include_usage"]
    return 422, {"detail": [{"loc": place, "msg": "Extra inputs are not permitted"}]}


async def post(tollway: Running, document: Any, path: str = "chat/completions") -> httpx.Response:
    return await tollway.client.post(f"{tollway.url}/v1/{path}", json=document)


@pytest.mark.integration
@pytest.mark.parametrize("refuses", [refuses_options, refuses_usage])
def test_a_stream_whose_added_option_is_refused_is_asked_for_without_it_and_so_are_later_ones(
    tmp_path: Path, refuses: Refuses
) -> None:
    model = Model(refuses)

    async def main() -> None:
        async with (
            serving(model) as url,
            running(CONFIG.format(url=url, backend=""), tmp_path) as tollway,
        ):
            for expected in (2, 3):
                reply = await post(tollway, STREAM)
                assert (reply.status_code, reply.text.count("data:")) == (200, 2)
                assert len(model.bodies) == expected
                told = await tollway.get(
                    f"/_tollway/decisions/{reply.headers['x-tollway-decision']}"
                )
                (attempt,) = told["attempts"]
                assert (attempt["provenance"], attempt["error"]) == ("estimated", "")
            assert orjson.loads(model.bodies[-1]) == STREAM

    run(main)


@pytest.mark.integration
def test_a_refusal_that_comes_after_it_was_learned_is_asked_again_too(tmp_path: Path) -> None:
    model = Model(refuses_options, late=True)

    async def main() -> None:
        async with (
            serving(model) as url,
            running(CONFIG.format(url=url, backend=""), tmp_path) as tollway,
        ):
            replies = await asyncio.gather(*[post(tollway, STREAM) for _ in range(2)])
            assert [reply.status_code for reply in replies] == [200, 200]
            assert len(model.bodies) == 4

    run(main)


@pytest.mark.integration
def test_what_the_client_asked_for_itself_is_not_taken_out(tmp_path: Path) -> None:
    model = Model(refuses_options)

    async def main() -> None:
        async with (
            serving(model) as url,
            running(CONFIG.format(url=url, backend=""), tmp_path) as tollway,
        ):
            reply = await post(tollway, {**STREAM, "stream_options": {"include_usage": True}})
            assert reply.status_code == 400
            assert reply.json()["error"]["param"] == "stream_options"
            assert len(model.bodies) == 1

    run(main)


@pytest.mark.integration
def test_a_refusal_for_another_reason_teaches_nothing(tmp_path: Path) -> None:
    def refuses(document: dict[str, Any]) -> tuple[int, Any] | None:
        if document["messages"] == ASK["messages"]:
            return None
        return 422, {"detail": [{"msg": "bad role", "input": document}]}  # it echoes the request

    model = Model(refuses)

    async def main() -> None:
        async with (
            serving(model) as url,
            running(CONFIG.format(url=url, backend=""), tmp_path) as tollway,
        ):
            wrong = await post(tollway, {**STREAM, "messages": [{"role": "x", "content": "y"}]})
            assert wrong.status_code == 422
            assert len(model.bodies) == 2
            assert (await post(tollway, STREAM)).status_code == 200
            assert orjson.loads(model.bodies[-1])["stream_options"] == {"include_usage": True}

    run(main)


@pytest.mark.parametrize(
    "asked",
    [{"input": "hello"}, {"prompt": {"id": "p"}}, {"prompt": {"id": "p"}, "input": "hello"}],
)
def test_a_response_is_never_asked_for_its_usage(asked: dict[str, Any]) -> None:
    document = {"model": "m", "stream": True, **asked}
    assert OpenAI().added(Payload(document)) == ()


@pytest.mark.integration
def test_declared_fields_are_dropped_and_every_other_byte_stays(tmp_path: Path) -> None:
    model = Model()
    drops = 'drop_fields = ["top_k", "chat_template_kwargs", "extra.secret"]'
    said = b'"messages":[ {"role":"user","content":"hello"} ]'
    sent = (
        b'{"model":"m","top_k":40,"seed":123456789012345678901234567890, %b,'
        b' "extra":{"secret":1,"other":1.50},"chat_template_kwargs":{"a":[1]}}' % said
    )
    kept = b'{"model":"m","seed":123456789012345678901234567890, %b, "extra":{"other":1.50}}' % said

    async def main() -> None:
        async with (
            serving(model) as url,
            running(CONFIG.format(url=url, backend=drops), tmp_path) as tollway,
        ):
            path = f"{tollway.url}/v1/chat/completions"
            for body in (sent, b'{"model":"m", %b}' % said):
                assert (await tollway.client.post(path, content=body)).status_code == 200
            assert model.bodies == [kept, b'{"model":"m", %b}' % said]

    run(main)


def test_a_refusal_names_an_addition_or_does_not() -> None:
    added = OpenAI().added(Payload(STREAM))
    assert named(added, b'{"error":{"param":"stream_options.include_usage"}}') == list(added)
    assert named(added, b'{"error":{"param":"messages"}}') == []


def test_of_a_clients_own_options_only_what_was_added_is_left_out() -> None:
    document = {**STREAM, "stream_options": {"include_obfuscation": False}}
    added, dialect = OpenAI().added(Payload(document)), Dialect()
    assert dialect.unwanted(document, added) == []
    dialect.learn("up", added)
    assert dialect.unwanted(document, added) == ["stream_options.include_usage"]
    assert dialect.unwanted(STREAM, OpenAI().added(Payload(STREAM))) == ["stream_options"]
