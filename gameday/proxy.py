"""A TCP proxy that injects faults into the traffic that passes through it.

Theory of operation. A connection is two pipes, one per direction (`connection.py`). A pipe
timestamps what it reads, and checks the active faults before it writes each part: so a fault can
start and end in the middle of a transfer. A pipe that waits (for latency, a rate limit, the end of
a `hang`) is woken when the faults change.

`refuse` closes the listening socket and later opens it again. `drop` keeps it open and accepts
nothing, with a backlog of zero that a connection of the proxy's own fills: the kernel then answers
no SYN, and a connecting client waits, as when packets are lost. (This holds on Linux; elsewhere
clients connect and receive nothing.)

All randomness comes from the seed and the connection's number.
"""

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from tollway.gameday.active_faults import ActiveFaults
from tollway.gameday.connection import ProxiedConnection
from tollway.gameday.faults import NOTHING, Faults

Address = tuple[str, int]
"""A host name, IPv4 or IPv6 address, and a port."""

BACKLOG = 1_024
PAUSE_S = 0.05  # before accepting again after "too many open files"


class FaultProxy:
    """Forwards connections to `to`. Its mutable state: its socket and its connections.

    async with FaultProxy(("127.0.0.1", 6379)) as proxy:
        async with proxy.struck(parse("latency=200ms")):
            ...  # clients of proxy.address see the latency
    """

    def __init__(self, to: Address, listen: Address = ("127.0.0.1", 0), *, seed: int = 0) -> None:
        self.to = to
        self.address = listen
        self._seed = seed
        self._now = ActiveFaults()
        self._socket: socket.socket | None = None
        self._filler: socket.socket | None = None
        self._resuming: asyncio.TimerHandle | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def faults(self) -> Faults:
        """The active faults."""
        return self._now.faults

    @property
    def counts(self) -> Counter[str]:
        """Counts of what has happened so far (see `ActiveFaults`)."""
        return self._now.counts

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._links)

    @property
    def url(self) -> str:
        """The address as an HTTP origin."""
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        """Start listening; raise OSError if that fails."""
        self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._deafen()
        await self._close()

    async def strike(self, faults: Faults = NOTHING) -> None:
        """Replace the active faults; without an argument, remove them.

        Raises OSError if another process took the port while the proxy was not listening.
        """
        before = self.faults
        self._now.set(faults)
        if (before.refuse, before.drop) == (faults.refuse, faults.drop):
            return
        self._deafen()
        if faults.refuse:
            await self._close()
        elif faults.drop:
            self._fill()
        else:
            self._listen()

    @contextlib.asynccontextmanager
    async def struck(self, faults: Faults) -> AsyncIterator[None]:
        """Inject faults for the duration of the block."""
        await self.strike(faults)
        try:
            yield
        finally:
            await self.strike()

    # -- the listening socket

    def _bind(self) -> socket.socket:
        if self._socket is None:
            family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
            self._socket = socket.create_server(self.address, family=family)
            self._socket.setblocking(False)
            self.address = self._socket.getsockname()[:2]
        return self._socket

    def _listen(self) -> None:
        listener = self._bind()
        if self._filler is not None:
            self._filler.close()
            self._filler = None
        listener.listen(BACKLOG)
        self._start_accepting(listener)

    def _fill(self) -> None:
        """Fill the backlog."""
        listener = self._bind()
        listener.listen(0)
        self._filler = socket.socket(listener.family)
        self._filler.setblocking(False)
        self._filler.connect_ex(self.address)

    def _start_accepting(self, listener: socket.socket) -> None:
        """Start accepting connections."""
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _deafen(self) -> None:
        """Stop accepting connections."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None

    async def _close(self) -> None:
        """Stop listening and reset all connections."""
        for one in (self._socket, self._filler):
            if one is not None:
                one.close()
        self._socket = self._filler = None
        for link in self._links:
            link.cancel()
        if self._links:
            await asyncio.wait(self._links)

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has already disconnected
        except OSError:  # too many open files: retry after a pause
            self._deafen()
            self._resuming = asyncio.get_running_loop().call_later(
                PAUSE_S, self._start_accepting, listener
            )
            return
        accepted.setblocking(False)
        self.counts["connections"] += 1
        link = ProxiedConnection(
            self._now, random.Random(f"{self._seed}/{self.counts['connections']}")
        )
        task = asyncio.create_task(link.carry(accepted, *self.to))
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        task.add_done_callback(lambda _: accepted.close())  # it may be cancelled before it begins
