"""An HTTP server that webhooks are sent to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Receiver:
    """An HTTP server that gives scripted answers, then 200, and keeps its requests."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.some = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        fields = {n.lower(): v.strip() for n, v in (line.split(":", 1) for line in head)}
        body = await reader.readexactly(int(fields["content-length"]))
        self.got.append((fields, body))
        status = self.statuses.pop(0) if self.statuses else 200
        writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        await writer.drain()
        writer.close()
        if status == 200:
            self.some.set()


@asynccontextmanager
async def receiver(*statuses: int) -> AsyncIterator[Receiver]:
    got = Receiver(*statuses)
    server = await asyncio.start_server(got.serve, "127.0.0.1", 0)
    got.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    async with server:
        yield got
