"""One connection through the proxy: a client's and the server's, and a pipe each way."""

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass

from tollway.gameday.active_faults import ActiveFaults
from tollway.gameday.faults import NOTHING, Faults

PIECE = 65_536
QUEUED = 16  # pieces that a pipe holds back before it stops reading: 1 MiB
PULSES_PER_S = 20  # how often in a second a slow connection hands something on

_AT_ONCE = struct.pack("ii", 1, 0)  # linger, for no time: closing sends RST


class ProxiedConnection:
    """Carries a connection. Its mutable state: its two ends, and which side was heard last."""

    def __init__(self, now: ActiveFaults, rng: random.Random) -> None:
        self.now = now
        self.rng = rng
        self.heard = ""
        self._lot = rng.random()
        self._ends: list[asyncio.StreamWriter] = []

    def faults(self, side: str) -> Faults:
        """Return what strikes a side now."""
        faults = self.now.faults
        return faults if faults.drop or faults.strikes(side, self._lot) else NOTHING

    async def carry(self, accepted: socket.socket, host: str, port: int) -> None:
        """Carry what both say until both have ended; where it is cancelled reset both."""
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
                with contextlib.suppress(OSError):  # it may be closed already
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                writer.transport.abort()
            else:
                writer.close()
        for writer in self._ends:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Over(Exception):  # noqa: N818 - reads as what happened
    """A connection ends here: it is closed, or reset."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


async def _all(*tasks: "asyncio.Task[None]") -> None:
    """Wait for all of them, or for one to fail: none goes on then."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Piece:
    """What was read at once, b"" for the end of it all; `first` of a reply, or of a request."""

    data: bytes
    read_s: float
    jitter: float
    first: bool


class _Pipe:
    """What one side says, on its way to the other.

    Its mutable state: what was read and not handed on, and how much has passed since the other
    side was heard.
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
        """Hand on all that is said."""
        await _all(asyncio.create_task(self._read()), asyncio.create_task(self._write()))

    async def _read(self) -> None:
        loop, link, data = asyncio.get_running_loop(), self._link, b"-"
        while data:
            try:
                data = await self._reader.read(PIECE)
            except OSError:
                await self._waiting.put(None)  # in its turn: not before what is held back
                return
            first, link.heard = link.heard != self._side, self._side
            await self._waiting.put(_Piece(data, loop.time(), link.rng.random(), first))

    async def _write(self) -> None:
        while (piece := await self._waiting.get()) is not None:
            await self._until_due(piece)
            if not piece.data:
                with contextlib.suppress(OSError):  # the other end is closed
                    self._writer.write_eof()
                return
            if piece.first:
                self._passed = 0
                if self._link.faults(self._side).swallow and self._now.swallows():
                    raise _Over(reset=False)
            await self._hand_on(piece.data)
        raise _Over(reset=True)

    async def _until_due(self, piece: _Piece) -> None:
        """Wait as long as latency says, and while all is held back."""
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
        """Hand a piece on in parts, each as the faults of its moment have it."""
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
        """Return how many bytes may pass before the connection is ended."""
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
    """Return how many bytes go at once."""
    most = faults.slice_bytes or PIECE
    if faults.bytes_per_s is not None:
        most = min(most, max(1, int(faults.bytes_per_s / PULSES_PER_S)))
    return most
