"""Compressed requests are decoded, within limits, and backends get them decoded."""

import gzip
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import brotli
import orjson
import pytest

from tests.support.harness import run, running, serving
from tollway.backends.http import decoders

pytestmark = pytest.mark.integration

zstd: Any = import_module(decoders._ZSTD)

CONFIG = """
[server]
allow_anonymous = true
max_decoded_bytes = 400000

[ledger]
url = "memory://"

[[backends]]
name = "up"
kind = "api"
protocol = "openai"
url = "{url}"
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 10.0 }}

[[backends]]
name = "files"
kind = "api"
protocol = "plain"
url = "{url}"
price = {{ per_request_usd = 0.001 }}

[[routes]]
name = "r"
path = "/v1/chat/completions"
protocol = "openai"
backends = ["up"]

[[routes]]
name = "files"
path = "/files"
protocol = "plain"
backends = ["files"]
"""
ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
REPLY = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}


class Model:
    """Answers `hi`, and keeps what it gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[bytes, bytes], bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        self.calls.append((dict(scope["headers"]), body))
        fields = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": orjson.dumps(REPLY)})


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", zstd.compress),
        ("br", brotli.compress),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize("size", [5, 300_000])
def test_a_compressed_request_is_answered_and_charged_as_the_plain_one(
    tmp_path: Path, coding: str, compress: Callable[[bytes], bytes], size: int
) -> None:
    model = Model()
    content = " ".join(map(str, range(size // 7))) or "hello"
    body = orjson.dumps({**ASK, "messages": [{"role": "user", "content": content}]})

    async def main() -> None:
        async with serving(model) as url, running(CONFIG.format(url=url), tmp_path) as tollway:
            fields = {"content-encoding": coding, "content-digest": "sha-256=:x:"}
            reply = await tollway.client.post(
                f"{tollway.url}/v1/chat/completions", content=compress(body), headers=fields
            )
            assert reply.status_code == 200, reply.text
            assert reply.headers["x-tollway-cost-usd"] == "0.000060000"
            fields_sent, sent = model.calls[0]
            assert sent == body
            if coding != "identity":
                assert not {b"content-encoding", b"content-digest"} & set(fields_sent)

    run(main)


def test_bombs_damaged_bodies_and_unknown_codings_are_refused(tmp_path: Path) -> None:
    model = Model()
    body = orjson.dumps(ASK)
    cases: list[tuple[str, bytes, int]] = [
        ("gzip", gzip.compress(bytes(100 << 20), compresslevel=1), 413),
        ("gzip", gzip.compress(b" " * 399_000 + body), 413),
        ("zstd", zstd.compress(bytes(500_000)), 413),
        ("br", brotli.compress(bytes(500_000)), 413),
        ("gzip", gzip.compress(body)[:-3], 400),
        ("gzip", body, 400),
        ("zstd", body, 400),
        ("br", brotli.compress(body) + b"more", 400),
        ("gzip", b"", 415),
        ("compress", body, 415),
        ("gzip, gzip", gzip.compress(gzip.compress(body)), 415),
    ]

    async def main() -> None:
        async with serving(model) as url, running(CONFIG.format(url=url), tmp_path) as tollway:
            for coding, sent, status in cases:
                reply = await tollway.client.post(
                    f"{tollway.url}/v1/chat/completions",
                    content=sent,
                    headers={"content-encoding": coding},
                )
                assert reply.status_code == status, (coding, reply.text)
                if status == 415:
                    assert reply.headers["accept-encoding"] == "gzip, x-gzip, deflate, zstd, br"
            assert not model.calls

    run(main)


def test_what_need_not_be_read_passes_in_a_coding_that_is_unknown_here(tmp_path: Path) -> None:
    model = Model()

    async def main() -> None:
        async with serving(model) as url, running(CONFIG.format(url=url), tmp_path) as tollway:
            fields = {"content-encoding": "compress", "content-type": "image/png"}
            await tollway.client.post(f"{tollway.url}/files", content=b"?", headers=fields)
            sent = model.calls[0]
            assert (sent[0][b"content-encoding"], sent[1]) == (b"compress", b"?")

    run(main)
