"""Reservations over the ledger in memory, in virtual time."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support import virtual
from tests.support.budget_stage import ALL, Stage, play, reserve
from tests.support.ledgers import START_S
from tests.support.world import Line
from tollway.gateway.budgets.model import (
    Budget,
    BudgetRefusal,
    BudgetStatus,
    Reservation,
    Scope,
)
from tollway.gateway.budgets.protocol import (
    BatchReply,
    BudgetChange,
    LeaseExchange,
    LedgerUnavailable,
)
from tollway.gateway.budgets.reservations import MATCHES_MAX, Reservations
from tollway.gateway.budgets.stores.memory import MemoryLedger
from tollway.gateway.budgets.window_state import LEASE_S

HOUR_S = 3600


async def spend(reservations: Reservations, amount_nano: int, tenant: str = "t") -> bool:
    hold = await reserve(reservations, amount_nano, tenant)
    if isinstance(hold, BudgetRefusal):
        return False
    reservations.settle(hold, amount_nano)
    return True


def status(reservations: Reservations, name: str = "all") -> BudgetStatus:
    [found] = [status for status in reservations.status() if status.budget.name == name]
    assert found.limit_nano + found.overdraft_nano == (
        found.carried_nano + found.spent_nano + found.held_nano + found.free_nano
    )
    return found


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


# ---------------------------------------------------------------------- reserving


def test_a_hundred_at_once_on_a_budget_for_forty_are_answered_forty_times() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()

        async def one() -> bool:
            hold = await reserve(reservations, 1000)
            if isinstance(hold, BudgetRefusal):
                return False
            await asyncio.sleep(0.3)
            reservations.settle(hold, 1000)
            return True

        answered = await asyncio.gather(*(one() for _ in range(100)))
        assert sum(answered) == 40
        await asyncio.sleep(2)
        assert stage.book().spent_nano == 40_000

    play(main)


@pytest.mark.parametrize("processes", [2, 4])
def test_many_processes_share_a_budget_exactly(processes: int) -> None:
    async def main(stage: Stage) -> None:
        shares = [(await stage.reservations())[0] for _ in range(processes)]
        answered = await asyncio.gather(*(spend(shares[n % processes], 1000) for n in range(100)))
        assert sum(answered) == 40
        await asyncio.sleep(2)
        assert stage.book().spent_nano == 40_000

    play(main)


def test_a_hold_is_in_every_scope_that_matches_or_in_none() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        assert await spend(reservations, 900)
        refusal = await reserve(reservations, 200)
        assert isinstance(refusal, BudgetRefusal)
        assert (refusal.budget, refusal.scope) == ("tight", {"tenant": "t"})
        assert all(
            account.lease.open_nano == 0 for account in reservations.matching("t", "r", "b", {})
        )
        assert await spend(reservations, 200, tenant="another")
        assert await spend(reservations, 100)

    play(main, ALL, Budget("tight", Scope(tenant="t"), 1000))


def test_a_budget_binds_calls_that_match_every_part_of_its_scope() -> None:
    budgets = [
        Budget("tenant", Scope(tenant="t"), 1),
        Budget("both", Scope(tenant="t", backend="gpu"), 1),
        Budget("tag", Scope(tags=(("env", "prod"), ("team", "ads"))), 1),
    ]

    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()

        def names(*call: Any) -> list[str]:
            return [account.budget.name for account in reservations.matching(*call)]

        assert names("t", "r", "cpu", {}) == ["tenant"]
        assert names("t", "r", "gpu", {"env": "prod"}) == ["tenant", "both"]
        assert names("u", "r", "gpu", {"team": "ads", "env": "prod", "x": "y"}) == ["tag"]
        assert names("u", "r", "gpu", {}) == []
        for number in range(3 * MATCHES_MAX):
            names("t", "r", "cpu", {"random": str(number)})
        assert len(reservations._matches) <= MATCHES_MAX

    play(main, *budgets)


def test_a_call_without_a_matching_budget_is_made() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        hold = reservations.reserve_now((), 10**12, 10**12)
        assert hold is not None
        reservations.settle(hold, 10**12)

    play(main)


def test_hard_holds_the_maximum_expected_the_ceiling_and_soft_never_refuses() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        accounts = reservations.matching("t", "r", "b", {})
        hold = await reservations.reserve(accounts, 300, 500)
        assert isinstance(hold, Reservation)
        assert [amount for _, amount in hold.holds] == [500, 300, 300]
        reservations.settle(hold, 100)
        refusal = await reservations.reserve(accounts, 300, 901)
        assert isinstance(refusal, BudgetRefusal) and refusal.budget == "hard"
        hold = await reservations.reserve(accounts, 900, 900)
        assert isinstance(hold, Reservation)  # soft has had 100 of its 50
        reservations.settle(hold, 900)
        await asyncio.sleep(2)
        assert status(reservations, "soft").spent_nano == 1000
        assert status(reservations, "soft").overdraft_nano == 950

    play(
        main,
        Budget("hard", Scope(), 1000),
        Budget("expected", Scope(), 5000, enforcement="expected"),
        Budget("soft", Scope(), 50, enforcement="soft"),
    )


def test_a_reservation_ends_once_and_no_cost_is_negative() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        hold = await reserve(reservations, 10)
        assert isinstance(hold, Reservation)
        with pytest.raises(ValueError, match="-1"):
            reservations.settle(hold, -1)
        reservations.void(hold)
        for end in (lambda: reservations.settle(hold, 5), lambda: reservations.void(hold)):
            with pytest.raises(RuntimeError, match="once"):
                end()
        assert status(reservations).spent_nano == 0

    play(main)


def test_a_cost_above_its_reservation_is_charged_and_shown_as_overdraft() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        hold = await reserve(reservations, 40_000)
        assert isinstance(hold, Reservation)
        reservations.settle(hold, 41_000)
        assert status(reservations).overdraft_nano == 1000
        assert not await spend(reservations, 1)
        await asyncio.sleep(2)
        assert (stage.book().spent_nano, status(reservations).overdraft_nano) == (41_000, 1000)
        [told] = [event for event in stage.events if event.kind == "overdraft"]
        assert (told.budget, told.amount_nano) == ("all", 1000)

    play(main)


@pytest.mark.integration
def test_an_overdraft_is_repaid_in_the_next_window_if_configured() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        hold = await reserve(reservations, 40_000)
        assert isinstance(hold, Reservation)
        await asyncio.sleep(HOUR_S)
        assert await spend(reservations, 30_000)  # its bill has not come yet
        reservations.settle(hold, 55_000)
        await asyncio.sleep(2)
        assert status(reservations).carried_nano == 15_000
        assert (status(reservations).free_nano, status(reservations).overdraft_nano) == (0, 5000)
        assert reservations.advice(reservations.matching("t", "r", "b", {})).max_price_usd == 0.01
        assert not await spend(reservations, 1)
        await asyncio.sleep(HOUR_S)
        assert await spend(reservations, 35_000)
        assert not await spend(reservations, 1)

    play(
        main,
        Budget(
            "all",
            Scope(),
            40_000,
            window="hour",
            enforcement="expected",
            carry_overdraft=True,
            downgrade_at=1.0,
            downgrade_max_usd=0.01,
        ),
    )


def test_a_call_quoted_at_zero_needs_no_money_but_its_bill_is_charged() -> None:
    async def main(stage: Stage) -> None:
        reservations, line = await stage.reservations()
        hold = await reserve(reservations, 0)
        assert isinstance(hold, Reservation)
        await asyncio.sleep(2)  # long enough for an idle lease to be returned
        reservations.settle(hold, 7)
        assert await spend(reservations, 39_993)
        assert not await spend(reservations, 1)
        assert await spend(reservations, 0)
        line.cut = True
        await asyncio.sleep(2)
        assert await spend(reservations, 0)
        line.cut = False
        await asyncio.sleep(2)
        assert stage.book().spent_nano == 40_000

    play(main)


def test_a_refusal_states_what_is_left_and_when_the_next_window_begins() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        assert await spend(reservations, 700)
        hold = await reserve(reservations, 200)
        refusal = await reserve(reservations, 101)
        assert isinstance(refusal, BudgetRefusal) and isinstance(hold, Reservation)
        figures = refusal.limit_nano, refusal.spent_nano, refusal.held_nano, refusal.free_nano
        assert sum(figures[1:]) == figures[0] == 1000
        assert (refusal.asked_nano, refusal.reason, refusal.then) == (101, "held", "cheapest")
        assert refusal.resets_at_s == START_S - START_S % HOUR_S + HOUR_S
        assert refusal.resets_at == "2096-10-02T08:00:00Z"
        reservations.void(hold)

    play(main, Budget("all", Scope(), 1000, window="hour", then="cheapest"))


# ---------------------------------------------------------------------- asking the ledger


def test_a_thousand_requests_ask_the_ledger_at_most_twenty_times() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        before = reservations.ledger_requests
        for _ in range(1000):
            assert await spend(reservations, 1000)
            await asyncio.sleep(0.001)
        assert reservations.ledger_requests - before <= 20

    play(main, Budget("all", Scope(), 1_000_000))


def test_steady_traffic_never_waits_for_the_ledger() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        accounts = reservations.matching("t", "r", "b", {})
        assert await spend(reservations, 1000)
        for _ in range(3000):
            await asyncio.sleep(0.005)
            hold = reservations.reserve_now(accounts, 1000, 1000)
            assert hold is not None
            reservations.settle(hold, 1000)

    play(main, Budget("all", Scope(), 10**9))


def test_idle_money_is_back_within_a_second() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        hold = await reserve(reservations, 1000)
        assert isinstance(hold, Reservation)
        assert stage.book().leased_nano > 1000
        await asyncio.sleep(1.0)
        assert stage.book().leased_nano == 1000  # the call is still under way
        reservations.settle(hold, 400)
        await asyncio.sleep(1.0)
        assert (stage.book().spent_nano, stage.book().leased_nano) == (400, 0)

    play(main)


def test_a_call_waits_for_money_that_others_hold_idle_and_gets_it() -> None:
    async def main(stage: Stage) -> None:
        rich, _ = await stage.reservations()
        poor, _ = await stage.reservations()
        assert await spend(rich, 1000)
        assert await spend(poor, 35_000)
        assert await spend(poor, 4_000)
        assert not await spend(poor, 1)
        assert stage.book().spent_nano + rich.status()[0].held_nano <= 40_000

    play(main)


def test_many_refusals_cause_few_ledger_calls() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        assert await spend(reservations, 40_000)
        before = reservations.ledger_requests
        for _ in range(1000):
            assert not await spend(reservations, 1)
            await asyncio.sleep(0.005)
        assert reservations.ledger_requests - before <= 15  # in five seconds

    play(main)


def test_a_raised_limit_is_seen_within_a_second() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        assert await spend(reservations, 40_000)
        for _ in range(100):
            assert not await spend(reservations, 1)
            await asyncio.sleep(0.05)
        await stage.ledger.change(BudgetChange("credit", "all", 1000, "ann", "why"))
        await asyncio.sleep(1.0)
        assert await spend(reservations, 1000)

    play(main)


# ---------------------------------------------------------------------- windows


@pytest.mark.integration
def test_a_new_window_has_its_own_money_and_a_late_settlement_goes_to_the_old() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        hold = await reserve(reservations, 1000)
        assert isinstance(hold, Reservation)
        assert not await spend(reservations, 1)
        await asyncio.sleep(HOUR_S)
        assert await spend(reservations, 1000)
        reservations.settle(hold, 600)
        await asyncio.sleep(2)
        assert [book.spent_nano for book in stage.ledger.books()] == [600, 1000]

    play(main, Budget("all", Scope(), 1000, window="hour"))


@pytest.mark.integration
def test_nothing_is_reserved_from_a_window_that_has_ended() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        to_end_s = HOUR_S - START_S % HOUR_S
        await asyncio.sleep(to_end_s - 0.3)
        assert await spend(reservations, 10)
        accounts = reservations.matching("t", "r", "b", {})
        await asyncio.sleep(0.2)
        hold = reservations.reserve_now(accounts, 1, 1)
        assert hold is not None
        reservations.void(hold)
        await asyncio.sleep(0.1)
        assert reservations.reserve_now(accounts, 1, 1) is None

    play(main, Budget("all", Scope(), 1000, window="hour"))


# ---------------------------------------------------------------------- trouble


def test_without_the_ledger_leases_are_spent_then_calls_are_refused_with_the_reason() -> None:
    async def main(stage: Stage) -> None:
        reservations, line = await stage.reservations()
        assert await spend(reservations, 1000)
        leased_nano = stage.book().leased_nano - 1000  # what is settled is told later
        line.cut = True
        while await spend(reservations, 1000):
            leased_nano -= 1000
        assert leased_nano < 1000
        refusal = await reserve(reservations, 1000)
        assert isinstance(refusal, BudgetRefusal) and refusal.reason == "ledger_down"
        assert reservations.down == "ledger_down"
        line.cut = False
        await asyncio.sleep(1)
        assert await spend(reservations, 1000)
        assert stage.kinds() == ["ledger_down", "ledger_up"]

    play(main)


def test_one_lost_answer_refuses_nobody() -> None:
    async def main(stage: Stage) -> None:
        reservations, line = await stage.reservations()
        line.cut = True
        asked = asyncio.create_task(spend(reservations, 1000))
        await asyncio.sleep(0.06)  # until one exchange was given up
        line.cut = False
        assert await asked
        assert stage.kinds() == []

    play(main)


def test_money_is_kept_for_a_call_that_waits_for_another_budget() -> None:
    """Otherwise two budgets that are short would return money in turn, and it waits for ever."""

    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        both = reservations.matching("t", "r", "b", {})
        hold = await reservations.reserve(both, 20_000, 20_000)
        assert isinstance(hold, Reservation)
        reservations.void(hold)
        first, second = both
        first._short = second._short = True  # as the ledger says where others want more
        idle_nano = first.lease.idle_nano

        with reservations._retaining(both, second, 16_000, 16_000):  # it lacks of the second
            assert first._excess(first.lease) == idle_nano - 16_000
            assert second._excess(second.lease) == second.lease.idle_nano
        assert first._excess(first.lease) == idle_nano
        await asyncio.sleep(2)

    play(main, Budget("first", Scope(), 100_000), Budget("second", Scope(tenant="t"), 100_000))


def test_a_stopping_process_refuses_even_with_on_ledger_failure_allow() -> None:
    async def main(stage: Stage) -> None:
        reservations, line = await stage.reservations(on_ledger_failure="allow")
        line.cut = True
        closing = asyncio.create_task(reservations.close())
        await asyncio.sleep(0.1)

        refusal = await reservations.reserve(reservations.matching("t", "r", "b", {}), 10, 10)

        assert isinstance(refusal, BudgetRefusal)
        assert refusal.reason == "ledger_down"
        line.cut = False
        await closing

    play(main)


def test_what_a_soft_budget_counts_while_its_wallet_closes_is_not_lost(tmp_path: Path) -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        accounts = reservations.matching("t", "r", "b", {})
        hold = await reservations.reserve(accounts, 10, 10)
        assert isinstance(hold, Reservation)
        reservations.settle(hold, 10)
        closing = asyncio.create_task(reservations.close())
        await asyncio.sleep(0.0005)  # it hands back what it has
        late = await reservations.reserve(accounts, 7, 7)
        assert isinstance(late, Reservation)
        reservations.settle(late, 7)
        await closing
        stage.holders.remove(reservations)

        await stage.reservations()

        assert stage.book("soft").spent_nano == 17

    play(main, Budget("soft", Scope(), 100, enforcement="soft"), folder=tmp_path)


def test_without_the_ledger_and_with_allow_calls_go_on_and_are_charged_later() -> None:
    async def main(stage: Stage) -> None:
        reservations, line = await stage.reservations(on_ledger_failure="allow")
        line.cut = True
        for _ in range(50):
            assert await spend(reservations, 1000)
        line.cut = False
        await asyncio.sleep(2)
        assert (stage.book().spent_nano, status(reservations).overdraft_nano) == (50_000, 10_000)
        assert not await spend(reservations, 1)

    play(main)


def test_a_ledger_that_forgot_everything_is_not_believed() -> None:
    async def main(stage: Stage) -> None:
        reservations, line = await stage.reservations()
        assert await spend(reservations, 1000)
        line.ledger = MemoryLedger(stage.ledger.now_s)
        await asyncio.sleep(2)
        while await spend(reservations, 1000):
            pass  # what was leased before it was lost is ours
        refusal = await reserve(reservations, 1000)
        assert isinstance(refusal, BudgetRefusal) and refusal.reason == "ledger_lost"
        await line.ledger.register(stage.budgets)  # somebody else has started, on the empty one
        await asyncio.sleep(2)
        assert not await spend(reservations, 1000)
        assert stage.kinds() == ["ledger_lost"]
        line.ledger = stage.ledger

    async def whole() -> None:
        stage = Stage((ALL,), None)
        await main(stage)
        await stage.holders[0].close()

    virtual.run(whole())


def test_a_start_on_a_ledger_that_came_back_empty_spends_nothing(tmp_path: Path) -> None:
    async def main(stage: Stage) -> None:
        first, _ = await stage.reservations(may_forget=True)
        assert await spend(first, 1000)
        await first.close()
        stage.holders.clear()
        stage.ledger = MemoryLedger(stage.ledger.now_s)
        second, _ = await stage.reservations(may_forget=True)
        refusal = await reserve(second, 1000)
        assert isinstance(refusal, BudgetRefusal) and refusal.reason == "ledger_lost"
        assert str(tmp_path) in stage.events[-1].detail
        await second.close()
        stage.holders.clear()
        (tmp_path / "ledger-id").unlink()
        third, _ = await stage.reservations(may_forget=True)
        assert await spend(third, 1000)

    play(main, folder=tmp_path)


def test_a_call_that_waits_when_its_process_stops_is_refused() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        waits = asyncio.create_task(reserve(reservations, 1000))
        await asyncio.sleep(0)
        await reservations.close()
        assert isinstance(await waits, BudgetRefusal)
        assert isinstance(await reserve(reservations, 1), BudgetRefusal)

    play(main)


def test_it_stops_even_where_a_client_library_loses_the_cancellation() -> None:
    class Deaf(Line):
        async def exchange(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                raise LedgerUnavailable("timed out at that very moment") from None
            return await super().exchange(exchanges)

    async def whole() -> None:
        stage = Stage((ALL,), None)
        line = Deaf(stage.ledger, Random(0), 0.0)
        clock = asyncio.get_running_loop().time
        reservations = Reservations(line, stage.budgets, holder="w", clock=clock)
        await reservations.open()
        waits = asyncio.create_task(reserve(reservations, 1000))
        await asyncio.sleep(0.5)  # an exchange is under way
        async with asyncio.timeout(5):
            await reservations.close()
        assert isinstance(await waits, BudgetRefusal)

    virtual.run(whole())


def test_a_lease_is_not_spent_after_it_may_have_expired() -> None:
    async def main(stage: Stage) -> None:
        reservations, line = await stage.reservations()
        accounts = reservations.matching("t", "r", "b", {})
        hold = await reserve(reservations, 1000)
        assert isinstance(hold, Reservation)
        line.cut = True
        await asyncio.sleep(LEASE_S + 1)
        assert reservations.reserve_now(accounts, 1, 1) is None
        stage.book().expire(stage.ledger.now_s())
        assert stage.book().unaccounted_nano == stage.book().spent_nano > 0
        line.cut = False
        await asyncio.sleep(2)
        reservations.settle(hold, 700)
        await asyncio.sleep(2)
        assert (stage.book().spent_nano, stage.book().unaccounted_nano) == (700, 0)
        assert "fenced" in stage.kinds()
        assert await spend(reservations, 39_300)

    play(main)


def test_a_dead_process_is_reconciled_by_its_neighbour(tmp_path: Path) -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        neighbour, _ = await stage.reservations()
        assert await spend(reservations, 5000)
        assert isinstance(await reserve(reservations, 1000), Reservation)
        assert (
            reservations._sync._task is not None and reservations._sync._recovery_file is not None
        )
        reservations._sync._task.cancel()
        reservations._sync._recovery_file.abandon()
        stage.holders.remove(reservations)
        await asyncio.sleep(1.5)
        book = stage.book()
        assert (book.spent_nano, book.unaccounted_nano, book.leased_nano) == (6000, 1000, 0)
        assert stage.kinds() == ["unaccounted"]
        assert await spend(neighbour, 34_000)

    play(main, folder=tmp_path)


def test_stopping_hands_back_all_and_leaves_no_recovery_file(tmp_path: Path) -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        assert await spend(reservations, 5000)
        assert len(files(tmp_path)) == 1
        await reservations.close()
        stage.holders.clear()
        assert (stage.book().spent_nano, stage.book().leased_nano) == (5000, 0)
        assert files(tmp_path) == []

    play(main, folder=tmp_path)


def test_stopping_without_the_ledger_leaves_the_recovery_file_to_prove_it(tmp_path: Path) -> None:
    async def main(stage: Stage) -> None:
        reservations, line = await stage.reservations()
        assert await spend(reservations, 5000)
        line.cut = True
        await reservations.close()
        stage.holders.clear()
        assert len(files(tmp_path)) == 1
        await stage.reservations()
        assert (stage.book().spent_nano, stage.book().leased_nano) == (5000, 0)

    play(main, folder=tmp_path)


# ---------------------------------------------------------------------- before blocking


def test_near_its_limit_a_budget_asks_for_cheaper_arms() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        accounts = reservations.matching("t", "r", "b", {})
        assert await spend(reservations, 7999)
        assert reservations.advice(accounts).max_price_usd is None
        assert await spend(reservations, 1)
        assert (
            reservations.advice(accounts).max_price_usd,
            reservations.advice(accounts).then,
        ) == (
            0.0001,
            "rules",
        )
        assert reservations.advice(()).max_price_usd is None

    play(
        main,
        Budget("all", Scope(), 10_000, downgrade_at=0.8, downgrade_max_usd=0.0001, then="rules"),
        Budget("other", Scope(), 10_000, downgrade_at=0.8, downgrade_max_usd=0.01),
    )


def test_each_threshold_is_one_event_on_all_replicas() -> None:
    async def main(stage: Stage) -> None:
        holders = [(await stage.reservations())[0] for _ in range(3)]
        for _ in range(10):
            for reservations in holders:
                await spend(reservations, 2000)
            await asyncio.sleep(1)
        shares = [event.share for event in stage.events if event.kind == "threshold"]
        assert shares == [0.8, 0.9, 1.0]

    play(main)


def test_the_last_money_is_held_without_waiting_where_less_than_the_maximum_will_do() -> None:
    """A refusal of a large amount does not delay a smaller one."""

    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        accounts = reservations.matching("t", "r", "b", {})
        started_s, held = asyncio.get_running_loop().time(), []
        for _ in range(40):
            found = reservations.reserve_now(accounts, 2_000, 2_000)
            found = found or await reservations.reserve(accounts, 2_000, 2_000, 300)
            assert isinstance(found, Reservation)
            held.append(found.hard_nano)
            await asyncio.sleep(0.002)
            reservations.settle(found, 1_000)
        assert held == [*[2_000] * 39, 1_000]
        assert asyncio.get_running_loop().time() - started_s < 0.3  # of virtual time
        refused = await reservations.reserve(accounts, 2_000, 2_000, 300)
        assert isinstance(refused, BudgetRefusal)
        assert (refused.reason, refused.left_nano) == ("exhausted", 0)

    play(main)


def test_no_less_is_held_than_the_least_useful_amount() -> None:
    async def main(stage: Stage) -> None:
        reservations, _ = await stage.reservations()
        accounts = reservations.matching("t", "r", "b", {})
        first = await reservations.reserve(accounts, 39_800, 39_800)
        assert isinstance(first, Reservation)
        reservations.settle(first, 39_800)
        refused = await reservations.reserve(accounts, 2_000, 2_000, 300)
        assert isinstance(refused, BudgetRefusal)
        assert refused.reason == "exhausted"
        last = await reservations.reserve(accounts, 2_000, 2_000, 200)
        assert isinstance(last, Reservation)
        assert last.hard_nano == 200
        reservations.void(last)

    play(main)
