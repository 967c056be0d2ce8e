"""Compressed replies are decoded, within bounds."""

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from importlib import import_module
from random import Random
from typing import Any

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.backends.errors import BadReply
from tollway.backends.http import decoders
from tollway.backends.http.codings import (
    RATIO_FROM_BYTES,
    TooLarge,
    accepts,
    codings,
    decoded,
    expanded,
)
from tollway.backends.http.decoders import decoder, installed
from tollway.backends.types import HttpReply

TEXT = bytes(range(256)) * 200  # 50 KB
zstd: Any = import_module(decoders._ZSTD)
PACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"zstd": zstd.compress,
    b"br": brotli.compress,
}
WIDE = zstd.compress(bytes(1 << 25), options={zstd.CompressionParameter.window_log: 25})


class Body:
    def __init__(self, *parts: bytes) -> None:
        self._parts = parts
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part

    async def aclose(self) -> None:
        self.closed = True


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def reply(coding: bytes, *parts: bytes) -> HttpReply:
    return HttpReply(200, [(b"content-encoding", coding)], Body(*parts))


def read(coding: bytes, *parts: bytes, most: int = 1 << 20) -> bytes:
    came = reply(coding, *parts)
    found = decoded(came, codings(came.headers), keeps=False)
    try:
        return asyncio.run(found.read(most))
    finally:
        assert came.stream.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        (b"gzip", gzip.compress(TEXT)),
        (b"GZip", gzip.compress(TEXT)),
        (b"x-gzip", gzip.compress(TEXT)),
        (b"identity, gzip", gzip.compress(TEXT)),
        (b"gzip", gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:])),
        (b"zstd", zstd.compress(TEXT)),
        (b"zstd", zstd.compress(TEXT[:1000]) + zstd.compress(TEXT[1000:])),
        (b"br", brotli.compress(TEXT)),
        (b"deflate", zlib.compress(TEXT)),
        (b"deflate", raw_deflate(TEXT)),
    ],
)
@given(at=st.integers(0, 5000))
def test_a_compressed_body_is_read_in_any_pieces(coding: bytes, packed: bytes, at: int) -> None:
    parts = [part for part in (packed[:at], packed[at:]) if part]
    assert read(coding, *parts) == TEXT


def test_a_compressed_body_is_read_byte_by_byte() -> None:
    packed = gzip.compress(b"hello") + gzip.compress(b" there")
    assert read(b"gzip", *[packed[n : n + 1] for n in range(len(packed))]) == b"hello there"


def test_an_empty_body_is_one_whatever_its_coding() -> None:
    assert read(b"gzip") == b""


@pytest.mark.parametrize(
    ("coding", "packed", "why"),
    [
        (b"gzip", gzip.compress(TEXT, mtime=0)[:-9], "ends too early"),
        (b"gzip", b"{}", "damaged"),
        (b"gzip", gzip.compress(b"x", mtime=0) + b"\0\0\0", "damaged"),
        (b"deflate", zlib.compress(b"x") + b"more", "after the end"),
        (b"compress", b"x", "'compress' cannot be decoded"),
        (b"zstd", zstd.compress(TEXT)[:-9], "ends too early"),
        (b"zstd", b"{}", "ends too early|damaged"),
        (b"zstd", WIDE, "damaged"),
        (b"br", brotli.compress(TEXT)[:-9], "ends too early|damaged"),
        (b"br", brotli.compress(b"x") + b"more", "after the end|damaged"),
        (b"gzip, gzip", gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "cannot be decoded"),
    ],
)
def test_what_cannot_be_decoded_is_a_bad_reply_that_says_why(
    coding: bytes, packed: bytes, why: str
) -> None:
    with pytest.raises(BadReply, match=why):
        read(coding, packed)


def test_the_bound_of_a_reply_is_that_of_its_decoded_size() -> None:
    with pytest.raises(BadReply, match="larger than 1000 bytes"):
        read(b"gzip", gzip.compress(TEXT), most=1000)


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        (b"gzip", gzip.compress),
        (b"zstd", zstd.compress),
        (b"br", partial(brotli.compress, quality=1)),
    ],
)
def test_a_bomb_is_stopped_before_it_takes_memory(
    coding: bytes, compress: Callable[[bytes], bytes]
) -> None:
    bomb = compress(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(BadReply, match="expands more than"):
        read(coding, bomb, most=1 << 30)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16 << 20


def test_a_small_reply_of_blanks_is_no_bomb() -> None:
    blanks = b" " * (RATIO_FROM_BYTES - 2)
    assert read(b"gzip", gzip.compress(blanks)) == blanks


def expand(coding: bytes, body: bytes, most: int = 1 << 20) -> tuple[bytes, int]:
    """Return a decoded request, and in how many slices it was decoded."""
    decodes, count, held = decoder(coding), 1, []
    assert decodes is not None
    work = expanded(body, decodes, most, held.append)
    while True:
        try:
            next(work)
        except StopIteration as end:
            assert sum(held) == len(end.value)
            return end.value, count
        assert sum(held[:-1]) <= most
        count += 1


@pytest.mark.parametrize("coding", installed())
def test_a_request_is_decoded_in_slices(coding: bytes) -> None:
    noise = Random(1).randbytes(300_000) + bytes(1_000_000)
    whole, count = expand(coding, PACK[coding](noise), most=2 << 20)
    assert whole == noise
    assert count > 10


@pytest.mark.parametrize("coding", installed())
def test_a_request_that_expands_too_much_is_decoded_no_further(coding: bytes) -> None:
    for size, most, why in ((1 << 20, 100_000, "100000 bytes"), (1 << 20, 8 << 20, "100 times")):
        with pytest.raises(TooLarge, match=why):
            expand(coding, PACK[coding](bytes(size)), most)
    assert expand(coding, PACK[coding](bytes(200_000)))[0] == bytes(200_000)


def test_an_event_is_decoded_when_it_comes() -> None:
    async def main() -> None:
        packer, events = zlib.compressobj(wbits=31), [b"data: a\n\n", b"data: b\n\n"]
        parts = [packer.compress(e) + packer.flush(zlib.Z_SYNC_FLUSH) for e in events]
        came = reply(b"gzip", *parts, packer.flush())
        found = aiter(decoded(came, [b"gzip"], keeps=False).stream)
        assert [await anext(found), await anext(found)] == events

    asyncio.run(main())


def test_the_fields_of_a_decoded_reply_describe_its_decoded_body() -> None:
    fields = [
        (b"content-type", b"text/plain"),
        (b"content-encoding", b"gzip"),
        (b"content-length", b"9"),
        (b"content-digest", b"sha-256=:x:"),
        (b"etag", b'"1"'),
        (b"vary", b"origin"),
    ]
    assert decoded(HttpReply(200, fields, Body()), [b"gzip"], keeps=False).headers == [
        (b"content-type", b"text/plain"),
        (b"etag", b'W/"1"'),
        (b"vary", b"origin"),
        (b"vary", b"accept-encoding"),
    ]


@pytest.mark.parametrize(
    ("field", "taken"),
    [
        (b"gzip", True),
        (b"br, GZIP;q=0.5", True),
        (b"*", True),
        (b"", False),
        (b"identity", False),
        (b"br", False),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000, *", False),
        (b"*;q=0", False),
    ],
)
def test_a_client_takes_the_codings_that_it_names(field: bytes, taken: bool) -> None:
    assert accepts(field, [b"gzip"]) is taken
