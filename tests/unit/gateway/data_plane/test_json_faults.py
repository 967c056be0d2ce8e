"""Invalid JSON from clients and backends is refused or passed on, and always settled."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.fuzz.onward import QUOTE, priced_backends
from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, inference, run, running, serving
from tollway.backends.documents import DEPTH_MAX, load_request, shown
from tollway.backends.errors import BadRequest
from tollway.backends.protocols.registry import protocol
from tollway.backends.types import Payload
from tollway.gateway.estimation.token_rate import TokenRate
from tollway.gateway.routing.metering import ESTIMATED, Ending, evaluate_stream

DEEP = b"[" * 900 + b"]" * 900
HUGE = b"9" * 1_000_000

REQUESTS = {
    "deep": DEEP,
    "deep inside": b'{"inputs":' + DEEP + b"}",
    "deep objects": b'{"a":' * 900 + b"1" + b"}" * 900,
    "without end": b"[" * 100_000,
    "a number of a million digits": b'{"inputs":' + HUGE + b"}",
    "two documents": b"{}{}",
    "a comment": b"{} // yes",
}

# Each could be read as a reply of the protocol, but for its fault.
REPLIES = {
    "deep": b'{"outputs":' + DEEP + b"}",
    "a number of a million digits": b'{"outputs":' + HUGE + b"}",
    "NaN": b'{"outputs":[{"name":"label","shape":[1],"datatype":"FP32","data":[NaN]}]}',
}


@pytest.mark.integration
def test_invalid_json_is_a_400_and_reaches_no_backend(tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with (
            serving(upstream) as url,
            running(two_backends(url, url), tmp_path) as tollway,
        ):
            for name, body in REQUESTS.items():
                reply = await tollway.client.post(tollway.url + "/v2/models/m/infer", content=body)
                assert reply.status_code == 400, name
                assert len(reply.content) < 1000, name
            twice = b'{"inputs": [], "inputs": %b}' % orjson.dumps(inference()["inputs"])
            reply = await tollway.client.post(tollway.url + "/v2/models/m/infer", content=twice)
            assert reply.status_code == 200  # the last counts, here and in the models we know
        assert upstream.calls == 1

    run(main)


@pytest.mark.integration
@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_that_cannot_be_read_is_passed_on_and_charged_once(
    tmp_path: Path, name: str
) -> None:
    async def main() -> None:
        sound = Upstream()
        async with serving(Upstream(body=REPLIES[name])) as bad, serving(sound) as good:
            toml = two_backends(bad, good, more=budget("all", "1", more='window = "lifetime"'))
            async with running(toml, tmp_path) as tollway:
                reply = await tollway.infer()
                assert reply.status_code == 200
                assert reply.content == REPLIES[name]
                assert reply.headers["x-tollway-backend"] == "cheap"
                assert reply.headers["x-tollway-cost-usd"] == "0.000100000"
                (status,) = (await tollway.get("/_tollway/budgets"))["budgets"]
                assert status["spent_nano"] == 100_000
        assert sound.calls == 0

    run(main)


@pytest.mark.integration
def test_feedback_and_changes_in_invalid_json_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as url:
            toml = two_backends(url, url, more=budget("all", "1", more='window = "lifetime"'))
            async with running(toml, tmp_path) as tollway:
                reply = await tollway.infer()
                decision = reply.headers["x-tollway-decision"].encode()
                label = b'{"decision":"%b","label":' % decision + DEEP + b"}"
                for path, body, status in (
                    ("feedback", label, 400),
                    ("feedback", DEEP, 400),
                    ("budgets/all", b'{"action":[]}', 422),
                    ("budgets/all", change("1e999980"), 422),
                    ("budgets/all", change("1e9999999"), 422),
                    ("budgets/all", change("nan"), 422),
                ):
                    answer = await tollway.client.post(
                        f"{tollway.url}/_tollway/{path}",
                        content=body,
                        headers={"content-type": "application/json"},
                    )
                    assert answer.status_code == status, (path, body[:80])

    run(main)


def change(dollars: str) -> bytes:
    told = {"action": "credit", "amount_usd": dollars, "who": "a", "why": "b"}
    return orjson.dumps(told)


@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
def test_the_limit_of_levels_is_one_that_all_processing_can_take(
    opened: bytes,
) -> None:
    closed = b"]" if opened == b"[" else b"}"
    for depth, allowed in ((DEPTH_MAX, True), (DEPTH_MAX + 1, False)):
        body = opened * depth + (b"1" if closed == b"}" else b"") + closed * depth
        if allowed:
            load_request(body)
        else:
            with pytest.raises(BadRequest, match="nested too deeply"):
                load_request(body)
    load_request(b"[" + b"[]," * 1000 + b"[]]")  # many, and not deep


@pytest.mark.parametrize(
    "value", [None, 5, "x" * 10, [1, "a", {"b": [None, 2.5]}], {"a": {}}, [], b"raw", ("t",)]
)
def test_a_short_value_is_shown_as_it_is(value: Any) -> None:
    assert shown(value) == repr(value)


def test_only_the_shown_part_of_a_long_value_is_read() -> None:
    class Watched(list[int]):
        read = 0

        def __iter__(self) -> Any:
            for element in super().__iter__():
                self.read += 1
                yield element

    watched = Watched(range(100_000))
    assert shown(watched).endswith("...")
    assert len(shown({"a": [["x" * 500]]})) == 80
    assert watched.read < 100
    assert len(shown(orjson.loads(b"[" * 1000 + b"]" * 1000))) == 80


@pytest.mark.parametrize("told", [b"soon", b"nan", b"-1", b"1e300", b""])
def test_a_stream_with_an_invalid_head_is_settled_too(told: bytes) -> None:
    follower = protocol("openai").follow(Payload({"model": "m", "stream": True}))
    assert follower is not None
    follower.feed(b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n')
    follower.feed(b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1e300}}\n\n')
    for backend in priced_backends("openai"):
        outcome = evaluate_stream(
            backend,
            follower,
            [(b"x-device-seconds", told)],
            Ending(latency_s=0.1, silence_s=0.0, whole=True),
            quote=replace(QUOTE, expected_nano=7),
            rate=TokenRate(),
        )
        assert outcome.answer.value == "a"
        assert math.isfinite(outcome.cost_nano)
        if not backend.price.is_fixed:
            assert outcome.provenance == ESTIMATED
            assert outcome.cost_nano >= 7
