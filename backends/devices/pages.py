"""Pages: documents that are polled, from a URL or a file."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from tollway.backends.errors import BackendError
from tollway.backends.ports import Transport
from tollway.backends.types import SMALL_BYTES, Call

T = TypeVar("T")

TIMEOUT_S = 5.0  # Prometheus' own default is 10 s; a poll delays only other polls


async def parsed(read: Callable[[bytes], T], body: bytes) -> T:
    """Return what `read` makes of a document; of a large one in a thread: 4 MiB take 200 ms."""
    return read(body) if len(body) <= SMALL_BYTES else await asyncio.to_thread(read, body)


class WebPage:
    """A page that is fetched with GET, over one connection."""

    def __init__(self, url: str, transport: Transport) -> None:
        """`transport` carries calls to the origin of `url`."""
        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        self._target = f"{parts.path or '/'}{query}".encode()
        self._host = parts.netloc.encode()
        self._transport = transport

    async def fetch(self, bytes_max: int) -> bytes:
        """Return the body of a 200; OSError without one. Redirects are not followed."""
        fields = [(b"host", self._host), (b"accept-encoding", b"identity")]
        call = Call(b"GET", self._target, [*fields, (b"accept", b"*/*")])
        until_s = asyncio.get_running_loop().time() + TIMEOUT_S
        try:
            reply = await self._transport.send(call, until_s)
            body = await reply.read(bytes_max)
        except BackendError as exc:
            raise OSError(str(exc)) from exc
        if reply.status != 200:
            raise OSError(f"was answered with status {reply.status}")
        return body

    async def aclose(self) -> None:
        """Close the connection."""
        await self._transport.aclose()


class FilePage:
    """A page that is a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def fetch(self, bytes_max: int) -> bytes:
        """Return the file's contents, read in a thread; OSError if it is unreadable or too long."""
        return await asyncio.to_thread(self._read, bytes_max)

    def _read(self, bytes_max: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                body = file.read(bytes_max + 1)
        except OSError as exc:
            raise OSError(f"cannot be opened ({exc.strerror})") from exc
        if len(body) > bytes_max:
            raise OSError(f"is larger than {bytes_max} bytes")
        return body

    async def aclose(self) -> None:
        """Do nothing: the file is not kept open."""
