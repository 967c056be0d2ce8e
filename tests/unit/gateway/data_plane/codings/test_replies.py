"""Large replies are compressed for clients that accept it."""

import asyncio
import gzip

import pytest

from tollway.backends.types import Headers
from tollway.gateway.data_plane.codings.replies import ReplyCompression
from tollway.gateway.data_plane.idempotency import StoredResponse

JSON = (b"content-type", b"application/json; charset=utf-8")


def compressed(
    *fields: tuple[bytes, bytes], size: int = 5000, accepts: bytes = b",gzip", status: int = 200
) -> StoredResponse:
    body = b"[" + b"1," * (size // 2) + b"1]"
    whole = StoredResponse(status, [*fields, (b"content-length", b"%d" % len(body))], body)
    given = asyncio.run(ReplyCompression(2000).compressed(whole, accepts))
    lengths = [value for name, value in given.headers if name == b"content-length"]
    assert lengths == [b"%d" % len(given.body)]
    coding = dict(given.headers).get(b"content-encoding")
    assert (gzip.decompress(given.body) if coding == b"gzip" else given.body) == body
    return given


@pytest.mark.parametrize("size", [5000, 200_000])
def test_a_large_text_is_compressed(size: int) -> None:
    given = compressed(JSON, (b"etag", b'"1"'), size=size)
    assert len(given.body) < size // 10
    fields = dict(given.headers)
    assert (fields[b"content-encoding"], fields[b"vary"]) == (b"gzip", b"accept-encoding")
    assert fields[b"etag"] == b'W/"1"'


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-type", b"image/png")],
        [(b"content-type", b"audio/mpeg")],
        [(b"content-type", b"application/octet-stream")],
        [JSON, (b"content-encoding", b"br")],
        [JSON, (b"cache-control", b"private, no-transform")],
        [],
    ],
)
def test_what_is_no_plain_text_stays(fields: Headers) -> None:
    body = b"x" * 5000
    whole = StoredResponse(200, fields, body)
    assert asyncio.run(ReplyCompression(2000).compressed(whole, b",gzip")) is whole


def test_small_and_partial_replies_and_those_of_other_clients_stay() -> None:
    for given in (compressed(JSON, size=1000), compressed(JSON, status=206)):
        assert given.headers[:1] == [JSON]
        assert b"content-encoding" not in dict(given.headers)
    for accepts in (b"", b",br", b",gzip;q=0"):
        fields = dict(compressed(JSON, accepts=accepts).headers)
        assert b"content-encoding" not in fields
        assert fields[b"vary"] == b"accept-encoding"
