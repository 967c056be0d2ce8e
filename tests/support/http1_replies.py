"""Replies in HTTP/1.1, read without a socket."""

import asyncio
from itertools import pairwise
from typing import Any

from tollway.backends.errors import BackendError
from tollway.backends.http.connection import Connection
from tollway.backends.http.exchange import Exchange
from tollway.backends.http.request_head import request_head
from tollway.backends.types import Call

REPLIES = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nX: y\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;e\r\nlo\r\n0\r\nt: u\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 204 No\r\ncontent-length: 9\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n\x81\x05hello",
    b"HTTP/1.1 999 ?\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
]


class Wire(asyncio.Transport):
    """A socket that records what is written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class Owner:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.ends: list[bool] = []
        self.losses = 0

    def ended(self, connection: Connection, reusable: bool) -> None:
        self.ends.append(reusable)

    def lost(self, connection: Connection) -> None:
        self.losses += 1


async def outcome(parts: list[bytes], method: bytes = b"POST") -> tuple[Any, ...]:
    """Feed a reply in `parts` and then the end; return everything visible of it."""
    owner, wire = Owner(), Wire()
    connection = Connection(owner, asyncio.get_running_loop(), 60)
    connection.connection_made(wire)
    call = Call(method, b"/", [], b"")
    exchange = connection.send(request_head(call, b"h"), call, 1e12)
    await asyncio.sleep(0)  # it is written at the end of the turn, if not at once
    for part in parts:
        if not wire.closed:
            connection.data_received(part)
    connection.connection_lost(None)
    assert len(owner.ends) == owner.losses == 1  # a slot comes back once, whatever came
    return (*await seen(exchange), owner.ends)


async def seen(exchange: Exchange) -> tuple[Any, ...]:
    assert exchange.head.done
    body = b""
    try:
        async for chunk in exchange:
            body += chunk
    except BackendError as exc:
        return type(exc).__name__, exc.ran
    return exchange.status, exchange.headers, body


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(at)]
