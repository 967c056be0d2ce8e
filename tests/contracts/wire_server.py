"""A server over a real socket that sends scripted bytes: every kind of broken backend."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.until import until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Wire:
    """One accepted connection as a script sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: "WireServer"

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request: (head, body)."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body = await self.reader.readexactly(length)
        self.server.requests.append((head, body))
        return head, body

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the peer has closed."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """Send RST."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


Script = Callable[[Wire], Awaitable[None]]


@dataclass
class WireServer:
    """Runs `script` on every connection; counts them and what they asked."""

    script: Script
    port: int = 0
    accepted: int = 0
    open: int = 0
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.accepted += 1
        self.open += 1
        try:
            await self.script(Wire(reader, writer, self))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def all_closed(self) -> None:
        """Wait until no connection is open; the test's own timeout bounds it."""
        await until(lambda: not self.open)


@asynccontextmanager
async def wire_server(
    script: Script, tls: ssl.SSLContext | None = None
) -> AsyncIterator[WireServer]:
    server = WireServer(script)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(server.serve_connection(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()


def replies(*parts: bytes, then_close: bool = False) -> Script:
    """Answer every request of a connection with `parts`, written one by one."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            for part in parts:
                await wire.say(part)
                await asyncio.sleep(0)
            if then_close:
                return

    return script


async def silent(wire: Wire) -> None:
    await wire.request()
    await wire.gone()


async def closes_at_once(wire: Wire) -> None:
    pass


async def closes_after_request(wire: Wire) -> None:
    await wire.request()


async def resets(wire: Wire) -> None:
    await wire.request()
    wire.reset()


def drips(head: bytes, drop: bytes, every_s: float = 0.005) -> Script:
    """Send `head`, then `drop` again and again until the client is gone."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(head)
        while not wire.writer.is_closing():
            await wire.say(drop)
            await asyncio.sleep(every_s)

    return script


def floods(head: bytes, part: bytes) -> Script:
    """Like `drips`, as fast as a reader in the same loop can take it.

    Without a turn for others it writes until the socket's buffers are full: for seconds, where the
    parts are small.
    """

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.say(head)
        while not wire.writer.is_closing():
            await wire.say(part)
            await asyncio.sleep(0)

    return script
