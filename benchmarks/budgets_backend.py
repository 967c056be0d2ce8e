"""The backend of benchmarks/budgets.py: its bill is the true spend."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from functools import partial

PRICE_NANO = 1_000_000  # a tenth of a cent a call


class Backend:
    """Answers calls after a delay, bills each, and detects false refusals."""

    def __init__(self, limit_nano: int, takes_s: float) -> None:
        self.limit_nano = limit_nano
        self.takes_s = takes_s
        self.billed_nano = self.open_nano = 0
        self.calls = self.refused = self.refused_down = 0
        self.refused_falsely = 0
        self.stranded_nano = 0
        self.stranded_s = 0.0
        self.false_since_s: float | None = None
        self.false_last_s = 0.0
        self.first_s = math.inf
        self.last_s = time.monotonic()
        self.begun = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a replica; benchmarks/budgets_replica.py describes the protocol."""
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                if line == b"R\n":
                    self.refusal()
                elif line == b"D\n":
                    self.refused_down += 1
                elif line.endswith(b"\n"):
                    self.begin(partial(answer, writer, line[2:]))
        writer.close()

    def begin(self, done: Callable[[], None], price_nano: int = PRICE_NANO) -> None:
        """Run a call; it is billed when it ends, and `done` then called."""
        self.open_nano += price_nano
        self.last_s = time.monotonic()
        self.first_s = min(self.first_s, self.last_s)
        self.begun.set()
        asyncio.get_running_loop().call_later(self.takes_s, self.end, done, price_nano)

    def end(self, done: Callable[[], None], price_nano: int) -> None:
        self.open_nano -= price_nano
        self.billed_nano += price_nano
        self.calls += 1
        done()

    def refusal(self) -> None:
        """Record a refusal for lack of money, and whether there was enough for the call."""
        self.refused += 1
        now_s = time.monotonic()
        free_nano = self.limit_nano - self.billed_nano - self.open_nano
        if free_nano < PRICE_NANO:
            self.false_since_s = None
            return
        self.refused_falsely += 1
        self.stranded_nano = max(self.stranded_nano, free_nano)
        if self.false_since_s is None or now_s - self.false_last_s > 0.5:
            self.false_since_s = now_s
        self.false_last_s = now_s
        self.stranded_s = max(self.stranded_s, now_s - self.false_since_s)


def answer(writer: asyncio.StreamWriter, name: bytes) -> None:
    """Answer a call, if its replica is still running."""
    if not writer.is_closing():
        writer.write(name)
