"""Counts how often gateways exchange with their ledger until a budget is spent.

    python benchmarks/budgets_leases.py [--json FILE]

Reservations on one ledger in virtual time, so results are the same on any machine: ten clients per
replica, calls of 40 to 60 ms at one price, until the first refusal. `stranded` is the money that
the refused call could not use.
"""

import argparse
import asyncio
import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import virtual  # noqa: E402
from tollway.gateway.budgets.model import Budget, BudgetRefusal, Scope  # noqa: E402
from tollway.gateway.budgets.reservations import Reservations  # noqa: E402
from tollway.gateway.budgets.stores.memory import MemoryLedger  # noqa: E402

PRICE_NANO = 1_000_000
CLIENTS = 10
START_S = 4_000_000_000.0


@dataclass
class Row:
    """One row of the table; its counts are the state of the run."""

    replicas: int
    worth: int
    answered: int = 0
    ledger_requests: int = 0
    ledger_requests_per_answer: float = 0.0
    stranded: int = 0


async def spend(reservations: Reservations, row: Row, rng: random.Random) -> None:
    """Call until a call is refused."""
    accounts = reservations.matching("t", "r", "b", {})
    while True:
        hold = reservations.reserve_now(accounts, PRICE_NANO, PRICE_NANO)
        if hold is None:
            found = await reservations.reserve(accounts, PRICE_NANO, PRICE_NANO)
            if isinstance(found, BudgetRefusal):
                return
            hold = found
        row.answered += 1
        await asyncio.sleep(rng.uniform(0.04, 0.06))
        reservations.settle(hold, PRICE_NANO)


async def study(row: Row) -> Row:
    """Let replicas spend a budget, and count the exchanges."""
    loop = asyncio.get_running_loop()
    ledger = MemoryLedger(lambda: START_S + loop.time())
    budget = Budget("budget", Scope(), row.worth * PRICE_NANO)
    holders = [
        Reservations(ledger, [budget], holder="w", clock=loop.time) for _ in range(row.replicas)
    ]
    for reservations in holders:
        await reservations.open()
    opened, rng = sum(reservations.ledger_requests for reservations in holders), random.Random(1)
    clients = [
        asyncio.create_task(spend(reservations, row, rng))
        for reservations in holders
        for _ in range(CLIENTS)
    ]
    await asyncio.wait(clients, return_when=asyncio.FIRST_COMPLETED)
    row.stranded = row.worth - row.answered
    row.ledger_requests = sum(reservations.ledger_requests for reservations in holders) - opened
    row.ledger_requests_per_answer = row.ledger_requests / row.answered
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    for reservations in holders:
        await reservations.close()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the rows as JSON")
    args = parser.parse_args()
    rows = [Row(replicas, worth) for worth in (1000, 4000, 20_000) for replicas in (1, 2, 4)]
    rows = [virtual.run(study(row)) for row in rows]
    print("| " + " | ".join(asdict(rows[0])) + " |")
    print("|" + " --- |" * len(asdict(rows[0])))
    for row in rows:
        cells = [f"{v:.4f}" if isinstance(v, float) else str(v) for v in asdict(row).values()]
        print("| " + " | ".join(cells) + " |")
    if args.json:
        args.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
