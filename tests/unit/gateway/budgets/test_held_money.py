"""Waiting for money that other calls hold, over the ledger in memory, in virtual time."""

import asyncio
from random import Random

import pytest

from tests.support.budget_stage import Stage, play, reserve
from tollway.gateway.budgets.fair_queue import Line
from tollway.gateway.budgets.model import Budget, BudgetRefusal, Reservation, Scope
from tollway.gateway.budgets.reservations import Reservations

LIMIT = 400
ALL = Budget("all", Scope(), LIMIT)


async def hold(
    reservations: Reservations,
    amount_nano: int,
    tenant: str = "t",
    deadline_s: float = 1e9,
) -> Reservation | BudgetRefusal:
    """Reserve money as the router does: at once, else in the queue."""
    accounts = reservations.matching(tenant, "r", "b", {})
    asked = accounts, amount_nano, amount_nano
    ahead = reservations.held.line.ahead(tenant, accounts)
    found = ahead.refusal(amount_nano, "held") if ahead else await reservations.reserve(*asked)
    if isinstance(found, Reservation) or found.reason != "held":
        return found
    return await reservations.held.wait(found, *asked, tenant=tenant, deadline_s=deadline_s)


async def call(
    reservations: Reservations, hold_nano: int, cost_nano: int, takes_s: float = 0.3
) -> bool:
    held = await hold(reservations, hold_nano)
    if isinstance(held, BudgetRefusal):
        assert held.reason == "exhausted", held
        return False
    await asyncio.sleep(takes_s)
    reservations.settle(held, cost_nano)
    return True


@pytest.mark.parametrize("at_once", [1, 10, 100])
@pytest.mark.parametrize("hold_nano", [10, 20, 50])
@pytest.mark.parametrize("processes", [1, 3])
def test_a_budget_answers_as_many_calls_at_any_concurrency(
    at_once: int, hold_nano: int, processes: int
) -> None:
    """Each call costs 10 of 400; the last one needs its whole hold to be left."""

    async def main(stage: Stage) -> None:
        holders = [(await stage.reservations())[0] for _ in range(processes)]
        gate = asyncio.Semaphore(at_once)

        async def one(number: int) -> bool:
            async with gate:
                return await call(holders[number % processes], hold_nano, 10)

        answered = sum(await asyncio.gather(*[one(number) for number in range(100)]))
        assert answered == (LIMIT - hold_nano) // 10 + 1
        for reservations in holders:
            await reservations.sync_now()
        assert stage.book().spent_nano == 10 * answered

    play(main, ALL)


def test_a_waiting_call_reserves_by_what_calls_have_needed_since() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        accounts, need_nano = reservations.matching("t", "r", "b", {}), LIMIT
        first = await reserve(reservations, LIMIT)
        assert isinstance(first, Reservation)

        async def one() -> Reservation | BudgetRefusal:
            found = await reservations.reserve(accounts, LIMIT, LIMIT)
            assert isinstance(found, BudgetRefusal)
            return await reservations.held.wait(
                found,
                accounts,
                LIMIT,
                LIMIT,
                tenant="t",
                deadline_s=1e9,
                revise=lambda: (need_nano, need_nano),
            )

        waiting = [asyncio.create_task(one()) for _ in range(10)]
        await asyncio.sleep(3)
        need_nano = LIMIT // 20
        reservations.settle(first, need_nano)
        await asyncio.sleep(0.1)
        held = [task.result() for task in waiting]  # all at once, though each asked for everything
        for hold in held:
            assert isinstance(hold, Reservation)
            assert hold.hard_nano == need_nano
            reservations.settle(hold, need_nano)
        await reservations.sync_now()
        assert stage.book().spent_nano == 11 * need_nano

    play(main, ALL)


def test_a_waiting_call_is_refused_once_nothing_bounds_it() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        accounts = reservations.matching("t", "r", "b", {})
        unbounded = accounts[0].refusal(100, "unbounded", "the backend takes no limit")
        first = await reserve(reservations, LIMIT)
        found = await reservations.reserve(accounts, 100, 100)
        assert isinstance(first, Reservation) and isinstance(found, BudgetRefusal)
        ended = await reservations.held.wait(
            found, accounts, 100, 100, tenant="t", deadline_s=1e9, revise=lambda: unbounded
        )
        assert ended is unbounded
        assert reservations.held.line.count == 0
        reservations.settle(first, 0)

    play(main, ALL)


