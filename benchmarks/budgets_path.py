"""Times reserving and settling on the request path: benchmarks/budgets_path.py [--json FILE]

One process, a SQLite ledger, a recovery file on disk, and 1 to 8 budgets that apply to every call.
Each figure is the median of 200 rounds of 100 calls, without requests to the ledger.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tollway.gateway.budgets.model import Budget, Reservation, Scope
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.budgets.stores.registry import open_ledger

ROUNDS, CALLS = 200, 100


async def measure(folder: Path, scopes: int) -> dict[str, float]:
    budgets = [Budget(f"b{n}", Scope(), 10**15) for n in range(scopes)]
    reservations = Reservations(
        open_ledger(f"sqlite:///{folder / 'ledger.db'}"),
        budgets,
        holder="bench",
        clock=time.monotonic,
        recovery_dir=folder / "recovery",
    )
    await reservations.open()
    accounts = reservations.matching("t", "r", "b", {})
    hold = await reservations.reserve(accounts, 10**9, 10**9)
    assert isinstance(hold, Reservation)
    reservations.settle(hold, 0)
    taken_us = []
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        for _ in range(CALLS):
            hold = reservations.reserve_now(accounts, 900, 1000)
            assert hold is not None
            reservations.settle(hold, 950)
        taken_us.append((time.perf_counter() - started_s) / CALLS * 1e6)
        await asyncio.sleep(0)
    matching_us = []
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        for _ in range(CALLS):
            reservations.matching("t", "r", "b", {})
        matching_us.append((time.perf_counter() - started_s) / CALLS * 1e6)
    await reservations.close()
    call_us = statistics.median(taken_us)
    return {
        "scopes": scopes,
        "call_us": call_us,
        "per_scope_us": call_us / scopes,
        "matching_us": statistics.median(matching_us),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the rows as JSON")
    args = parser.parse_args()
    rows = []
    print("| scopes | reserve and settle, us | us per scope | finding the scopes, us |")
    print("| --- | --- | --- | --- |")
    for scopes in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            row = asyncio.run(measure(Path(folder), scopes))
        rows.append(row)
        print("| " + " | ".join(f"{value:.3g}" for value in row.values()) + " |")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
