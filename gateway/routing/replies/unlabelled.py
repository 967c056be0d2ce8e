"""Detects event streams that their server labels as something else, or not at all.

Frameworks send a streamed body without a content type unless one is set, and clients of language
models do not look at it. So if a stream was requested, the first chunk of the body decides. A label
of JSON is trusted.
"""

from collections.abc import AsyncIterator

from tollway.backends.documents import EVENT_STREAM, media_type
from tollway.backends.http.codings import Decoded
from tollway.backends.types import ByteStream, HttpReply
from tollway.gateway.routing.replies.stream_relay import is_stream

_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b":")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


async def labelled(reply: HttpReply) -> HttpReply:
    """Return the reply to a stream request, with the content type that matches its body.

    Nothing is read from a reply that is labelled as a stream. Raises BackendError.
    """
    if reply.status != 200 or is_stream(reply) or isinstance(reply.stream, Decoded):
        return reply
    if b"json" in media_type(reply.headers):
        return reply
    chunks = aiter(reply.stream)
    try:
        first = await anext(chunks, b"")
    except BaseException:
        await reply.stream.aclose()
        raise
    headers = reply.headers
    if first.removeprefix(_BYTE_ORDER_MARK).lstrip(b"\r\n").startswith(_BEGINNINGS):
        headers = [pair for pair in headers if pair[0] != b"content-type"]
        headers.append((b"content-type", EVENT_STREAM))
    return HttpReply(reply.status, headers, _Resumed(first, chunks, reply.stream))


class _Resumed:
    """A body whose first chunk has been read already."""

    def __init__(self, first: bytes, rest: AsyncIterator[bytes], stream: ByteStream) -> None:
        self._first = first
        self._rest = rest
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._first:
            yield self._first
        async for chunk in self._rest:
            yield chunk

    async def aclose(self) -> None:
        """Close the body."""
        await self._stream.aclose()