def test_a_waiting_call_gets_money_that_another_process_returns() -> None:
    async def main(stage: Stage) -> None:
        (one, _), (other, _) = await stage.reservations(), await stage.reservations()
        first = await reserve(one, LIMIT)
        assert isinstance(first, Reservation)
        waiting = asyncio.create_task(hold(other, 100))
        await asyncio.sleep(3)
        assert not waiting.done()
        one.settle(first, 50)
        await asyncio.sleep(2)
        second = waiting.result()
        assert isinstance(second, Reservation)
        other.settle(second, 100)

    play(main, ALL)


def test_a_later_call_does_not_overtake_an_older_one_of_its_tenant() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        firsts = [await reserve(reservations, 100) for _ in range(4)]
        order: list[int] = []

        async def one(amount_nano: int) -> None:
            held = await hold(reservations, amount_nano)
            assert isinstance(held, Reservation)
            order.append(amount_nano)
            reservations.settle(held, 0)

        large = asyncio.create_task(one(200))
        await asyncio.sleep(0.1)
        small = asyncio.create_task(one(50))
        await asyncio.sleep(0.1)
        for first in firsts:
            assert isinstance(first, Reservation)
            reservations.settle(first, 0)
            await asyncio.sleep(0.1)
        await asyncio.gather(large, small)
        assert order == [200, 50]

    play(main, ALL)


def test_tenants_take_turns_and_a_large_call_of_one_stops_no_small_call_of_another() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        firsts = [await reserve(reservations, 100) for _ in range(4)]
        order: list[str] = []

        async def one(tenant: str, amount_nano: int) -> None:
            held = await hold(reservations, amount_nano, tenant)
            assert isinstance(held, Reservation)
            order.append(tenant)
            await asyncio.sleep(0.1)
            reservations.settle(held, 0)

        calls = [("large", 400), ("a", 100), ("a", 100), ("a", 100), ("b", 100), ("b", 100)]
        tasks = []
        for tenant, amount_nano in calls:
            tasks.append(asyncio.create_task(one(tenant, amount_nano)))
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert isinstance(firsts[0], Reservation)
        reservations.settle(firsts[0], 0)
        await asyncio.sleep(0.55)
        assert order == ["a", "b", "a", "b", "a"]
        for first in firsts[1:]:
            assert isinstance(first, Reservation)
            reservations.settle(first, 0)
        await asyncio.gather(*tasks)
        assert order[-1] == "large"

    play(main, ALL)


def test_a_call_for_another_budget_is_not_kept_back() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        full = await reserve(reservations, 100, "full")
        waiting = asyncio.create_task(hold(reservations, 100, "full"))
        await asyncio.sleep(0.1)
        assert reservations.held.line.lengths() == {"full": 1}
        other = await hold(reservations, 100, "t")
        assert isinstance(other, Reservation) and isinstance(full, Reservation)
        reservations.settle(other, 100)
        reservations.settle(full, 0)
        held = await waiting
        assert isinstance(held, Reservation)
        reservations.void(held)

    play(main, ALL, Budget("one", Scope(tenant="full"), 100))


def test_a_wait_ends_at_the_deadline_or_after_ten_seconds_and_says_that_money_is_held() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        first = await reserve(reservations, LIMIT)
        clock = asyncio.get_running_loop().time
        for deadline_s, waits_s in ((clock() + 4, 4), (1e9, 10)):
            began_s = clock()
            refusal = await hold(reservations, 100, deadline_s=deadline_s)
            assert isinstance(refusal, BudgetRefusal) and refusal.reason == "held"
            assert clock() - began_s == pytest.approx(waits_s, abs=0.2)
        assert reservations.held.line.ends["timed_out"] == 2
        assert reservations.held.line.count == 0
        assert isinstance(first, Reservation)
        reservations.settle(first, LIMIT)

    play(main, ALL)


def test_a_waiting_call_is_refused_at_once_when_the_money_is_spent() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        first = await reserve(reservations, LIMIT)
        waiting = [asyncio.create_task(hold(reservations, 100)) for _ in range(5)]
        await asyncio.sleep(1)
        assert isinstance(first, Reservation)
        reservations.settle(first, LIMIT - 99)
        await asyncio.sleep(1)
        for task in waiting:
            assert isinstance(refusal := task.result(), BudgetRefusal)
            assert refusal.reason == "exhausted"

    play(main, ALL)


