"""Content codings (RFC 9110 8.4): replies that are compressed although `identity` was requested.

A reply is decoded as it arrives, in steps: each takes at most STEP_BYTES in and gives at most
OUT_BYTES out, and between two steps the event loop runs. So neither a large reply nor a
decompression bomb blocks other requests. The reader of a whole body bounds its decoded size.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator

from tollway.backends.documents import header
from tollway.backends.types import BadReply, Headers, HttpReply

STEP_BYTES = 8 << 10  # 2 ms at worst: many empty gzip members, at 5 us each
OUT_BYTES = 256 << 10  # 1 ms
RATIO_MAX = 200  # Apache's limit against bombs; JSON reaches 5 or 20, zeros 1,000
RATIO_FROM_BYTES = 1 << 20  # a small reply may well be all blanks

DECODED = frozenset({b"gzip", b"x-gzip", b"deflate"})

_UNDIGESTED = frozenset({b"content-encoding", b"content-length", b"content-digest", b"content-md5"})
"""Fields that describe the coded bytes."""


class Inflate:
    """gzip, of one member or several (RFC 1952), or deflate: in zlib's format, or raw.

    RFC 9110 8.4.1.2 notes that some servers send raw deflate without zlib's header.
    """

    # The mutable state is zlib's, of the current member.
    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._zlib = zlib.decompressobj(31 if gzip else 15)
        self._begun = False

    @property
    def whole(self) -> bool:
        """Whether the data may end here: the last member is complete, or none has begun."""
        return self._zlib.eof or not self._begun

    def feed(self, data: bytes, most: int) -> tuple[bytes, bytes]:
        """Return (at most `most` decoded bytes, the part of `data` that is still to be fed).

        ValueError if the data is damaged.
        """
        if self._zlib.eof:
            if not self._gzip:
                raise ValueError("bytes after the end of the deflated data")
            self._zlib = zlib.decompressobj(31)
        elif not self._begun and not self._gzip and data[0] & 0x0F != 8:
            self._zlib = zlib.decompressobj(-15)
        self._begun = True
        try:
            out = self._zlib.decompress(data, most)
        except zlib.error as exc:
            raise ValueError(f"damaged: {exc}") from exc
        return out, self._zlib.unconsumed_tail or self._zlib.unused_data


def codings(headers: Headers) -> list[bytes]:
    """Return the codings of a body in the order in which they were applied."""
    for name, _ in headers:
        if name == b"content-encoding":
            break
    else:  # nearly always (0.2 us)
        return []
    found = [value for name, value in headers if name == b"content-encoding"]
    listed = [coding.strip().lower() for coding in b",".join(found).split(b",")]
    return [coding for coding in listed if coding not in (b"", b"identity")]


def accepts(field: bytes, coded: list[bytes]) -> bool:
    """Return whether a client's Accept-Encoding accepts these codings; without one it accepts none.

    By RFC 9110 12.5.3 a client without the field accepts anything, but in practice it cannot
    decode.
    """
    given: dict[bytes, bool] = {}
    for part in field.lower().split(b","):
        coding, _, weight = part.partition(b";")
        refused = weight.strip().removeprefix(b"q=").strip(b"0.") == b"" and weight.strip() != b""
        given[coding.strip()] = not refused
    return all(given.get(coding, given.get(b"*", False)) for coding in coded)


class Decoded:
    """A body that is decoded as it is read; `headers` and `raw` are the original, if kept."""

    # The mutable state is the decoder's, the bytes in and out, and the coded bytes that are kept.
    def __init__(self, reply: HttpReply, coded: list[bytes], *, keeps: bool) -> None:
        """Read the body of `reply`; BadReply at the first chunk if a coding is unknown."""
        self._coded = b", ".join(coded)
        self.headers = varying(reply.headers)
        self._stream = reply.stream
        self._decoder = Inflate(gzip=self._coded != b"deflate")
        self._in = self._out = 0
        self._kept: list[bytes] | None = [] if keeps else None

    @property
    def raw(self) -> bytes | None:
        """The original, still coded bytes; None if they were not kept."""
        return None if self._kept is None else b"".join(self._kept)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._coded not in DECODED:
            told = self._coded.decode("latin-1")[:80]
            raise BadReply(
                f"content-encoding {told!r} cannot be decoded here, and identity was asked for"
            )
        try:
            async for chunk in self._stream:
                if self._kept is not None:
                    self._kept.append(chunk)
                for at in range(0, len(chunk), STEP_BYTES):
                    if at:
                        await asyncio.sleep(0)
                    async for part in self._step(chunk[at : at + STEP_BYTES]):
                        yield part
        except ValueError as exc:
            raise BadReply(f"its content coding is broken: {exc}") from exc
        if not self._decoder.whole:
            raise BadReply("its content coding is broken: the data ends too early")

    async def _step(self, data: bytes) -> AsyncIterator[bytes]:
        """Yield the decoded bytes of a piece of coded data."""
        self._in += len(data)
        while True:
            out, data = self._decoder.feed(data, OUT_BYTES)
            self._out += len(out)
            if self._out > max(RATIO_FROM_BYTES, RATIO_MAX * self._in):
                raise ValueError(f"it expands more than {RATIO_MAX} times")
            if out:
                yield out
            # zlib may have more output even after it has consumed all of its input.
            if not data and (len(out) < OUT_BYTES or self._decoder.whole):
                return
            if out:
                await asyncio.sleep(0)

    async def aclose(self) -> None:
        """End the body."""
        await self._stream.aclose()


def decoded(reply: HttpReply, coded: list[bytes], *, keeps: bool) -> HttpReply:
    """Return a reply with its codings undone; `keeps` keeps the coded bytes too."""
    fields = [
        (name, weak(value) if name == b"etag" else value)
        for name, value in reply.headers
        if name not in _UNDIGESTED
    ]
    return HttpReply(reply.status, varying(fields), Decoded(reply, coded, keeps=keeps))


def varying(headers: Headers) -> Headers:
    """Return the fields of a reply that depends on Accept-Encoding."""
    vary = (header(headers, b"vary") or b"").lower()
    if b"*" in vary or b"accept-encoding" in vary:
        return headers
    return [*headers, (b"vary", b"accept-encoding")]


def weak(etag: bytes) -> bytes:
    """Return the validator of another representation of the same content (RFC 9110 8.8.3.3)."""
    return etag if etag.startswith(b"W/") else b"W/" + etag
