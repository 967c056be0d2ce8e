"""A process that reserves and settles: python -m tests.support.spender URL FOLDER CALLS

Makes CALLS calls of 25 each at once on the budget `b` of 1000, when a line comes in; prints how
many were answered. With CALLS 0 it reserves five, settles two of them, says so, and hangs.
"""

import asyncio
import sys
import time
from pathlib import Path

from tollway.gateway.budgets.model import Budget, Reservation, Scope
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.budgets.stores.registry import open_ledger

BUDGET = Budget("b", Scope(), 1000)


async def main(url: str, recovery_files: str, calls: int) -> None:
    reservations = Reservations(
        open_ledger(url),
        [BUDGET],
        holder="spender",
        clock=time.monotonic,
        recovery_dir=Path(recovery_files),
    )
    await reservations.open()
    accounts = reservations.matching("t", "r", "b", {})
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

    async def call() -> bool:
        hold = await reservations.reserve(accounts, 25, 25)
        if not isinstance(hold, Reservation):
            return False
        await asyncio.sleep(0.3)
        reservations.settle(hold, 25)
        return True

    if calls == 0:
        holds = [await reservations.reserve(accounts, 25, 25) for _ in range(5)]
        for hold in holds[:2]:
            assert isinstance(hold, Reservation)
            reservations.settle(hold, 25)
        print("spent", flush=True)
        time.sleep(600)  # noqa: ASYNC251 - it is to hang
    print(sum(await asyncio.gather(*(call() for _ in range(calls)))), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await reservations.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
