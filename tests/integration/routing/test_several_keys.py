"""A backend with several keys: turns by weight, a rest after 429, and a refused key."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Running, run, running, serving
from tests.support.scripted import Asked, Said, Scripted, document

pytestmark = pytest.mark.integration

CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "llm"
kind = "api"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 1, output_usd_per_mtok = 10 }}
keys = [
  {{ bearer_env = "TEST_KEY_A", weight = 3 }},
  {{ bearer_env = "TEST_KEY_B" }},
]

[[routes]]
name = "chat"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["llm"]
"""
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
A, B = "Bearer secret-key-a", "Bearer secret-key-b"


def answered() -> Said:
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "Hi!"}}
    used = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return document({"id": "c", "choices": [choice], "usage": used})


def refusal(status: int, **more: Any) -> Said:
    return document({"error": {"message": "no", "code": "x"}}, status, **more)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setenv("TEST_KEY_A", "secret-key-a")
    monkeypatch.setenv("TEST_KEY_B", "secret-key-b")

    def started(part: Callable[[Running, Scripted], Any], answer: Callable[[Asked], Said]) -> None:
        async def main() -> None:
            model = Scripted(answer)
            async with serving(model) as url:
                async with running(CONFIG.format(url=url), tmp_path) as on:
                    await part(on, model)

        run(main)

    return started


async def ask(on: Running) -> Any:
    return await on.client.post(f"{on.url}/v1/chat/completions", json=ASK)


def keys(model: Scripted) -> list[str]:
    return [asked.headers["authorization"] for asked in model.asked]


def test_keys_are_used_in_turn_by_their_weights(play: Callable[..., None]) -> None:
    async def part(on: Running, model: Scripted) -> None:
        for _ in range(8):
            assert (await ask(on)).status_code == 200
        assert Counter(keys(model)) == {A: 6, B: 2}
        assert keys(model)[:4] == [A, A, B, A]

    play(part, lambda asked: answered())


def test_a_key_that_is_limited_rests_and_the_call_is_repeated_with_another(
    play: Callable[..., None],
) -> None:
    async def part(on: Running, model: Scripted) -> None:
        for _ in range(4):
            reply = await ask(on)
            assert reply.status_code == 200
            assert reply.headers["x-tollway-cost-usd"] == "0.000060000"
        assert keys(model) == [A, B, B, B, B]
        assert on.gateway.backends["llm"].up

    def answer(asked: Asked) -> Said:
        if asked.headers["authorization"] == A:
            return refusal(429, headers=[("retry-after", "30")])
        return answered()

    play(part, answer)


def test_when_all_keys_rest_the_client_hears_when_the_first_may_go_on(
    play: Callable[..., None],
) -> None:
    async def part(on: Running, model: Scripted) -> None:
        first = await ask(on)
        assert (first.status_code, first.headers["retry-after"]) == (429, "20")
        assert keys(model) == [A, B]
        second = await ask(on)
        assert second.status_code == 429
        assert 0 < int(second.headers["retry-after"]) <= 20
        assert len(model.asked) == 2

    def answer(asked: Asked) -> Said:
        wait = "30" if asked.headers["authorization"] == A else "20"
        return refusal(429, headers=[("retry-after", wait)])

    play(part, answer)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_out_of_service_by_itself(play: Callable[..., None], status: int) -> None:
    async def part(on: Running, model: Scripted) -> None:
        for _ in range(3):
            assert (await ask(on)).status_code == 200
        assert keys(model) == [A, B, B, B]
        assert on.gateway.backends["llm"].up
        (event,) = [
            one for one in on.gateway.events.newest() if one["kind"] == "credential_rejected"
        ]
        assert "keys[0].bearer_env" in event["text"]
        assert "secret-key" not in event["text"]

    def answer(asked: Asked) -> Said:
        return refusal(status) if asked.headers["authorization"] == A else answered()

    play(part, answer)


def test_when_all_keys_are_refused_the_client_gets_a_502(play: Callable[..., None]) -> None:
    async def part(on: Running, model: Scripted) -> None:
        for _ in range(2):
            reply = await ask(on)
            assert (reply.status_code, reply.json()["error"]["code"]) == (
                502,
                "credential_rejected",
            )
        assert keys(model) == [A, B]
        assert not on.gateway.backends["llm"].up

    play(part, lambda asked: refusal(401))


def test_an_overload_is_the_servers_and_not_the_keys(play: Callable[..., None]) -> None:
    async def part(on: Running, model: Scripted) -> None:
        assert (await ask(on)).status_code == 503
        assert len(model.asked) == 1
        assert (await ask(on)).status_code in (429, 503)
        assert len(model.asked) == 1

    play(part, lambda asked: refusal(503, headers=[("retry-after", "30")]))
