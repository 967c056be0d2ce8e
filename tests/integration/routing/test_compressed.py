"""Compressed replies are read, and sent to clients in a coding that they accept."""

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.configs import one_model
from tests.support.harness import Running, Upstream, run, running, serving

pytestmark = pytest.mark.integration

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
CHAT = orjson.dumps(
    {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hello"}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 50},
    }
)
COST = "0.000600000"
EVENTS = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "hello"}}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 50}}\n\n'
    b"data: [DONE]\n\n"
)


def packed(body: bytes, status: int = 200) -> Upstream:
    fields = [(b"content-encoding", b"gzip"), (b"etag", b'"1"')]
    return Upstream(body=gzip.compress(body), status=status, headers=fields)


async def raw(tollway: Running, accepts: str | None, **fields: str) -> tuple[dict[str, str], bytes]:
    """Return (fields, body) of a reply as it came over the wire."""
    headers = {"accept-encoding": accepts} if accepts is not None else {}
    request = tollway.client.build_request(
        "POST", tollway.url + "/v1/chat/completions", json=ASK, headers={**headers, **fields}
    )
    if accepts is None:
        del request.headers["accept-encoding"]
    reply = await tollway.client.send(request, stream=True)
    body = b"".join([part async for part in reply.aiter_raw()])
    await reply.aclose()
    return dict(reply.headers), body


def test_a_client_gets_a_coding_that_it_accepts_and_the_usage_is_read(tmp_path: Path) -> None:
    async def main() -> None:
        model = packed(CHAT)
        async with serving(model) as url, running(one_model(url), tmp_path) as tollway:
            for accepts in (None, "br", "gzip;q=0"):
                fields, body = await raw(tollway, accepts)
                assert body == CHAT
                assert "content-encoding" not in fields
                assert int(fields["content-length"]) == len(CHAT)
                assert fields["etag"] == 'W/"1"'
                assert fields["vary"] == "accept-encoding"
                assert fields["x-tollway-cost-usd"] == COST
            fields, body = await raw(tollway, "br, gzip")
            assert gzip.decompress(body) == CHAT
            assert fields["content-encoding"] == "gzip"
            assert int(fields["content-length"]) == len(body)
            assert fields["etag"] == '"1"'
            assert fields["vary"] == "accept-encoding"
            assert fields["x-tollway-cost-usd"] == COST
        assert {asked[2][b"accept-encoding"] for asked in model.requests} == {b"identity"}

    run(main)


def test_an_answer_that_is_kept_for_a_retry_is_kept_decoded(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(packed(CHAT)) as url:
            async with running(one_model(url), tmp_path) as tollway:
                for accepts in ("gzip", "identity"):
                    _, body = await raw(tollway, accepts, **{"idempotency-key": "k"})
                    assert body == CHAT

    run(main)


def test_a_compressed_error_of_a_backend_can_be_read(tmp_path: Path) -> None:
    async def main() -> None:
        error = b'{"error": {"message": "context too long"}}'
        async with serving(packed(error, 400)) as url:
            async with running(one_model(url), tmp_path) as tollway:
                fields, body = await raw(tollway, None)
                assert (body, fields["x-tollway-cost-usd"]) == (error, "0.000000000")

    run(main)


def test_a_compressed_stream_is_decoded_and_its_usage_hidden(tmp_path: Path) -> None:
    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": gzip.compress(EVENTS)})

    async def main() -> None:
        async with serving(streaming) as url, running(one_model(url), tmp_path) as tollway:
            asking = {**ASK, "stream": True}
            reply = await tollway.client.post(tollway.url + "/v1/chat/completions", json=asking)
            assert reply.content == EVENTS.partition(b"\n\n")[0] + b"\n\ndata: [DONE]\n\n"
            assert "content-encoding" not in reply.headers
            assert (await tollway.get("/_tollway/spend"))["cost_nano"] == 600_000

    run(main)
