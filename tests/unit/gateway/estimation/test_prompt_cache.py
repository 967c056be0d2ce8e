"""Which prompts backends are assumed to have cached; conversations stay if that pays."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Running, run, running, serving
from tests.support.parrot import Parrot
from tollway.backends.protocols.openai import prompt as openai_prompt
from tollway.gateway import settings as config
from tollway.gateway.estimation.prompt_cache import FIRST, LAST, PromptCacheTracker, prompt
from tollway.gateway.wiring import build_backend
from tollway.gateway.wiring.states import States


def asked(*said: str, whose: str = "acme", **more: Any) -> Any:
    messages = [
        {"role": "assistant" if n % 2 else "user", "content": s} for n, s in enumerate(said)
    ]
    return prompt(openai_prompt.parts({"messages": messages, **more}), whose)


def test_a_conversation_is_cached_up_to_its_last_answer() -> None:
    cache = PromptCacheTracker(keeps_s=10)
    cache.saw(asked("0123456789"), 0.0)
    assert cache.covers(asked("0123456789"), 1.0) == 1.0
    assert cache.covers(asked("0123456789", "01234", "01234"), 1.0) == 0.5
    assert cache.covers(asked("012345678x", "01234", "01234"), 1.0) == 0.0
    assert cache.covers(asked("01234", "0123456789"), 1.0) == 0.0


@pytest.mark.parametrize(
    "other",
    [
        asked("hello", whose="umbrella"),
        asked("hello", prompt_cache_key="mine"),
        asked("hello", tools=[{"type": "function"}]),
    ],
)
def test_another_tenant_key_or_set_of_tools_is_another_prompt(other: Any) -> None:
    cache = PromptCacheTracker(keeps_s=10)
    cache.saw(asked("hello"), 0.0)
    assert cache.covers(other, 0.0) == 0.0


def test_a_cache_entry_expires_and_an_answer_renews_it() -> None:
    cache = PromptCacheTracker(keeps_s=10)
    cache.saw(asked("hello"), 0.0)
    assert cache.covers(asked("hello"), 9.9) == 1.0
    assert cache.covers(asked("hello"), 10.0) == 0.0
    cache.saw(asked("hello"), 8.0)
    assert cache.covers(asked("hello"), 17.9) == 1.0


def test_memory_is_bounded_and_the_least_recent_goes_first() -> None:
    cache = PromptCacheTracker(keeps_s=1e9, most=3)
    for number, said in enumerate(["a", "b", "c", "a", "d"]):
        cache.saw(asked(said), float(number))
    assert len(cache) == 3
    assert [cache.covers(asked(said), 9.0) for said in "abcd"] == [1.0, 0.0, 1.0, 1.0]


def test_the_beginning_and_the_end_of_a_long_conversation_are_kept() -> None:
    cache = PromptCacheTracker(keeps_s=10)
    said = ["0123456789"] * 40
    cache.saw(asked(*said), 0.0)
    assert len(cache) == FIRST + LAST
    assert cache.covers(asked(*said, "0" * 10), 1.0) == 40 / 41
    assert cache.covers(asked(said[0], "x" * 90), 1.0) == 0.1
    assert cache.covers(asked(*said[:-1], "changed..."), 1.0) == 39 / 40


def test_what_a_server_really_caches_is_learned() -> None:
    never, always = PromptCacheTracker(keeps_s=10), PromptCacheTracker(keeps_s=10)
    for cache, found in ((never, 0.0), (always, 1100.0)):
        cache.saw(asked("hello"), 0.0)
        assert cache.expects(asked("hello"), 0.0) == 1.0
        for _ in range(50):
            cache.learn(1000.0, found, asked("hello").owner)
    assert never.expects(asked("hello"), 0.0) < 0.05
    assert always.expects(asked("hello"), 0.0) == 1.0


def test_a_prompt_is_read_in_the_order_of_the_model() -> None:
    text = "x" * 1500
    blocks = [("x" * 1024, 1024), ("x" * 476, 476)]
    assert openai_prompt.parts({"prompt": text}) == blocks
    told = openai_prompt.parts({"input": [{"role": "user", "content": "hi"}], "instructions": "be"})
    assert told == [(b'"be"', 4), (("user", "hi"), 2)]
    image = {"role": "user", "content": [{"type": "image_url"}]}
    assert [size for _, size in openai_prompt.parts({"messages": [image]})] == [48]
    assert openai_prompt.parts(None) == []


CONFIG = """
[server]
allow_anonymous = true

