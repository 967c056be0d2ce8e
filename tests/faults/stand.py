"""Gateway processes with faults between them and all that they call, and the money afterwards."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.leaks import Held, comes_back, of_process
from tests.support.configs import budget, two_backends
from tests.support.harness import inference
from tests.support.http_client import http_client
from tests.support.process import Process, free_port
from tests.support.until import until
from tollway.gateway.budgets.protocol import BudgetPosition, LedgerUnavailable
from tollway.gateway.budgets.stores.registry import open_ledger
from tollway.gateway.storage.journal import segments
from tollway.gateway.storage.journal_format import rows

CHEAP_NANO, DEAR_NANO = 100_000, 1_000_000
PATIENCE_S = 20.0


@dataclass
class Stand:
    """A gateway process with backends `cheap` and `dear` and one budget, `cap`."""

    folder: Path
    process: Process
    url: str
    http: httpx.AsyncClient
    base: Held  # when it was ready, before the first request
    statuses: list[int] = field(default_factory=list)

    async def ask(self, count: int = 1) -> list[httpx.Response]:
        """Send requests at once; each must be answered."""
        path = self.url + "/v2/models/m/infer"
        return await asyncio.gather(*(self.http.post(path, json=inference()) for _ in range(count)))

    @contextlib.asynccontextmanager
    async def load(self, clients: int, pause_s: float = 0.0) -> AsyncIterator[None]:
        """Have clients send requests one after the other while the block runs."""
        over = asyncio.Event()

        async def client() -> None:
            while not over.is_set():
                (reply,) = await self.ask()
                self.statuses.append(reply.status_code)
                await asyncio.sleep(pause_s)

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
            yield
            over.set()

    async def sees(self, status: int, count: int = 1) -> None:
        """Wait until the load has got this many further answers with a status."""
        seen = self.statuses.count(status) + count
        # Some spend whole budgets meanwhile: thousands of requests.
        await until(lambda: self.statuses.count(status) >= seen, within_s=120)

    async def stop(self) -> None:
        """Let it settle everything and end, while its peers on this loop go on."""
        assert await asyncio.to_thread(self.process.end, signal.SIGTERM) == 0

    @property
    def journal_nano(self) -> int:
        """The spend according to its journal."""
        return sum(
            row["cost_nano"]
            for path in segments(self.folder / ".tollway" / "journal")
            for row in rows(path)
            if row["kind"] == "attempt"
        )

    def held(self) -> Held:
        """Return its open files and its memory."""
        return of_process(self.process.pid)

    async def leaves_open(self, most: int, memory_mib: float = 16.0) -> None:
        """Wait until it has at most this many more files, sockets and MiB than at its start.

        What the first requests load takes a few megabytes, once.
        """
        await self.http.aclose()
        await comes_back(self.held, self.base, files=most, memory_mib=memory_mib)


@contextlib.asynccontextmanager
async def standing(
    folder: Path,
    cheap: str,
    dear: str,
    *,
    ledger: str = "sqlite:///tollway.db",
    route: str = "",
    limit_usd: str = "100.0",
    more: str = "",
    server: str = "",
) -> AsyncIterator[Stand]:
    """Run a gateway; yield it once it is ready."""
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    url = f"http://127.0.0.1:{free_port()}"
    config = folder / "tollway.toml"
    server = f'allow_anonymous = true\nlisten = "{url.removeprefix("http://")}"\n{server}'
    more = budget("cap", limit_usd) + more
    config.write_text(
        two_backends(cheap, dear, route=route, server=server, more=more, ledger=ledger)
    )
    process = Process(config)
    limits = httpx.Limits(max_connections=None)
    try:
        async with http_client(timeout=PATIENCE_S, limits=limits) as http:
            await process.ready(url, http)
            yield Stand(folder, process, url, http, of_process(process.pid))
    finally:
        process.stop()


async def position(url: str) -> BudgetPosition:
    """Return the state of `cap` in a Redis ledger, once it answers."""
    ledger = open_ledger(url + ("&" if "?" in url else "?") + "timeout_ms=2000")
    await ledger.open()

    async def read() -> BudgetPosition | None:
        try:
            (account,) = await ledger.accounts([("cap", 0)])
        except LedgerUnavailable:  # after a failover
            return None
        return account.position

    found = await until(read, every_s=0.1)
    await ledger.close()
    return found
