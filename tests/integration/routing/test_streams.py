"""Streams are relayed event by event, priced by their usage, and settled once."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.harness import Running, run, running, serving
from tests.support.http_client import http_client
from tests.support.streams import ASK, CONFIG, END, Model, chunk, row_of, usage
from tests.support.until import still
from tollway.backends.protocols.openai.protocol import Stream
from tollway.backends.types import Headers

pytestmark = pytest.mark.integration


async def spent(tollway: Running) -> int:
    (budget,) = (await tollway.get("/_tollway/budgets"))["budgets"]
    assert budget["held_nano"] >= 0
    nano: int = budget["spent_nano"]
    return nano


def test_chunks_arrive_as_they_come_and_the_usage_is_charged_and_hidden(tmp_path: Path) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        model = Model(chunk("Hel"), chunk("lo"), chunk("", "stop"), usage(100, 50), END, gate=gate)
        async with serving(model) as url:
            async with running(CONFIG.format(one=url, two=url, route=""), tmp_path) as tollway:
                path = tollway.url + "/v1/chat/completions"
                async with tollway.client.stream("POST", path, json=ASK) as reply:
                    pieces = reply.aiter_raw()
                    assert await anext(pieces) == chunk("Hel")
                    assert not gate.is_set()  # the rest is not even written yet
                    assert reply.headers["x-tollway-backend"] == "one"
                    assert float(reply.headers["x-tollway-quote-usd"]) > 0
                    assert "x-tollway-cost-usd" not in reply.headers
                    gate.set()
                    rest = b"".join([piece async for piece in pieces])
                assert rest == chunk("lo") + chunk("", "stop") + END
                assert model.asked[0]["stream_options"] == {"include_usage": True}
                attempt = await row_of(tollway, reply.headers["x-tollway-decision"])
                assert attempt["cost_nano"] == 100 * 1000 + 50 * 10_000
                assert attempt["provenance"] == "usage"
                assert attempt["answer"] == "Hello"
                assert await spent(tollway) == 600_000
                assert (await tollway.get("/_tollway/spend"))["cost_nano"] == 600_000

    run(main)


@pytest.mark.parametrize("label", [None, b"text/plain", b"application/octet-stream"])
def test_a_stream_that_is_not_labelled_as_one_is_relayed_and_charged_as_one(
    label: bytes | None, tmp_path: Path
) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        model = Model(
            chunk("Hel"), chunk("lo", "stop"), usage(100, 50), END, gate=gate, label=label
        )
        async with serving(model) as url:
            async with running(CONFIG.format(one=url, two=url, route=""), tmp_path) as tollway:
                path = tollway.url + "/v1/chat/completions"
                async with tollway.client.stream("POST", path, json=ASK) as reply:
                    assert reply.headers["content-type"] == "text/event-stream"
                    parts = reply.aiter_raw()
                    got = await anext(parts)
                    assert got == chunk("Hel")  # before the rest is made
                    gate.set()
                    async for part in parts:
                        got += part
                assert got == chunk("Hel") + chunk("lo", "stop") + END
                attempt = await row_of(tollway, reply.headers["x-tollway-decision"])
                assert (attempt["cost_nano"], attempt["provenance"]) == (600_000, "usage")

    run(main)


def test_a_client_that_requests_the_usage_gets_it(tmp_path: Path) -> None:
    async def main() -> None:
        model = Model(chunk("x", "stop"), usage(1, 1), END)
        async with serving(model) as url:
            async with running(CONFIG.format(one=url, two=url, route=""), tmp_path) as tollway:
                asking = {**ASK, "stream_options": {"include_usage": True}}
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=asking)
                assert usage(1, 1) in reply.content

    run(main)


def test_a_client_that_leaves_stops_the_model_and_is_charged_for_what_was_generated(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        model = Model(chunk("a") + chunk("b") + chunk("c"), END, gate=asyncio.Event())
        async with serving(model) as url:
            async with running(CONFIG.format(one=url, two=url, route=""), tmp_path) as tollway:
                path = tollway.url + "/v1/chat/completions"
                async with http_client() as leaver:
                    async with leaver.stream("POST", path, json=ASK) as reply:
                        await anext(reply.aiter_raw())
                    decision = reply.headers["x-tollway-decision"]
                await asyncio.wait_for(model.left.wait(), 10)
                attempt = await row_of(tollway, decision)
                assert attempt["provenance"] == "estimated"
                assert attempt["output_tokens"] == 3
                assert attempt["error"] == ""
                assert 30_000 < attempt["cost_nano"] == await spent(tollway)

    run(main)


def test_a_stream_that_raises_an_internal_error_is_charged_by_its_quote_and_leaves_nothing_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(follower: Stream, headers: Headers) -> None:
        raise TypeError("of ours")

    async def main() -> None:
        monkeypatch.setattr(Stream, "reported_usage", mistake)
        async with serving(Model(chunk("a", "stop"), END)) as url:
            async with running(CONFIG.format(one=url, two=url, route=""), tmp_path) as tollway:
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=ASK)
                attempt = await row_of(tollway, reply.headers["x-tollway-decision"])
                assert attempt["error"] == "unreadable: TypeError"
                assert 0 < attempt["cost_nano"] == await spent(tollway)

    run(main)


def test_a_stream_that_breaks_off_says_so_and_does_not_end_cleanly(tmp_path: Path) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        model = Model(chunk("a"), chunk("b"), cut=True, gate=gate)
        async with serving(model) as url:
            async with running(CONFIG.format(one=url, two=url, route=""), tmp_path) as tollway:
                path = tollway.url + "/v1/chat/completions"
                got = b""
                with pytest.raises(httpx.RemoteProtocolError):
                    async with tollway.client.stream("POST", path, json=ASK) as reply:
                        async for piece in reply.aiter_raw():
                            got += piece
                            gate.set()
                assert got.startswith(chunk("a") + chunk("b"))
                last = orjson.loads(got.rsplit(b"data: ", 1)[1])
                assert last["error"]["message"]
                attempt = await row_of(tollway, reply.headers["x-tollway-decision"])
                assert attempt["error"]
                assert attempt["cost_nano"] >= 20_000

    run(main)


@pytest.mark.parametrize("last", [b"", usage(3, 2), usage(3, 2).rstrip()])
def test_a_stream_is_complete_when_its_body_is_even_without_an_end_marker(
    last: bytes, tmp_path: Path
) -> None:
    async def main() -> None:
        model = Model(chunk("a"), *[last] * bool(last))  # no [DONE], no finish reason
        async with serving(model) as url:
            async with running(CONFIG.format(one=url, two=url, route=""), tmp_path) as tollway:
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=ASK)
                assert reply.content == chunk("a")
                attempt = await row_of(tollway, reply.headers["x-tollway-decision"])
                assert attempt["error"] == ""
                assert attempt["provenance"] == ("usage" if last else "estimated")
                if last:
                    assert attempt["cost_nano"] == 3 * 1000 + 2 * 10_000

    run(main)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b": ping\n\n",
        b'data: {"error": {"message": "no memory"}}\n\n',
        b': ping\n\ndata: {"error": {"message": "no memory"}}\n\n',
        b"data: x" * 200_000,
    ],
)
def test_what_fails_before_its_first_event_goes_to_the_fallback(
    first: bytes, tmp_path: Path
) -> None:
    async def main() -> None:
        bad = Model(*([first] if first else []))
        good = Model(chunk("fine", "stop"), usage(10, 1), END)
        # `fixed` ranks no other arm: the weights do.
        route = "fallback = true"
        async with serving(bad) as one, serving(good) as two:
            config = CONFIG.format(one=one, two=two, route=route)
            config = config.replace(
                "allow_anonymous = true", "allow_anonymous = true\nmax_event_bytes = 1_000_000"
            )
            async with running(config, tmp_path) as tollway:
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=ASK)
                assert reply.content == chunk("fine", "stop") + END
                assert reply.headers["x-tollway-backend"] == "two"
                assert reply.headers["x-tollway-reason"] == "fallback"

    run(main)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"error": {"message": "bad image", "type": "invalid_request_error", "code": 400}}, 400),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, 529),
        ({"type": "error", "code": "server_error", "message": "boom"}, 500),
        ({"object": "error", "message": "slow", "type": "RateLimitError", "code": 429}, 429),
    ],
)
def test_a_first_event_that_is_an_error_reaches_the_client_as_the_reply_it_stands_for(
    event: dict[str, Any], status: int, tmp_path: Path
) -> None:
    async def main() -> None:
        bad = Model(b"data: %b\n\n" % orjson.dumps(event))
        async with serving(bad) as url:
            config = CONFIG.format(one=url, two=url, route="").replace('["one", "two"]', '["one"]')
            async with running(config, tmp_path) as tollway:
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=ASK)
                assert reply.status_code == status
                assert reply.headers["content-type"] == "application/json"
                assert reply.headers["x-tollway-cost-usd"] == "0.000000000"
                said = event.get("error", event)
                assert reply.json()["error"]["message"] == said["message"]

    run(main)


def test_a_gateway_error_that_a_first_event_reports_opens_no_breaker(tmp_path: Path) -> None:
    async def main() -> None:
        bad = Model(b'data: {"error": {"message": "provider", "code": 502}}\n\n')
        async with serving(bad) as url:
            config = CONFIG.format(one=url, two=url, route="").replace('["one", "two"]', '["one"]')
            async with running(config, tmp_path) as tollway:
                for _ in range(8):
                    path = tollway.url + "/v1/chat/completions"
                    assert (await tollway.client.post(path, json=ASK)).status_code == 502
                assert len(bad.asked) == 8

    run(main)


def test_a_stream_whose_first_event_is_late_goes_to_the_fallback(tmp_path: Path) -> None:
    async def main() -> None:
        late = Model(b"data: ", chunk("never"), gate=asyncio.Event())
        good = Model(chunk("fine", "stop"), usage(10, 1), END)
        async with serving(late) as one, serving(good) as two:
            config = CONFIG.format(one=one, two=two, route="")
            config = config.replace('name = "one"', 'name = "one"\nfirst_byte_timeout_s = 0.2')
            async with running(config, tmp_path) as tollway:
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=ASK)
                assert reply.headers["x-tollway-backend"] == "two"
                await asyncio.wait_for(late.left.wait(), 10)  # its connection is closed

    run(main)


@pytest.mark.parametrize("text", ["Hello", "Hello" * 100_000], ids=["short", "long"])
def test_a_cascade_that_holds_all_of_a_stream_still_sends_it_as_a_stream(
    text: str, tmp_path: Path
) -> None:
    async def main() -> None:
        model = Model(chunk(text, "stop"), usage(100, 50), END)
        route = "cascade = true\nconfidence = { hold_tokens = 0 }"
        async with serving(model) as url:
            config = CONFIG.format(one=url, two=url, route=route).replace(
                'policy = "fixed"\npolicy_options = { arm = "one" }\n', ""
            )
            async with running(config, tmp_path) as tollway:
                reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=ASK)
                assert reply.content == chunk(text, "stop") + END
                assert float(reply.headers["x-tollway-cost-usd"]) >= 0.0006

    run(main)


def test_a_slow_client_slows_the_model(tmp_path: Path) -> None:
    async def main() -> None:
        parts = [chunk("x" * 60_000) for _ in range(400)]
        model = Model(*parts, usage(1, 400), END)
        async with serving(model) as url:
            async with running(CONFIG.format(one=url, two=url, route=""), tmp_path) as tollway:
                path = tollway.url + "/v1/chat/completions"
                async with tollway.client.stream("POST", path, json=ASK) as reply:
                    pieces = reply.aiter_raw()
                    first = await anext(pieces)
                    assert await still(lambda: model.written) < 300
                    size = len(first) + sum([len(piece) async for piece in pieces])
                assert model.written == 402
                assert size >= sum(map(len, parts))

    run(main)
