"""Amounts beyond a ledger's range are capped and harm no other budget."""

import asyncio

from tests.support.ledgers import Bench, Implementation
from tollway.gateway.budgets.model import MAX_LIMIT_NANO, Budget, Reservation, Scope
from tollway.gateway.budgets.reservations import Reservations

LARGE = Budget("b", Scope(tenant="t"), MAX_LIMIT_NANO)
SOFT = Budget("soft", Scope(tenant="t"), 1000, enforcement="soft")
OTHER = Budget("other", Scope(tenant="other"), 1000)


async def opened(bench: Bench, *budgets: Budget) -> Reservations:
    clock = asyncio.get_running_loop().time
    reservations = Reservations(bench.ledger, budgets, holder="w", clock=clock)
    await reservations.open(tick_s=0.01)
    return reservations


async def others_go_on(reservations: Reservations) -> None:
    hold = await reservations.reserve(reservations.matching("other", "r", "b", {}), 10, 10)
    assert isinstance(hold, Reservation), f"another budget refuses: {hold}"
    reservations.void(hold)


def test_a_call_that_may_cost_millions_causes_no_other_refusals(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        reservations = await opened(bench, LARGE, OTHER)
        mine = reservations.matching("t", "r", "b", {})
        cost_nano = 10**15  # 32 of them, as are asked for ahead of need, no ledger can count
        holds = await asyncio.gather(
            *(reservations.reserve(mine, cost_nano, cost_nano) for _ in "abc")
        )
        assert all(isinstance(hold, Reservation) for hold in holds)
        await others_go_on(reservations)
        for hold in holds:
            assert isinstance(hold, Reservation)
            reservations.void(hold)
        await reservations.close()

    ledger.run(main, LARGE, OTHER)


def test_bills_beyond_what_a_ledger_counts_cause_no_other_refusals(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        reservations = await opened(bench, SOFT, OTHER)
        mine = reservations.matching("t", "r", "b", {})
        for _ in range(3):
            hold = await reservations.reserve(mine, MAX_LIMIT_NANO, MAX_LIMIT_NANO)
            assert isinstance(hold, Reservation), "a soft budget refuses nobody"
            reservations.settle(hold, MAX_LIMIT_NANO)
        await others_go_on(reservations)
        await reservations.close()
        await bench.ledger.open()
        assert (await bench.account("soft")).position.spent_nano == MAX_LIMIT_NANO

    ledger.run(main, SOFT, OTHER)
