"""The upstream of streams: writes one event at a time, at the pace that a request states.

    python benchmarks/throughput/stream_upstream.py PORT

Every request is answered with the stream of `cases.events()`. Each event is one chunk and one
write, `x-every-ms` milliseconds after the one before (default: that of 32 connections), so that
every server in front has as many events to read and write as any other. A GET is answered with
the number of events written so far.
"""

import asyncio
import re
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.throughput import cases

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS = [b"%x\r\n%b\r\n" % (len(event), event) for event in map(str.encode, cases.events())]
CHUNKS[-1] += b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Answers each request of a connection with the stream."""

    # The mutable state is the part of the request received so far, and the count of all events.

    written = 0

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            count = b"%d" % Upstream.written
            head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            self._transport.write(head % len(count) + count)
            self._transport.close()
            return
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if not end or length is None or len(body) < int(length[1]):
            return
        self._data = b""
        pace = re.search(rb"x-every-ms: *(\d+)", head, re.IGNORECASE)
        every_ms = int(pace[1]) if pace else cases.every_ms(32)
        self._transport.write(HEAD)
        self._write(0, every_ms / 1000)

    def _write(self, number: int, every_s: float) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(CHUNKS[number])
        Upstream.written += 1
        if number + 1 < len(CHUNKS):
            loop = asyncio.get_running_loop()
            loop.call_later(every_s, self._write, number + 1, every_s)


async def serve(port: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
