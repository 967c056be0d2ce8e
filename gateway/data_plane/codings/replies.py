"""Compresses large replies with gzip for clients that accept it.

Streams are not compressed: each event must arrive when it comes. Neither are sounds and images,
which are compressed already.
"""

import asyncio
import zlib

from tollway.backends.documents import header, media_type
from tollway.backends.http.codings import accepts, varying, weak
from tollway.gateway.data_plane.idempotency import StoredResponse

_INLINE_BYTES = 32 << 10  # 0.5 ms; zlib releases the interpreter's lock in a thread
_LEVEL = 3  # a third of the time of level 6, for JSON that is 5 % larger


class ReplyCompression:
    """Compresses replies."""

    def __init__(self, bytes_min: int) -> None:
        """Leave smaller replies as they are."""
        self._bytes_min = bytes_min

    async def compressed(self, whole: StoredResponse, accepted: bytes) -> StoredResponse:
        """Return a reply compressed if it is large and the client accepts gzip (`accepted`)."""
        if len(whole.body) < self._bytes_min or not _may_change(whole):
            return whole
        headers = varying(whole.headers)
        if not accepts(accepted, [b"gzip"]):
            return StoredResponse(whole.status, headers, whole.body)
        if len(whole.body) <= _INLINE_BYTES:
            body = _gzip(whole.body)
        else:
            body = await asyncio.to_thread(_gzip, whole.body)
        headers = [
            (name, weak(value) if name == b"etag" else value)
            for name, value in headers
            if name not in (b"content-length", b"content-digest", b"content-md5")
        ]
        headers += [(b"content-encoding", b"gzip"), (b"content-length", b"%d" % len(body))]
        return StoredResponse(whole.status, headers, body)


def _may_change(whole: StoredResponse) -> bool:
    """Whether a reply is a whole text in no coding, and may be transformed (RFC 9111 5.2.2.6)."""
    kind = media_type(whole.headers)
    is_text = b"json" in kind or kind.startswith(b"text/")
    is_whole = whole.status != 206 and header(whole.headers, b"content-encoding") is None
    return is_text and is_whole and b"no-transform" not in _cache_control(whole)


def _cache_control(whole: StoredResponse) -> bytes:
    return (header(whole.headers, b"cache-control") or b"").lower()


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, wbits=31)
    return packer.compress(body) + packer.flush()
