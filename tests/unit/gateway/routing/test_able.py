"""A request goes only to backends that support its features."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.harness import Running, run, running, serving
from tollway.backends.needs import Needs
from tollway.gateway.routing.capabilities import no_larger, unable
from tollway.gateway.settings import ConfigError, parse
from tollway.gateway.wiring.backends import build_backend

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "small"
kind = "api"
protocol = "openai"
url = "{small}"
price = {{ per_request_usd = 0.0001 }}
{small_is}

[[backends]]
name = "large"
kind = "api"
protocol = "openai"
url = "{large}"
price = {{ per_request_usd = 0.001 }}
{large_is}

[[routes]]
name = "r"
path = "/v1/*"
protocol = "openai"
backends = ["small", "large"]
policy = "cheapest"
{route}
"""

IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
TOO_LONG = {"error": {"message": "too long", "code": "context_length_exceeded"}}


class Model:
    """Answers with its name; refuses what has more than `most` characters, and counts calls."""

    def __init__(self, most: int = 10**9) -> None:
        self.most = most
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.calls += 1
        status, choice = 200, {"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}
        reply: dict[str, Any] = {"choices": [choice]}
        if len(body) > self.most:
            status, reply = 400, TOO_LONG
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": orjson.dumps(reply)})


def serve(
    small: Model,
    large: Model,
    test: Any,
    folder: Path,
    *,
    small_is: str = "",
    large_is: str = "",
    route: str = "",
) -> None:
    async def main() -> None:
        async with serving(small) as one, serving(large) as two:
            toml = CONFIG.format(
                small=one, large=two, small_is=small_is, large_is=large_is, route=route
            )
            async with running(toml, folder) as tollway:
                await test(tollway)

    run(main)


async def ask(tollway: Running, content: Any = "hello", **more: Any) -> httpx.Response:
    document = {"model": "m", "messages": [{"role": "user", "content": content}], **more}
    return await tollway.client.post(tollway.url + "/v1/chat/completions", json=document)


async def told(tollway: Running, reply: httpx.Response) -> Any:
    return await tollway.get(f"/_tollway/decisions/{reply.headers['x-tollway-decision']}")


@pytest.mark.integration
def test_a_backend_that_lacks_what_is_asked_is_left_out_and_the_decision_says_so(
    tmp_path: Path,
) -> None:
    small, large = Model(), Model()

    async def test(tollway: Running) -> None:
        plain = await ask(tollway)
        assert plain.headers["x-tollway-backend"] == "small"
        assert "left_out" not in (await told(tollway, plain))["stages"][0]
        seen = await ask(tollway, IMAGE)
        assert (seen.status_code, seen.headers["x-tollway-backend"]) == (200, "large")
        decision = await told(tollway, seen)
        assert decision["stages"][0]["left_out"] == {"small": "lacks vision"}
        assert [one["arm"] for one in decision["stages"][0]["offered"]] == ["large"]
        assert any("small lacks vision" in sentence for sentence in decision["story"])
        assert small.calls == 1

    serve(small, large, test, tmp_path, small_is='lacks = ["vision"]')


@pytest.mark.integration
def test_what_no_backend_can_do_is_refused_and_the_refusal_says_what_is_lacking(
    tmp_path: Path,
) -> None:
    small, large = Model(), Model()

    async def test(tollway: Running) -> None:
        reply = await ask(tollway, IMAGE, n=2)
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "not_supported")
        assert "small lacks n, vision; large lacks vision" in error["message"]
        assert small.calls == large.calls == 0
        metrics = (await tollway.client.get(tollway.url + "/metrics")).text
        assert 'outcome="client_error"' in metrics

    lacking = {"small_is": 'lacks = ["vision", "n"]', "large_is": 'lacks = ["vision"]'}
    serve(small, large, test, tmp_path, **lacking)


@pytest.mark.integration
@pytest.mark.parametrize("route", ["", 'fallbacks = ["small", "large"]'])
def test_a_fallback_goes_to_no_backend_that_cannot_do_it(tmp_path: Path, route: str) -> None:
    small = Model()

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def test(tollway: Running) -> None:
        reply = await ask(tollway, IMAGE)
        assert reply.status_code >= 500
        assert small.calls == 0

    serve(small, broken, test, tmp_path, small_is='lacks = ["vision"]', route=route)  # type: ignore[arg-type]


