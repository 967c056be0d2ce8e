"""The upstream of `onthebench.py`: answers after a fixed time, as a model that works does.

    python benchmarks/throughput/delayed_upstream.py PORT MILLISECONDS

A request of any path is answered with `cases.CHAT_REPLY` after that time. One that asks for a
stream gets the first event of `cases.events()` then, and each other one a millisecond later.
"""

import asyncio
import re
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.throughput import cases
from benchmarks.throughput.stream_upstream import CHUNKS, HEAD

EVERY_S = 0.001
WHOLE = (
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    f"content-length: {len(cases.CHAT_REPLY)}\r\n\r\n{cases.CHAT_REPLY}"
).encode()
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')


class Upstream(asyncio.Protocol):
    """Answers each request of a connection."""

    # The mutable state is the part of the request received so far.

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        length = _LENGTH.search(head)
        if length is not None and len(body) < int(length[1]):
            return
        if length is None and head.startswith(b"POST") and not body.endswith(b"0\r\n\r\n"):
            return  # in chunks
        self._data = b""
        answer = self._events if _STREAM.search(body) else self._whole
        asyncio.get_running_loop().call_later(self._delay_s, answer)

    def _whole(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(WHOLE)

    def _events(self, number: int = 0) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(HEAD + CHUNKS[0] if number == 0 else CHUNKS[number])
        if number + 1 < len(CHUNKS):
            asyncio.get_running_loop().call_later(EVERY_S, self._events, number + 1)


async def serve(port: int, delay_s: float) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(delay_s), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000.0))