def test_a_call_that_is_cancelled_while_it_waits_leaves_no_money_held() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        first = await reserve(reservations, LIMIT)
        cancelled = asyncio.create_task(hold(reservations, 100))
        raced = asyncio.create_task(hold(reservations, 100))
        await asyncio.sleep(1)
        cancelled.cancel()
        await asyncio.sleep(0)
        assert reservations.held.line.count == 1
        assert isinstance(first, Reservation)
        reservations.settle(first, 0)  # serves the other, which is cancelled in the same turn
        raced.cancel()
        results = await asyncio.gather(cancelled, raced, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2
        assert reservations.held.line.ends["left"] == 2
        whole = await hold(reservations, LIMIT)
        assert isinstance(whole, Reservation)
        reservations.void(whole)

    play(main, ALL)


def test_a_tenants_queue_is_bounded_and_does_not_bound_anothers() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        reservations.held.line = Line(queue_max=2)
        first = await reserve(reservations, LIMIT)
        waiting = [asyncio.create_task(hold(reservations, 100, "a")) for _ in range(2)]
        await asyncio.sleep(1)
        full = await hold(reservations, 100, "a")
        assert isinstance(full, BudgetRefusal) and full.reason == "held"
        waiting.append(asyncio.create_task(hold(reservations, 100, "b")))
        await asyncio.sleep(1)
        assert reservations.held.line.lengths() == {"a": 2, "b": 1}
        assert isinstance(first, Reservation)
        reservations.settle(first, 0)
        for task in waiting:
            held = await task
            assert isinstance(held, Reservation)
            reservations.void(held)
        assert reservations.held.line.lengths() == {}

    play(main, ALL)


def test_a_waiting_call_is_refused_when_its_process_stops() -> None:
    async def main(stage: Stage) -> None:
        (other, _), (reservations, _) = await stage.reservations(), await stage.reservations()
        first = await reserve(other, LIMIT)
        waiting = asyncio.create_task(hold(reservations, 100))
        await asyncio.sleep(3)
        await reservations.close()
        assert isinstance(refusal := await waiting, BudgetRefusal)
        assert refusal.reason == "ledger_down"
        assert isinstance(first, Reservation)
        other.settle(first, 0)
        stage.holders.remove(reservations)

    play(main, ALL)


def test_waiting_asks_the_ledger_no_more_often_however_many_wait() -> None:
    async def main(stage: Stage) -> None:
        (other, _), (reservations, _) = await stage.reservations(), await stage.reservations()
        first = await reserve(other, LIMIT)
        before = reservations.ledger_requests
        results = await asyncio.gather(*[hold(reservations, 100) for _ in range(500)])
        assert all(isinstance(result, BudgetRefusal) for result in results)
        assert reservations.ledger_requests - before < 120  # ten seconds, at most one in REFUSAL_S
        assert isinstance(first, Reservation)
        other.settle(first, 0)

    play(main, ALL)


@pytest.mark.parametrize("seed", range(20))
def test_no_money_is_lost_or_overspent_whatever_waits_ends_or_is_cancelled(seed: int) -> None:
    """Random calls of three tenants in two processes; `play` checks each window in the end."""

    async def main(stage: Stage) -> None:
        rng = Random(seed)
        holders = [(await stage.reservations())[0] for _ in range(2)]

        async def one() -> None:
            await asyncio.sleep(rng.random() * 5)
            reservations, tenant = rng.choice(holders), rng.choice("abc")
            amount_nano = rng.choice([5, 20, 80])
            held = await hold(reservations, amount_nano, tenant)
            if isinstance(held, Reservation):
                try:
                    await asyncio.sleep(rng.random())
                finally:
                    reservations.settle(held, rng.randint(0, amount_nano // 4))
            stage.book()

        tasks = [asyncio.create_task(one()) for _ in range(120)]
        for task in rng.sample(tasks, 20):
            asyncio.get_running_loop().call_later(rng.random() * 6, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(r, asyncio.CancelledError) for r in results if r is not None)
        assert all(reservations.held.line.count == 0 for reservations in holders)
        for reservations in holders:
            await reservations.sync_now()
        assert stage.book().spent_nano <= stage.book().limit_nano

    play(main, ALL, Budget("a", Scope(tenant="a"), 150), Budget("b", Scope(tenant="b"), 120))