[ledger]
url = "memory://"

[[backends]]
name = "holder"
kind = "gpu"
protocol = "openai"
url = "{one}"
price = {{ input_usd_per_mtok = 10, cached_input_usd_per_mtok = 1, output_usd_per_mtok = 0 }}
{holder}

[[backends]]
name = "other"
kind = "gpu"
protocol = "openai"
url = "{two}"
price = {{ input_usd_per_mtok = {other}, cached_input_usd_per_mtok = 0.1, output_usd_per_mtok = 0 }}

[[routes]]
name = "first"
path = "/first/v1/chat/completions"
protocol = "openai"
backends = ["holder"]

[[routes]]
name = "both"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["holder", "other"]
policy = "cheapest"
"""
LONG = {"role": "user", "content": "tell me of the sea " * 50}
MORE = [LONG, {"role": "assistant", "content": "it is wet"}, {"role": "user", "content": "and?"}]


async def ask(tollway: Running, path: str, *messages: Any, **more: Any) -> Any:
    document = {"model": "m", "messages": messages, **more}
    return await tollway.client.post(tollway.url + path, json=document)


def test_a_new_price_keeps_the_prompt_cache_and_a_new_address_does_not(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9001"
    text = CONFIG.format(one=url, two=url, other="9", holder="")
    states = States()

    def reloaded(text: str) -> PromptCacheTracker | None:
        stage = states.stage()
        settings = config.parse(text, {}, folder=tmp_path)
        backends = {b.name: build_backend(b, stage=stage) for b in settings.backends}
        stage.commit()
        return backends["other"].cache

    old = reloaded(text)
    assert reloaded(text.replace("= 9,", "= 8,")) is old
    moved = reloaded(text.replace(":9001", ":9002"))
    assert moved is not old
    assert moved is not None


@pytest.mark.integration
@pytest.mark.parametrize(
    ("other", "holder", "drawn"),
    [
        ("9", "", "holder"),  # more expensive for a new prompt, but cheaper here
        ("0.9", "", "other"),  # so much cheaper that the move pays
        ("9", "prompt_cache_s = 0", "other"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_stays_unless_the_gain_pays_for_the_move(
    other: str, holder: str, drawn: str, stream: bool, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(Parrot()) as one, serving(Parrot()) as two:
            text = CONFIG.format(one=one, two=two, other=other, holder=holder)
            async with running(text, tmp_path) as tollway:
                new = await ask(tollway, "/v1/chat/completions", *MORE)
                assert new.headers["x-tollway-backend"] == "other"
                said = [{"role": "user", "content": "unlike the one before"}, *MORE]
                await ask(tollway, "/first/v1/chat/completions", *said[:2], stream=stream)
                on = await ask(tollway, "/v1/chat/completions", *said)
                assert on.headers["x-tollway-backend"] == drawn
                told = await tollway.get(f"/_tollway/decisions/{on.headers['x-tollway-decision']}")
                stage, attempt = told["stages"][0], told["attempts"][0]
                if holder:
                    assert "cached" not in stage
                    return
                assert set(stage["cached"]) == {"holder"}
                costs = {arm["arm"]: arm["cost_hat_usd"] for arm in stage["offered"]}
                # Nearly all of it is cached, whatever a token is, at a tenth of the price.
                assert 0 < costs["holder"] < 10 / float(other) * costs["other"] * 0.2
                assert any("prompt caches" in sentence for sentence in told["story"])
                if drawn == "holder":
                    # How many tokens a prompt has is a guess before the first is counted.
                    foreseen = stage["cached"]["holder"] / attempt["cached_input_tokens"]
                    assert 0.5 < foreseen < 2
                    metrics = (await tollway.client.get(f"{tollway.url}/metrics")).text
                    counted = 'cached_input_tokens_total{backend="holder",route="both"'
                    assert f"tollway_{counted}" in metrics

    run(main)
