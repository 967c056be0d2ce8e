"""Sums that no ledger counts: they are held back or stay at its end, and harm no other budget."""

import asyncio

from tests.support.ledgers import Bench, Implementation
from tollway.gateway.budgets.model import MAX_LIMIT_NANO, Budget, Reservation, Scope
from tollway.gateway.budgets.reservations import Reservations

LARGE = Budget("b", Scope(tenant="t"), MAX_LIMIT_NANO)
SOFT = Budget("soft", Scope(tenant="t"), 1000, enforcement="soft")
OTHER = Budget("other", Scope(tenant="other"), 1000)


async def opened(bench: Bench, *budgets: Budget) -> Reservations:
    clock = asyncio.get_running_loop().time
    wallet = Reservations(bench.ledger, budgets, holder="w", clock=clock)
    await wallet.open(tick_s=0.01)
    return wallet


async def others_go_on(wallet: Reservations) -> None:
    hold = await wallet.reserve(wallet.matching("other", "r", "b", {}), 10, 10)
    assert isinstance(hold, Reservation), f"another budget refuses: {hold}"
    wallet.void(hold)


def test_a_call_that_may_cost_millions_refuses_nobody_else(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        wallet = await opened(bench, LARGE, OTHER)
        mine = wallet.matching("t", "r", "b", {})
        cost_nano = 10**15  # 32 of them, as are asked for ahead of need, no ledger can count
        holds = await asyncio.gather(*(wallet.reserve(mine, cost_nano, cost_nano) for _ in "abc"))
        assert all(isinstance(hold, Reservation) for hold in holds)
        await others_go_on(wallet)
        for hold in holds:
            assert isinstance(hold, Reservation)
            wallet.void(hold)
        await wallet.close()

    ledger.run(main, LARGE, OTHER)


def test_bills_beyond_what_a_ledger_counts_refuse_nobody_else(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        wallet = await opened(bench, SOFT, OTHER)
        mine = wallet.matching("t", "r", "b", {})
        for _ in range(3):
            hold = await wallet.reserve(mine, MAX_LIMIT_NANO, MAX_LIMIT_NANO)
            assert isinstance(hold, Reservation), "a soft budget refuses nobody"
            wallet.settle(hold, MAX_LIMIT_NANO)
        await others_go_on(wallet)
        await wallet.close()
        await bench.ledger.open()
        assert (await bench.account("soft")).position.spent_nano == MAX_LIMIT_NANO

    ledger.run(main, SOFT, OTHER)
