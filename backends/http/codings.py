"""Content codings (RFC 9110 8.4): replies and requests that are compressed.

A reply may be compressed although `identity` was requested. It is decoded as it arrives, in steps:
each takes at most STEP_BYTES in and gives at most OUT_BYTES out, and between two steps the event
loop runs. So neither a large body nor a decompression bomb blocks other requests. The reader of a
whole body bounds its decoded size.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator

from tollway.backends.documents import header
from tollway.backends.errors import BadReply
from tollway.backends.http.decoders import Decoder, decoder
from tollway.backends.types import Headers, HttpReply

STEP_BYTES = 8 << 10  # 2 ms at worst: many empty gzip members, at 5 us each
OUT_BYTES = 256 << 10  # 1 ms
RATIO_MAX = 200  # Apache's limit against bombs; JSON reaches 5 or 20, zeros 1,000
RATIO_FROM_BYTES = 1 << 20  # a small reply may well be all blanks

REQUEST_RATIO_MAX = 100
REQUEST_RATIO_FROM_BYTES = 256 << 10  # a prompt in a test may well repeat one word

UNDIGESTED = frozenset({b"content-encoding", b"content-length", b"content-digest", b"content-md5"})
"""Fields that describe the coded bytes."""


class TooLarge(ValueError):  # noqa: N818 - reads as what happened
    """A body that expands above a limit; the rest of it is not decoded."""


def codings(headers: Headers) -> list[bytes]:
    """Return the codings of a body in the order in which they were applied."""
    for name, _ in headers:
        if name == b"content-encoding":
            break
    else:  # nearly always (0.2 us)
        return []
    values = [value for name, value in headers if name == b"content-encoding"]
    listed = [coding.strip().lower() for coding in b",".join(values).split(b",")]
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
        self._decoder = decoder(self._coded)
        self._in = self._out = 0
        self._original: list[bytes] | None = [] if keeps else None

    @property
    def raw(self) -> bytes | None:
        """The original, still coded bytes; None if they were not kept."""
        return None if self._original is None else b"".join(self._original)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decodes = self._decoder
        if decodes is None:
            coding = self._coded.decode("latin-1")[:80]
            raise BadReply(
                f"content-encoding {coding!r} cannot be decoded here, and identity was asked for"
            )
        try:
            async for chunk in self._stream:
                if self._original is not None:
                    self._original.append(chunk)
                for at in range(0, len(chunk), STEP_BYTES):
                    if at:
                        await asyncio.sleep(0)
                    async for part in self._step(decodes, chunk[at : at + STEP_BYTES]):
                        yield part
        except ValueError as exc:
            raise BadReply(f"its content coding is broken: {exc}") from exc
        if not decodes.whole:
            raise BadReply("its content coding is broken: the data ends too early")

    async def _step(self, decodes: Decoder, data: bytes) -> AsyncIterator[bytes]:
        """Yield the decoded bytes of a piece of coded data."""
        self._in += len(data)
        for out in _outputs(decodes, data):
            self._out += len(out)
            if self._out > max(RATIO_FROM_BYTES, RATIO_MAX * self._in):
                raise TooLarge(f"it expands more than {RATIO_MAX} times")
            if out:
                yield out
            if decodes.pending:
                await asyncio.sleep(0)

    async def aclose(self) -> None:
        """End the body."""
        await self._stream.aclose()


def expanded(
    body: bytes, decodes: Decoder, most_bytes: int, hold: Callable[[int], None]
) -> Generator[None, None, bytes]:
    """Return a decoded request body; yield after each step.

    `hold` is told how many more bytes are held, before each step, and may raise. TooLarge above
    `most_bytes`, or REQUEST_RATIO_MAX times the size; ValueError if the body is damaged.
    """
    parts: list[bytes] = []
    size = 0
    most = min(most_bytes, max(REQUEST_RATIO_FROM_BYTES, REQUEST_RATIO_MAX * len(body)))
    for at in range(0, len(body), STEP_BYTES):
        for out in _outputs(decodes, body[at : at + STEP_BYTES]):
            size += len(out)
            if size > most_bytes:
                raise TooLarge(f"it has more than {most_bytes} bytes when decoded")
            if size > most:
                raise TooLarge(f"it expands more than {REQUEST_RATIO_MAX} times")
            hold(len(out))
            parts.append(out)
            yield
    if not decodes.whole:
        raise ValueError("the data ends too early")
    return b"".join(parts)


def _outputs(decodes: Decoder, data: bytes) -> Iterator[bytes]:
    """Yield the outputs of a piece of coded data, each of some OUT_BYTES at most."""
    yield decodes.feed(data, OUT_BYTES)
    while decodes.pending:
        yield decodes.feed(b"", OUT_BYTES)


def decoded(reply: HttpReply, coded: list[bytes], *, keeps: bool) -> HttpReply:
    """Return a reply with its codings undone; `keeps` keeps the coded bytes too."""
    fields = [
        (name, weak(value) if name == b"etag" else value)
        for name, value in reply.headers
        if name not in UNDIGESTED
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
