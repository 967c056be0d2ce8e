"""One proxied connection: a client socket, a server socket, and a pipe in each direction."""

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass

from tollway.gameday.active_faults import ActiveFaults
from tollway.gameday.faults import NOTHING, Faults

PIECE = 65_536
QUEUED = 16  # chunks that a pipe buffers before it stops reading: 1 MiB
PULSES_PER_S = 20  # writes per second on a rate-limited connection

_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER with a timeout of 0: closing sends RST


class ProxiedConnection:
    """Carries a connection. Its mutable state: its two sockets, and the side that sent last."""

    def __init__(self, now: ActiveFaults, rng: random.Random) -> None:
        self.now = now
        self.rng = rng
        self.last_sender = ""
        self._lot = rng.random()
        self._ends: list[asyncio.StreamWriter] = []

    def faults(self, side: str) -> Faults:
        """Return the faults that apply to a side now."""
        faults = self.now.faults
        return faults if faults.drop or faults.strikes(side, self._lot) else NOTHING

    async def carry(self, accepted: socket.socket, host: str, port: int) -> None:
        """Copy data both ways until both sides have ended; reset both on cancellation."""
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        from_client, client = await asyncio.open_connection(sock=accepted)
        self._ends.append(client)
        reset = True
        try:
            from_server, server = await asyncio.open_connection(host, port)
            self._ends.append(server)
            pipes = (
                _Pipe(self, "requests", from_client, server),
                _Pipe(self, "replies", from_server, client),
            )
            await _all(*(asyncio.create_task(pipe.carry()) for pipe in pipes))
            reset = False
        except _Over as over:
            reset = over.reset
        except OSError:
            self.now.counts["refused"] += 1
        finally:
            await self._close(reset)

    async def _close(self, reset: bool) -> None:
        for writer in self._ends:
            if reset:
                end = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):  # it may already be closed
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                writer.transport.abort()
            else:
                writer.close()
        for writer in self._ends:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Over(Exception):  # noqa: N818 - reads as what happened
    """Ends a connection, by closing or resetting it."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


async def _all(*tasks: "asyncio.Task[None]") -> None:
    """Wait for all tasks; if one fails, cancel the others."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One chunk as read, b"" at end of stream; `first` of a reply or of a request."""

    data: bytes
    read_s: float
    jitter: float
    first: bool


class _Pipe:
    """Copies data from one side to the other.

    Its mutable state: the chunks that were read and not written yet, and the bytes written since
    the other side last sent something.
    """

    def __init__(
        self,
        link: ProxiedConnection,
        side: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._link = link
        self._now = link.now
        self._side = side
        self._reader = reader
        self._writer = writer
        self._waiting: asyncio.Queue[_Piece | None] = asyncio.Queue(QUEUED)
        self._passed = 0

    async def carry(self) -> None:
        """Copy until the end of the stream."""
        await _all(asyncio.create_task(self._read()), asyncio.create_task(self._write()))

    async def _read(self) -> None:
        loop, link, data = asyncio.get_running_loop(), self._link, b"-"
        while data:
            try:
                data = await self._reader.read(PIECE)
            except OSError:
                await self._waiting.put(None)  # in order: after the chunks that are held back
                return
            first, link.last_sender = link.last_sender != self._side, self._side
            await self._waiting.put(_Piece(data, loop.time(), link.rng.random(), first))

    async def _write(self) -> None:
        while (piece := await self._waiting.get()) is not None:
            await self._until_due(piece)
            if not piece.data:
                with contextlib.suppress(OSError):  # the other socket is closed
                    self._writer.write_eof()
                return
            if piece.first:
                self._passed = 0
                if self._link.faults(self._side).swallow and self._now.swallows():
                    raise _Over(reset=False)
            await self._hand_on(piece.data)
        raise _Over(reset=True)

    async def _until_due(self, piece: _Piece) -> None:
        """Wait for the latency to pass, and while a fault holds data back."""
        loop = asyncio.get_running_loop()
        while True:
            faults = self._link.faults(self._side)
            if faults.holds:
                await self._now.change()
                continue
            due_s = piece.read_s + faults.latency_s + faults.jitter_s * piece.jitter
            if loop.time() >= due_s:
                return
            await self._now.change(due_s - loop.time())

    async def _hand_on(self, data: bytes) -> None:
        """Write a chunk in parts; each part follows the faults active at that moment."""
        while data:
            faults = self._link.faults(self._side)
            if faults.holds:
                await self._now.change()
                continue
            left = self._left(faults)
            if left == 0:
                self._now.counts["cut" if faults.reset is None else "reset"] += 1
                raise _Over(reset=faults.reset is not None)
            size = min(len(data), left, _most(faults))
            part, data = data[:size], data[size:]
            try:
                self._writer.write(self._corrupted(part, faults.corrupt))
                await self._writer.drain()
            except OSError:
                raise _Over(reset=True) from None
            self._passed += size
            if faults.bytes_per_s is not None:
                await self._now.change(size / faults.bytes_per_s)
            elif data:
                await asyncio.sleep(0)

    def _left(self, faults: Faults) -> int:
        """Return how many bytes may pass before the connection is cut or reset."""
        ends = [end for end in (faults.cut, faults.reset) if end is not None]
        return max(0, min(ends) - self._passed) if ends else PIECE

    def _corrupted(self, data: bytes, share: float) -> bytes:
        if not share:
            return data
        rng, turned = self._link.rng, bytearray(data)
        for at in range(len(turned)):
            if rng.random() < share:
                turned[at] ^= 1 << rng.randrange(8)
                self._now.counts["corrupted"] += 1
        return bytes(turned)


def _most(faults: Faults) -> int:
    """Return how many bytes to write at once."""
    most = faults.slice_bytes or PIECE
    if faults.bytes_per_s is not None:
        most = min(most, max(1, int(faults.bytes_per_s / PULSES_PER_S)))
    return most
