"""Output limits that a hard budget writes into requests, over real sockets."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.configs import capped_model
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.until import until

pytestmark = pytest.mark.integration

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SAID = [{"role": "user", "content": "?"}]
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/large.png"}}


@dataclass
class Model(Upstream):
    """A model that would write `writes` tokens, keeps its limit, and refuses what it is told to.

    refuses: a field, and what is said of it. most: the largest limit that it takes.
    """

    writes: int = 1000
    refuses: tuple[str, str] = ("", "")
    most: int | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.status = 200
        await super().__call__(scope, receive, send)

    def answer(self, body: bytes) -> bytes:
        asked = orjson.loads(body)
        field, said = self.refuses
        if field in asked:
            self.status = 400
            return orjson.dumps({"error": {"message": said, "code": "unsupported_parameter"}})
        limits = [asked.get(n) for n in ("max_tokens", "max_completion_tokens")]
        limit = min([n for n in [*limits, asked.get("max_output_tokens")] if n], default=10**9)
        if self.most is not None and 10**9 > limit > self.most:
            self.status = 400
            said = f"max_tokens is too large: {limit}. This model supports at most {self.most}"
            return orjson.dumps({"error": {"message": f"{said} completion tokens."}})
        written = min(self.writes, limit) * (asked.get("n") or 1)
        if "input" in asked:
            usage = {"input_tokens": 5, "output_tokens": written}
            return orjson.dumps({"id": "r", "output": [], "usage": usage})
        message = {"role": "assistant", "content": "4"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 5, "completion_tokens": written}
        return orjson.dumps({"id": "x", "model": "m", "choices": [choice], "usage": usage})

    @property
    def last(self) -> bytes:
        return self.requests[-1][3]

    @property
    def asked(self) -> Any:
        return orjson.loads(self.last)


async def ask(app: Running, path: str = CHAT, **document: Any) -> httpx.Response:
    said = {"messages": SAID} if path == CHAT and "messages" not in document else {}
    return await app.client.post(app.url + path, json={"model": "m", **said, **document})


def serve(tmp_path: Path, model: Model, test: Any, *asked: Any, **options: Any) -> None:
    async def main() -> None:
        async with serving(model) as url:
            async with running(capped_model(url, *asked, **options), tmp_path) as app:
                await test(app)

    run(main)


async def held_nano(app: Running, reply: httpx.Response) -> int:
    story = await app.get(f"/_tollway/decisions/{reply.headers['x-tollway-decision']}")
    held: int = story["attempts"][-1]["reserved_nano"]["b"]
    return held


def test_a_limit_that_the_budget_holds_is_written_into_a_request_without_one(
    tmp_path: Path,
) -> None:
    model = Model()
    odd = b' {"model": "m" ,"seed":123456789012345678901234567890, "a":1,"a":2,\n"messages":[{}]}'

    async def test(app: Running) -> None:
        fields = {"content-type": "application/json"}
        reply = await app.client.post(app.url + CHAT, content=odd, headers=fields)
        assert reply.headers["x-tollway-output-limit"] == "4096"
        assert model.last == odd.replace(b"{", b'{"max_tokens":4096,', 1)  # every other byte stays
        story = await app.get(f"/_tollway/decisions/{reply.headers['x-tollway-decision']}")
        assert story["attempts"][0]["output_limit"] == 4096
        assert any("limited each of its answers to 4096 tokens" in one for one in story["story"])
        assert await held_nano(app, reply) == 4096 * 10_000 + len(odd) * 1000

    serve(tmp_path, model, test, 0.4)


@pytest.mark.parametrize(
    ("limit_usd", "backend", "enforcement", "asked"),
    [
        (1000.0, "max_output_tokens = 8192", "hard", {}),
        (1000.0, "max_output_tokens = 8192", "hard", {"max_tokens": 100_000}),
        (1000.0, "context_tokens = 128_000", "hard", {}),
        (0.4, "", "hard", {"max_tokens": 50}),
        (0.4, "", "hard", {"max_completion_tokens": 50, "max_tokens": None}),
        (0.4, "", "expected", {}),
        (0.4, "", "expected", {"max_tokens": 100_000}),
        (0.4, "", "soft", {"max_tokens": -1}),
    ],
)
def test_a_request_is_rewritten_only_where_a_hard_budget_needs_it(
    tmp_path: Path, limit_usd: float, backend: str, enforcement: str, asked: dict[str, Any]
) -> None:
    model = Model()

    async def test(app: Running) -> None:
        sent = orjson.dumps({"model": "m", "messages": SAID, **asked})
        fields = {"content-type": "application/json"}
        reply = await app.client.post(app.url + CHAT, content=sent, headers=fields)
        assert reply.status_code == 200
        assert model.last == sent
        assert "x-tollway-output-limit" not in reply.headers

    serve(tmp_path, model, test, limit_usd, backend, enforcement=enforcement)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"max_tokens": 100_000}, {"max_tokens": 4096}),
        ({"max_tokens": None}, {"max_tokens": 4096}),
        ({"max_tokens": -1}, {"max_tokens": 4096}),  # some servers take it for no limit
        ({"max_tokens": "7"}, {"max_tokens": 4096}),
        ({"max_tokens": 7, "max_completion_tokens": 9000}, {"max_completion_tokens": 4096}),
        ({"max_output_tokens": 7}, {"max_tokens": 4096}),  # chat servers do not know it
    ],
)
def test_a_limit_that_cannot_be_held_or_relied_on_is_lowered_in_place(
    tmp_path: Path, asked: dict[str, Any], sent: dict[str, Any]
) -> None:
    model = Model()

    async def test(app: Running) -> None:
        reply = await ask(app, **asked)
        assert reply.headers["x-tollway-output-limit"] == "4096"
        assert model.asked == {"model": "m", "messages": SAID, **asked, **sent}

    serve(tmp_path, model, test, 0.4)


def test_each_of_several_answers_counts(tmp_path: Path) -> None:
    model = Model(writes=100)

    async def test(app: Running) -> None:
        reply = await ask(app, n=4, max_tokens=1000)
        held = 4 * 1000 * 10_000 + len(model.last) * 1000
        assert await held_nano(app, reply) == held
        assert "x-tollway-output-limit" not in reply.headers
        for many in (True, 0, 2.5, "4"):
            assert (await ask(app, n=many)).status_code == 422

    serve(tmp_path, model, test, 0.4)


def test_responses_have_a_limit_of_their_own_name(tmp_path: Path) -> None:
    model = Model()

    async def test(app: Running) -> None:
        await ask(app, RESPONSES, input="hi", max_tokens=1)  # which is no limit there
        assert model.asked["max_output_tokens"] == 4096

    serve(tmp_path, model, test, 0.4)


def test_embeddings_have_no_output_to_limit(tmp_path: Path) -> None:
    model = Model()

    async def test(app: Running) -> None:
        reply = await ask(app, "/v1/embeddings", input="hi")
        assert model.asked == {"model": "m", "input": "hi"}
        assert await held_nano(app, reply) == len(model.last) * 1000

    serve(tmp_path, model, test, 0.4)


def test_a_backend_that_refuses_max_tokens_is_sent_the_other_name_from_then_on(
    tmp_path: Path,
) -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. "
    model = Model(refuses=("max_tokens", said + "Use 'max_completion_tokens' instead."))

    async def test(app: Running) -> None:
        for calls in (2, 3):
            reply = await ask(app)
            assert reply.status_code == 200
            assert model.calls == calls
            assert "max_completion_tokens" in model.asked
            assert "max_tokens" not in model.asked
            story = await app.get(f"/_tollway/decisions/{reply.headers['x-tollway-decision']}")
            assert len(story["attempts"]) == 1  # the refused call is no attempt, and free
        own = await ask(app, max_tokens=50)  # the client's own mistake is the client's to hear
        assert own.status_code == 400
        assert model.calls == 4

    serve(tmp_path, model, test, 0.4)


def test_a_backend_that_refuses_a_large_limit_is_sent_a_smaller_one_from_then_on(
    tmp_path: Path,
) -> None:
    model = Model(most=3000)

    async def test(app: Running) -> None:
        first, second = await ask(app), await ask(app)
        assert [one.headers["x-tollway-output-limit"] for one in (first, second)] == ["1500"] * 2
        assert model.calls == 3

    serve(tmp_path, model, test, 0.4)


def test_a_limit_that_the_backend_is_not_sent_bounds_nothing(tmp_path: Path) -> None:
    model = Model()

    async def test(app: Running) -> None:
        reply = await ask(app, max_tokens=5)
        assert model.asked == {"max_completion_tokens": 4096, "model": "m", "messages": SAID}
        assert reply.headers["x-tollway-output-limit"] == "4096"

    serve(tmp_path, model, test, 0.4, 'drop_fields = ["max_tokens"]')


def test_what_a_request_refers_to_is_bounded_by_the_context_or_refused(tmp_path: Path) -> None:
    model = Model()
    asked = {"messages": [{"role": "user", "content": [IMAGE]}]}

    async def refused(app: Running) -> None:
        reply = await ask(app, **asked)
        assert reply.status_code == 422
        assert reply.headers["x-should-retry"] == "false"
        assert 'set context_tokens of [[backends]] "llm"' in reply.json()["error"]["message"]
        assert model.calls == 0
        assert (await ask(app)).status_code == 200

    async def bounded(app: Running) -> None:
        reply = await ask(app, max_tokens=10, **asked)
        assert reply.status_code == 200
        assert await held_nano(app, reply) == 8000 * 1000 + 10 * 10_000

    serve(tmp_path, model, refused, 0.4)
    serve(tmp_path, model, bounded, 0.4, "context_tokens = 8000")


def test_other_protocols_that_sell_tokens_need_declared_bounds(tmp_path: Path) -> None:
    model = Model(body=b'{"answer": 1}')

    async def refused(app: Running) -> None:
        reply = await app.client.post(app.url + "/v1/p", json={"x": 1})
        assert reply.status_code == 422
        assert "max_output_tokens" in reply.text or "context_tokens" in reply.text
        assert model.calls == 0

    async def bounded(app: Running) -> None:
        reply = await app.client.post(app.url + "/v1/p", json={"x": 1})
        assert reply.status_code == 200
        assert await held_nano(app, reply) == 1000 * 1000 + 100 * 10_000

    declared = "context_tokens = 1000\nmax_output_tokens = 100"
    serve(tmp_path, model, refused, 0.4, protocol="plain")
    serve(tmp_path, model, bounded, 0.4, declared, protocol="plain")


def test_the_last_money_buys_a_shorter_answer_and_then_none(tmp_path: Path) -> None:
    model = Model(writes=10_000)

    async def test(app: Running) -> None:
        first = await ask(app)
        assert first.headers["x-tollway-output-limit"] == "4096"  # $0.041 of $0.06
        last = await ask(app)
        assert 1000 < int(last.headers["x-tollway-output-limit"]) < 2000
        spent = await ask(app)
        assert spent.status_code == 402
        [told] = (await app.get("/_tollway/budgets"))["budgets"]
        assert told["overdraft_nano"] == 0
        assert told["spent_nano"] > 0.99 * told["limit_nano"]

    serve(tmp_path, model, test, 0.06)


def test_short_answers_let_a_small_budget_serve_many_at_once(tmp_path: Path) -> None:
    """Each could cost $1.60 by the backend's own limit."""
    model = Model(writes=100)

    async def test(app: Running) -> None:
        for _ in range(40):
            assert (await ask(app)).status_code == 200
        model.hold = asyncio.Event()
        before = model.calls
        asked = [asyncio.create_task(ask(app)) for _ in range(32)]
        await until(lambda: model.calls >= before + 32)
        model.hold.set()
        assert {(await one).status_code for one in asked} == {200}

    serve(tmp_path, model, test, 0.4, "max_output_tokens = 160_000")
