"""One replica of benchmarks/budgets.py: reservations and clients that spend from it.

Speaks with the backend over one connection, a line each way:
    C <id>      a call; billed when it is answered, `<id>`
    R, D        a call was refused: for lack of money, or because the ledger does not answer
"""

import asyncio
import faulthandler
import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tollway.gateway.budgets.model import Budget, BudgetRefusal, Scope
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.budgets.stores.registry import open_ledger

REFUSED_PAUSE_S = 0.02  # refused clients retry soon, as impatient ones do


class Replica:
    def __init__(self, given: dict[str, object]) -> None:
        self.given = given
        self.price_nano = int(str(given["price_nano"]))
        budget = Budget("budget", Scope(), int(str(given["limit_nano"])))
        self.reservations = Reservations(
            open_ledger(str(given["ledger"])),
            [budget],
            holder="replica",
            clock=time.monotonic,
            recovery_dir=Path(str(given["recovery"])),
        )
        self.ids = itertools.count()
        self.waiting: dict[str, asyncio.Future[None]] = {}
        self.answered = self.refused = 0
        self.path_s: list[float] = []

    async def run(self) -> None:
        reader, self.writer = await asyncio.open_unix_connection(str(self.given["backend"]))
        await self.reservations.open()
        self.calls_before = self.reservations.ledger_requests
        tasks = [asyncio.create_task(self.listen(reader))]
        tasks += [asyncio.create_task(self.client()) for _ in range(int(str(self.given["c"])))]
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)  # until told
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks[1:], return_exceptions=True)
        calls = self.reservations.ledger_requests - self.calls_before
        await self.reservations.close()
        tasks[0].cancel()
        self.path_s.sort()
        print(
            json.dumps(
                {
                    "answered": self.answered,
                    "refused": self.refused,
                    "ledger_requests": calls,
                    "path_us": 1e6 * self.path_s[len(self.path_s) // 2] if self.path_s else 0,
                }
            ),
            flush=True,
        )

    async def listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            waits = self.waiting.pop(line.decode().strip(), None)
            if waits is not None and not waits.done():
                waits.set_result(None)

    async def client(self) -> None:
        accounts = self.reservations.matching("t", "r", "b", {})
        price = self.price_nano
        hangs_up = float(str(self.given["hang_up"]))
        while True:
            started_s = time.perf_counter()
            hold = self.reservations.reserve_now(accounts, price, price)
            taken_s = time.perf_counter() - started_s
            quick = hold is not None
            if hold is None:
                found = await self.reservations.reserve(accounts, price, price)
                if isinstance(found, BudgetRefusal):
                    self.refused += 1
                    self.writer.write(b"R\n" if found.by_budget else b"D\n")
                    await asyncio.sleep(REFUSED_PAUSE_S)
                    continue
                hold = found
            try:
                async with asyncio.timeout(0.01 if random.random() < hangs_up else None):
                    await self.call()
                    self.answered += 1
            except TimeoutError:
                pass  # the client is gone; the call goes on and is billed
            finally:
                started_s = time.perf_counter()
                self.reservations.settle(hold, price)
                if quick:
                    self.path_s.append(taken_s + time.perf_counter() - started_s)

    async def call(self) -> None:
        name = f"{os.getpid()}.{next(self.ids)}"
        self.waiting[name] = asyncio.get_running_loop().create_future()
        self.writer.write(f"C {name}\n".encode())
        await self.waiting[name]


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    asyncio.run(Replica(json.loads(sys.argv[1])).run())
