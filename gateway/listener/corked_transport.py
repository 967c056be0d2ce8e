"""A transport that writes once per iteration of the event loop.

uvloop passes every write to the kernel at once, and a reply is two writes (head and body). That
makes two segments, each of which may wake a sleeping peer, which costs more than the rest of the
write.
"""

import asyncio
from typing import Any

MOST_BYTES = 64 << 10


class CorkedTransport:
    """Combines the writes of one event-loop iteration into one."""

    # The mutable state is the data that waits for the end of the iteration.

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """Write `data` at the end of the iteration; at once if it is large, for flow control."""
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
        """Write the waiting data, and close."""
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Write the waiting data, and close the writing side."""
        self._flush()
        self._transport.write_eof()

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the transport."""
        return getattr(self._transport, name)
