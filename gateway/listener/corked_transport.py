"""A transport that writes once per turn of the event loop.

uvloop hands every write to the kernel at once, and a reply is two of them (head, body): two
segments, and each may wake a sleeping peer, which costs more than the rest of the write.
"""

import asyncio
from typing import Any

MOST_BYTES = 64 << 10


class CorkedTransport:
    """Gathers what is written in one turn of the loop into one write."""

    # The mutable state is what waits for the end of the turn.

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """Write `data` when the turn ends; at once where it is much, for flow control to see."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            data, self._waiting, self._bytes = b"".join(self._waiting), [], 0
            self._transport.write(data)

    def close(self) -> None:
        """Write what waits, and close."""
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Write what waits, and say that this was all."""
        self._flush()
        self._transport.write_eof()

    def __getattr__(self, name: str) -> Any:
        """Leave all else to the transport."""
        return getattr(self._transport, name)
