"""`tollway` with a clock in its event loop, which tells how long the loop paused at most.

    python tests/attacks/ticking_gateway.py SOCKET serve CONFIG

Whoever connects to the Unix socket SOCKET is sent the longest pause, in seconds, since the last
connection.
"""

import asyncio
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[2])  # not this folder: its `http` is not the library's

from tollway.gateway.cli.main import main  # noqa: E402
from tollway.gateway.listener import server  # noqa: E402

TICK_S = 0.0005


class Clock:
    """The longest pause between two ticks."""

    # The mutable state is that pause, and when the last tick was.
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._last_s = loop.time()
        self._longest_s = 0.0
        self._tick()

    def _tick(self) -> None:
        now_s = self._loop.time()
        self._longest_s = max(self._longest_s, now_s - self._last_s)
        self._last_s = now_s
        self._loop.call_later(TICK_S, self._tick)

    def tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send the longest pause, and forget it."""
        writer.write(b"%f" % max(self._longest_s, self._loop.time() - self._last_s))
        self._longest_s = 0.0
        writer.close()


def tick(path: str) -> None:
    """Start a clock with the server."""
    startup = server.Server.startup

    async def started(self: server.Server, sockets: object = None) -> None:
        await startup(self, sockets)  # type: ignore[arg-type]
        self.clock = Clock(asyncio.get_running_loop())  # type: ignore[attr-defined]
        self.told = await asyncio.start_unix_server(self.clock.tell, path)  # type: ignore[attr-defined]

    server.Server.startup = started  # type: ignore[method-assign]


if __name__ == "__main__":
    tick(sys.argv.pop(1))
    sys.exit(main())
