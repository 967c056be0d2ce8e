"""The figures that an operator reads: a second old at most, without a poll for each reader."""

import asyncio
from collections.abc import Sequence

from tests.support.budget_stage import Stage, play
from tollway.gateway.budgets.model import Budget, Reservation, Scope
from tollway.gateway.budgets.protocol import BatchReply, BudgetChange, LeaseExchange
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.workers.group import FRESH_S

PLENTY = Budget("all", Scope(), 10**9)


async def spend(reservations: Reservations, amount_nano: int) -> None:
    accounts = reservations.matching("t", "r", "b", {})
    held = reservations.reserve_now(accounts, amount_nano, amount_nano)
    held = held or await reservations.reserve(accounts, amount_nano, amount_nano)  # type: ignore[assignment]
    assert isinstance(held, Reservation)
    reservations.settle(held, amount_nano)


def spent(reservations: Reservations) -> int:
    [status] = reservations.status()
    return status.spent_nano


def test_another_gateways_spend_is_seen_within_a_second() -> None:
    """At any moment of steady traffic, in which no lease is short of money or idle."""

    async def main(stage: Stage) -> None:
        (spender, _), (reader, _) = await stage.reservations(), await stage.reservations()
        a_second_ago: list[int] = []
        for _ in range(300):
            await spend(spender, 7)
            await asyncio.sleep(0.05)
            a_second_ago.append(spent(spender))
            await reader.refresh(FRESH_S)
            if len(a_second_ago) > 20:
                assert spent(reader) >= a_second_ago[-21]
        assert spent(reader) > 0

    play(main, PLENTY)


def test_an_operators_change_is_seen_at_the_next_reading() -> None:
    async def main(stage: Stage) -> None:
        reader, _ = await stage.reservations()
        for limit_nano in (500, 40_000_000, 0):
            change = BudgetChange("limit", "all", limit_nano, "me", "why")
            await stage.ledger.change(change)
            await asyncio.sleep(2 * FRESH_S)
            await reader.refresh(FRESH_S)
            assert reader.status()[0].limit_nano == limit_nano

    play(main, PLENTY)


def test_many_readers_are_one_reading() -> None:
    async def main(stage: Stage) -> None:
        reader, _ = await stage.reservations()
        before = reader.ledger_requests
        for _ in range(10):
            await asyncio.gather(*(reader.refresh(FRESH_S) for _ in range(100)))
            await asyncio.sleep(0.05)
        assert 1 <= reader.ledger_requests - before <= 4  # in half a second

    play(main, PLENTY)


def test_a_ledger_that_is_away_leaves_the_known_figures() -> None:
    async def main(stage: Stage) -> None:
        reader, line = await stage.reservations()
        await spend(reader, 9)
        line.cut = True
        await asyncio.sleep(10)
        await reader.refresh(FRESH_S)
        assert spent(reader) == 9
        line.cut = False
        await asyncio.sleep(10)

    play(main, PLENTY)


def test_what_is_being_reported_counts_once() -> None:
    """A reading between a report and its reply would count the reported settlements twice."""

    async def main(stage: Stage) -> None:
        reader, line = await stage.reservations()
        exchange = line.exchange

        async def late(asked: Sequence[LeaseExchange]) -> BatchReply:
            answer = await exchange(asked)
            await asyncio.sleep(0.2)
            return answer

        line.exchange = late  # type: ignore[method-assign]
        total_nano = 0
        for number in range(200):
            await spend(reader, number)
            total_nano += number
            await reader.refresh(0.0)
            assert spent(reader) == total_nano

    play(main, PLENTY)