@pytest.mark.integration
def test_a_request_that_cannot_fit_goes_to_a_larger_context(tmp_path: Path) -> None:
    small, large = Model(), Model()

    async def test(tollway: Running) -> None:
        assert (await ask(tollway, 5000 * "x")).headers["x-tollway-backend"] == "small"
        assert (await ask(tollway, 7000 * "x")).headers["x-tollway-backend"] == "large"
        reply = await ask(tollway, "x", max_tokens=1001)
        assert reply.headers["x-tollway-backend"] == "large"

    serve(small, large, test, tmp_path, small_is="context_tokens = 1000")


@pytest.mark.integration
def test_what_fits_nowhere_by_the_estimate_goes_to_the_largest_context(tmp_path: Path) -> None:
    small, large = Model(), Model(most=10_000)

    async def test(tollway: Running) -> None:
        reply = await ask(tollway, 90_000 * "x")
        assert (reply.status_code, reply.json()) == (400, TOO_LONG)
        assert (small.calls, large.calls) == (0, 1)

    sizes = {"small_is": "context_tokens = 1000", "large_is": "context_tokens = 4000"}
    serve(small, large, test, tmp_path, **sizes)


@pytest.mark.integration
@pytest.mark.parametrize("route", ["", 'fallbacks = ["small", "large"]'])
def test_what_a_backend_refuses_as_too_long_goes_to_a_larger_context_and_no_breaker_counts_it(
    tmp_path: Path, route: str
) -> None:
    small, large = Model(most=1000), Model()

    async def test(tollway: Running) -> None:
        for _ in range(8):
            reply = await ask(tollway, 2000 * "x")
            assert (reply.status_code, reply.headers["x-tollway-backend"]) == (200, "large")
            attempts = (await told(tollway, reply))["attempts"]
            assert (attempts[0]["status"], attempts[0]["cost_nano"]) == (400, 0)
        assert (await ask(tollway)).headers["x-tollway-backend"] == "small"

    serve(small, large, test, tmp_path, small_is="context_tokens = 1000", route=route)


@pytest.mark.integration
@pytest.mark.parametrize("route", ["", "fallback = false", "static_response = '{}'"])
def test_without_a_larger_context_the_client_gets_the_refusal(tmp_path: Path, route: str) -> None:
    small, large = Model(most=1000), Model(most=1000)

    async def test(tollway: Running) -> None:
        reply = await ask(tollway, 2000 * "x")
        assert (reply.status_code, reply.json()) == (400, TOO_LONG)
        assert (small.calls, large.calls) == (1, 0)

    sizes = {"small_is": "context_tokens = 1000", "large_is": "context_tokens = 1000"}
    serve(small, large, test, tmp_path, **sizes, route=route)


def backends(small_is: str, large_is: str) -> Any:
    url = "http://127.0.0.1:1"
    toml = CONFIG.format(small=url, large=url, small_is=small_is, large_is=large_is, route="")
    return {one.name: build_backend(one) for one in parse(toml, {}).backends}


def test_a_context_that_is_not_declared_may_be_of_any_size() -> None:
    async def main() -> None:
        both = backends("context_tokens = 10", "")
        assert list(unable(both, Needs(input_tokens=50.0))) == ["small"]
        assert no_larger(both, "small") == {}
        assert no_larger(both, "large") == {}
        both = backends("context_tokens = 10", "context_tokens = 10")
        assert unable(both, Needs(input_tokens=50.0)) == {}
        assert list(no_larger(both, "small")) == ["large"]
        both = backends('lacks = ["n"]', "context_tokens = 10")
        assert list(unable(both, Needs(frozenset("n"), 50.0))) == ["small"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "key,said",
    [
        ('lacks = ["visoin"]', "did you mean 'vision'?"),
        ("context_tokens = 0", "at least 1"),
        ('drop_fields = ["model"]', "must not contain 'model'"),
        ('drop_fields = ["a..b"]', "write it like a.b"),
    ],
)
def test_what_a_backend_cannot_do_is_declared_from_a_closed_list(key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        backends(key, "")
