"""A transport that writes whole replies at the end of an iteration of the event loop, and the head
of a reply together with the beginning of its body.

uvloop passes every write to the kernel at once, and a reply is two writes (head and body). That
makes two segments, each of which may wake a sleeping peer, which costs more than the rest of the
write. So a head waits for what follows it, at most until the end of the iteration of the event
loop. Whole replies wait for that too (see `turn_writes`). All else is written at once: a stream's
event should not wait.
"""

import asyncio
from typing import Any

from tollway.backends.http.turn_writes import turn_writes


class CorkedTransport:
    """Writes later what may wait."""

    # The mutable state is the data that waits.

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._writes = turn_writes(loop)
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Write `data`; if it is a head, with the next write or at the end of the iteration.

        It is dropped if the client has left.
        """
        if data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n"):
            if not self._waiting:
                self._writes.delay(self._flush)
            self._waiting.append(data)
        elif self._waiting:
            self._waiting.append(data)
            self._flush()
        elif not self._transport.is_closing():
            self._transport.write(data)

    def write_last(self, data: bytes) -> None:
        """Write `data` with the next write, or when everything that has arrived is handled."""
        waiting = self._waiting
        waiting.append(data)
        if len(waiting) == 1:
            self._writes.add(self._flush)

    def is_closing(self) -> bool:
        """Whether the transport is closed, or about to be."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            data = waiting[0] if len(waiting) == 1 else b"".join(waiting)
            if not self._transport.is_closing():
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
