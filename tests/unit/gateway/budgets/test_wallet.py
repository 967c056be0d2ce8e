"""The wallet, over the ledger in memory, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support import virtual
from tests.support.ledgers import START_S
from tests.support.world import Line
from tollway.gateway.budgets.model import (
    Budget,
    BudgetEvent,
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
ALL = Budget("all", Scope(), 40_000)


@dataclass
class Stage:
    """A ledger in memory, and the wallets on it."""

    budgets: tuple[Budget, ...]
    folder: Path | None
    events: list[BudgetEvent] = field(default_factory=list)
    wallets: list[Reservations] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = MemoryLedger(lambda: START_S + asyncio.get_running_loop().time())

    async def wallet(self, may_forget: bool = False, **options: Any) -> tuple[Reservations, Line]:
        line = Line(self.ledger, Random(0), 0.0, may_forget)
        wallet = Reservations(
            line,
            self.budgets,
            holder="w",
            clock=asyncio.get_running_loop().time,
            till_dir=self.folder,
            on_event=self.events.append,
            **options,
        )
        await wallet.open()
        self.wallets.append(wallet)
        return wallet, line

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def book(self, name: str = "all") -> Any:
        [book] = [book for book in self.ledger.books() if book.budget == name]
        book.check()
        return book


def play(
    main: Callable[[Stage], Coroutine[Any, Any, None]],
    *budgets: Budget,
    folder: Path | None = None,
) -> None:
    """Run a test in virtual time; every wallet hands back all in the end."""

    async def whole() -> None:
        stage = Stage(budgets or (ALL,), folder)
        await main(stage)
        for wallet in stage.wallets:
            await wallet.close()
        for book in stage.ledger.books():
            book.check()
            assert book.leased_nano == 0

    virtual.run(whole())


async def reserve(
    wallet: Reservations, amount_nano: int, tenant: str = "t"
) -> Reservation | BudgetRefusal:
    accounts = wallet.matching(tenant, "r", "b", {})
    hold = wallet.reserve_now(accounts, amount_nano, amount_nano)
    return hold or await wallet.reserve(accounts, amount_nano, amount_nano)


async def spend(wallet: Reservations, amount_nano: int, tenant: str = "t") -> bool:
    hold = await reserve(wallet, amount_nano, tenant)
    if isinstance(hold, BudgetRefusal):
        return False
    wallet.settle(hold, amount_nano)
    return True


def status(wallet: Reservations, name: str = "all") -> BudgetStatus:
    [found] = [status for status in wallet.status() if status.budget.name == name]
    assert found.limit_nano + found.overdraft_nano == (
        found.carried_nano + found.spent_nano + found.held_nano + found.free_nano
    )
    return found


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


# ---------------------------------------------------------------------- reserving


def test_a_hundred_at_once_on_a_budget_for_forty_are_answered_forty_times() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()

        async def one() -> bool:
            hold = await reserve(wallet, 1000)
            if isinstance(hold, BudgetRefusal):
                return False
            await asyncio.sleep(0.3)
            wallet.settle(hold, 1000)
            return True

        answered = await asyncio.gather(*(one() for _ in range(100)))
        assert sum(answered) == 40
        await asyncio.sleep(2)
        assert stage.book().spent_nano == 40_000

    play(main)


@pytest.mark.parametrize("wallets", [2, 4])
def test_many_processes_share_a_budget_exactly(wallets: int) -> None:
    async def main(stage: Stage) -> None:
        shares = [(await stage.wallet())[0] for _ in range(wallets)]
        answered = await asyncio.gather(*(spend(shares[n % wallets], 1000) for n in range(100)))
        assert sum(answered) == 40
        await asyncio.sleep(2)
        assert stage.book().spent_nano == 40_000

    play(main)


def test_a_hold_is_in_every_scope_that_matches_or_in_none() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        assert await spend(wallet, 900)
        refusal = await reserve(wallet, 200)
        assert isinstance(refusal, BudgetRefusal)
        assert (refusal.budget, refusal.scope) == ("tight", {"tenant": "t"})
        assert all(account.lease.open_nano == 0 for account in wallet.matching("t", "r", "b", {}))
        assert await spend(wallet, 200, tenant="another")
        assert await spend(wallet, 100)

    play(main, ALL, Budget("tight", Scope(tenant="t"), 1000))


def test_a_budget_binds_calls_that_match_every_part_of_its_scope() -> None:
    budgets = [
        Budget("tenant", Scope(tenant="t"), 1),
        Budget("both", Scope(tenant="t", backend="gpu"), 1),
        Budget("tag", Scope(tags=(("env", "prod"), ("team", "ads"))), 1),
    ]

    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()

        def names(*call: Any) -> list[str]:
            return [account.budget.name for account in wallet.matching(*call)]

        assert names("t", "r", "cpu", {}) == ["tenant"]
        assert names("t", "r", "gpu", {"env": "prod"}) == ["tenant", "both"]
        assert names("u", "r", "gpu", {"team": "ads", "env": "prod", "x": "y"}) == ["tag"]
        assert names("u", "r", "gpu", {}) == []
        for number in range(3 * MATCHES_MAX):
            names("t", "r", "cpu", {"random": str(number)})
        assert len(wallet._matches) <= MATCHES_MAX

    play(main, *budgets)


def test_where_no_budget_binds_a_call_it_is_free_to_go() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        hold = wallet.reserve_now((), 10**12, 10**12)
        assert hold is not None
        wallet.settle(hold, 10**12)

    play(main)


def test_hard_holds_the_maximum_expected_the_ceiling_and_soft_never_refuses() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        accounts = wallet.matching("t", "r", "b", {})
        hold = await wallet.reserve(accounts, 300, 500)
        assert isinstance(hold, Reservation)
        assert [amount for _, amount in hold.holds] == [500, 300, 300]
        wallet.settle(hold, 100)
        refusal = await wallet.reserve(accounts, 300, 901)
        assert isinstance(refusal, BudgetRefusal) and refusal.budget == "hard"
        hold = await wallet.reserve(accounts, 900, 900)
        assert isinstance(hold, Reservation)  # soft has had 100 of its 50
        wallet.settle(hold, 900)
        await asyncio.sleep(2)
        assert status(wallet, "soft").spent_nano == 1000
        assert status(wallet, "soft").overdraft_nano == 950

    play(
        main,
        Budget("hard", Scope(), 1000),
        Budget("expected", Scope(), 5000, enforcement="expected"),
        Budget("soft", Scope(), 50, enforcement="soft"),
    )


def test_a_reservation_ends_once_and_no_cost_is_negative() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        hold = await reserve(wallet, 10)
        assert isinstance(hold, Reservation)
        with pytest.raises(ValueError, match="-1"):
            wallet.settle(hold, -1)
        wallet.void(hold)
        for end in (lambda: wallet.settle(hold, 5), lambda: wallet.void(hold)):
            with pytest.raises(RuntimeError, match="once"):
                end()
        assert status(wallet).spent_nano == 0

    play(main)


def test_a_cost_above_its_reservation_is_charged_and_shown_as_overdraft() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        hold = await reserve(wallet, 40_000)
        assert isinstance(hold, Reservation)
        wallet.settle(hold, 41_000)
        assert status(wallet).overdraft_nano == 1000
        assert not await spend(wallet, 1)
        await asyncio.sleep(2)
        assert (stage.book().spent_nano, status(wallet).overdraft_nano) == (41_000, 1000)
        [told] = [event for event in stage.events if event.kind == "overdraft"]
        assert (told.budget, told.amount_nano) == ("all", 1000)

    play(main)


@pytest.mark.integration
def test_an_overdraft_is_made_good_in_the_next_window_where_that_is_wanted() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        hold = await reserve(wallet, 40_000)
        assert isinstance(hold, Reservation)
        await asyncio.sleep(HOUR_S)
        assert await spend(wallet, 30_000)  # its bill has not come yet
        wallet.settle(hold, 55_000)
        await asyncio.sleep(2)
        assert status(wallet).carried_nano == 15_000
        assert (status(wallet).free_nano, status(wallet).overdraft_nano) == (0, 5000)
        assert wallet.advice(wallet.matching("t", "r", "b", {})).max_price_usd == 0.01
        assert not await spend(wallet, 1)
        await asyncio.sleep(HOUR_S)
        assert await spend(wallet, 35_000)
        assert not await spend(wallet, 1)

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


def test_what_is_quoted_at_nothing_needs_no_money_but_is_charged_if_it_bills_all_the_same() -> None:
    async def main(stage: Stage) -> None:
        wallet, line = await stage.wallet()
        hold = await reserve(wallet, 0)
        assert isinstance(hold, Reservation)
        await asyncio.sleep(2)  # long enough for an idle purse to go back
        wallet.settle(hold, 7)
        assert await spend(wallet, 39_993)
        assert not await spend(wallet, 1)
        assert await spend(wallet, 0)
        line.cut = True
        await asyncio.sleep(2)
        assert await spend(wallet, 0)
        line.cut = False
        await asyncio.sleep(2)
        assert stage.book().spent_nano == 40_000

    play(main)


def test_a_refusal_says_what_is_left_and_when_more_comes() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        assert await spend(wallet, 700)
        hold = await reserve(wallet, 200)
        refusal = await reserve(wallet, 101)
        assert isinstance(refusal, BudgetRefusal) and isinstance(hold, Reservation)
        figures = refusal.limit_nano, refusal.spent_nano, refusal.held_nano, refusal.free_nano
        assert sum(figures[1:]) == figures[0] == 1000
        assert (refusal.asked_nano, refusal.reason, refusal.then) == (101, "held", "cheapest")
        assert refusal.resets_at_s == START_S - START_S % HOUR_S + HOUR_S
        assert refusal.resets_at == "2096-10-02T08:00:00Z"
        wallet.void(hold)

    play(main, Budget("all", Scope(), 1000, window="hour", then="cheapest"))


# ---------------------------------------------------------------------- asking the ledger


def test_a_thousand_requests_ask_the_ledger_at_most_twenty_times() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        before = wallet.ledger_calls
        for _ in range(1000):
            assert await spend(wallet, 1000)
            await asyncio.sleep(0.001)
        assert wallet.ledger_calls - before <= 20

    play(main, Budget("all", Scope(), 1_000_000))


def test_steady_traffic_never_waits_for_the_ledger() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        accounts = wallet.matching("t", "r", "b", {})
        assert await spend(wallet, 1000)
        for _ in range(3000):
            await asyncio.sleep(0.005)
            hold = wallet.reserve_now(accounts, 1000, 1000)
            assert hold is not None
            wallet.settle(hold, 1000)

    play(main, Budget("all", Scope(), 10**9))


def test_idle_money_is_back_within_a_second() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        hold = await reserve(wallet, 1000)
        assert isinstance(hold, Reservation)
        assert stage.book().leased_nano > 1000
        await asyncio.sleep(1.0)
        assert stage.book().leased_nano == 1000  # the call is still under way
        wallet.settle(hold, 400)
        await asyncio.sleep(1.0)
        assert (stage.book().spent_nano, stage.book().leased_nano) == (400, 0)

    play(main)


def test_who_needs_money_that_others_hold_idle_waits_for_it_and_gets_it() -> None:
    async def main(stage: Stage) -> None:
        rich, _ = await stage.wallet()
        poor, _ = await stage.wallet()
        assert await spend(rich, 1000)
        assert await spend(poor, 35_000)
        assert await spend(poor, 4_000)
        assert not await spend(poor, 1)
        assert stage.book().spent_nano + rich.status()[0].held_nano <= 40_000

    play(main)


def test_a_storm_of_refusals_is_no_storm_on_the_ledger() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        assert await spend(wallet, 40_000)
        before = wallet.ledger_calls
        for _ in range(1000):
            assert not await spend(wallet, 1)
            await asyncio.sleep(0.005)
        assert wallet.ledger_calls - before <= 15  # in five seconds

    play(main)


def test_a_raised_limit_is_seen_within_a_second() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        assert await spend(wallet, 40_000)
        for _ in range(100):
            assert not await spend(wallet, 1)
            await asyncio.sleep(0.05)
        await stage.ledger.change(BudgetChange("credit", "all", 1000, "ann", "why"))
        await asyncio.sleep(1.0)
        assert await spend(wallet, 1000)

    play(main)


# ---------------------------------------------------------------------- windows


@pytest.mark.integration
def test_a_new_window_has_its_own_money_and_a_late_settlement_goes_to_the_old() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        hold = await reserve(wallet, 1000)
        assert isinstance(hold, Reservation)
        assert not await spend(wallet, 1)
        await asyncio.sleep(HOUR_S)
        assert await spend(wallet, 1000)
        wallet.settle(hold, 600)
        await asyncio.sleep(2)
        assert [book.spent_nano for book in stage.ledger.books()] == [600, 1000]

    play(main, Budget("all", Scope(), 1000, window="hour"))


@pytest.mark.integration
def test_nothing_is_reserved_from_a_window_that_has_ended() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        to_end_s = HOUR_S - START_S % HOUR_S
        await asyncio.sleep(to_end_s - 0.3)
        assert await spend(wallet, 10)
        accounts = wallet.matching("t", "r", "b", {})
        await asyncio.sleep(0.2)
        hold = wallet.reserve_now(accounts, 1, 1)
        assert hold is not None
        wallet.void(hold)
        await asyncio.sleep(0.1)
        assert wallet.reserve_now(accounts, 1, 1) is None

    play(main, Budget("all", Scope(), 1000, window="hour"))


# ---------------------------------------------------------------------- trouble


def test_ledger_gone_leases_go_on_then_calls_are_refused_and_say_why() -> None:
    async def main(stage: Stage) -> None:
        wallet, line = await stage.wallet()
        assert await spend(wallet, 1000)
        leased_nano = stage.book().leased_nano - 1000  # what is settled is told later
        line.cut = True
        while await spend(wallet, 1000):
            leased_nano -= 1000
        assert leased_nano < 1000
        refusal = await reserve(wallet, 1000)
        assert isinstance(refusal, BudgetRefusal) and refusal.reason == "ledger_down"
        assert wallet.down == "ledger_down"
        line.cut = False
        await asyncio.sleep(1)
        assert await spend(wallet, 1000)
        assert stage.kinds() == ["ledger_down", "ledger_up"]

    play(main)


def test_one_lost_answer_refuses_nobody() -> None:
    async def main(stage: Stage) -> None:
        wallet, line = await stage.wallet()
        line.cut = True
        asked = asyncio.create_task(spend(wallet, 1000))
        await asyncio.sleep(0.06)  # until one exchange was given up
        line.cut = False
        assert await asked
        assert stage.kinds() == []

    play(main)


def test_money_is_kept_for_who_waits_for_that_of_another_budget() -> None:
    """Two budgets that are short would else give theirs back in turns, and it waits for ever."""

    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        both = wallet.matching("t", "r", "b", {})
        hold = await wallet.reserve(both, 20_000, 20_000)
        assert isinstance(hold, Reservation)
        wallet.void(hold)
        first, second = both
        first._short = second._short = True  # as the ledger says where others want more
        idle_nano = first.lease.idle_nano

        with wallet._keeping(both, second, 16_000, 16_000):  # it lacks of the second
            assert first._excess(first.lease) == idle_nano - 16_000
            assert second._excess(second.lease) == second.lease.idle_nano
        assert first._excess(first.lease) == idle_nano
        await asyncio.sleep(2)

    play(main, Budget("first", Scope(), 100_000), Budget("second", Scope(tenant="t"), 100_000))


def test_who_is_closing_refuses_also_where_it_would_go_on_without_a_ledger() -> None:
    async def main(stage: Stage) -> None:
        wallet, line = await stage.wallet(on_ledger_failure="allow")
        line.cut = True
        closing = asyncio.create_task(wallet.close())
        await asyncio.sleep(0.1)

        refusal = await wallet.reserve(wallet.matching("t", "r", "b", {}), 10, 10)

        assert isinstance(refusal, BudgetRefusal)
        assert refusal.reason == "ledger_down"
        line.cut = False
        await closing

    play(main)


def test_what_a_soft_budget_counts_while_its_wallet_closes_is_not_lost(tmp_path: Path) -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        accounts = wallet.matching("t", "r", "b", {})
        hold = await wallet.reserve(accounts, 10, 10)
        assert isinstance(hold, Reservation)
        wallet.settle(hold, 10)
        closing = asyncio.create_task(wallet.close())
        await asyncio.sleep(0.0005)  # it hands back what it has
        late = await wallet.reserve(accounts, 7, 7)
        assert isinstance(late, Reservation)
        wallet.settle(late, 7)
        await closing
        stage.wallets.remove(wallet)

        await stage.wallet()

        assert stage.book("soft").spent_nano == 17

    play(main, Budget("soft", Scope(), 100, enforcement="soft"), folder=tmp_path)


def test_ledger_gone_and_configured_open_calls_go_on_and_are_charged_later() -> None:
    async def main(stage: Stage) -> None:
        wallet, line = await stage.wallet(on_ledger_failure="allow")
        line.cut = True
        for _ in range(50):
            assert await spend(wallet, 1000)
        line.cut = False
        await asyncio.sleep(2)
        assert (stage.book().spent_nano, status(wallet).overdraft_nano) == (50_000, 10_000)
        assert not await spend(wallet, 1)

    play(main)


def test_a_ledger_that_forgot_everything_is_not_believed() -> None:
    async def main(stage: Stage) -> None:
        wallet, line = await stage.wallet()
        assert await spend(wallet, 1000)
        line.ledger = MemoryLedger(stage.ledger.now_s)
        await asyncio.sleep(2)
        while await spend(wallet, 1000):
            pass  # what was leased before it was lost is ours
        refusal = await reserve(wallet, 1000)
        assert isinstance(refusal, BudgetRefusal) and refusal.reason == "ledger_lost"
        await line.ledger.register(stage.budgets)  # somebody else has started, on the empty one
        await asyncio.sleep(2)
        assert not await spend(wallet, 1000)
        assert stage.kinds() == ["ledger_lost"]
        line.ledger = stage.ledger

    async def whole() -> None:
        stage = Stage((ALL,), None)
        await main(stage)
        await stage.wallets[0].close()

    virtual.run(whole())


def test_a_start_on_a_ledger_that_came_back_empty_spends_nothing(tmp_path: Path) -> None:
    async def main(stage: Stage) -> None:
        first, _ = await stage.wallet(may_forget=True)
        assert await spend(first, 1000)
        await first.close()
        stage.wallets.clear()
        stage.ledger = MemoryLedger(stage.ledger.now_s)
        second, _ = await stage.wallet(may_forget=True)
        refusal = await reserve(second, 1000)
        assert isinstance(refusal, BudgetRefusal) and refusal.reason == "ledger_lost"
        assert str(tmp_path) in stage.events[-1].detail
        await second.close()
        stage.wallets.clear()
        (tmp_path / "ledger-id").unlink()
        third, _ = await stage.wallet(may_forget=True)
        assert await spend(third, 1000)

    play(main, folder=tmp_path)


def test_a_call_that_waits_when_its_process_stops_is_refused() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        waits = asyncio.create_task(reserve(wallet, 1000))
        await asyncio.sleep(0)
        await wallet.close()
        assert isinstance(await waits, BudgetRefusal)
        assert isinstance(await reserve(wallet, 1), BudgetRefusal)

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
        wallet = Reservations(line, stage.budgets, holder="w", clock=clock)
        await wallet.open()
        waits = asyncio.create_task(reserve(wallet, 1000))
        await asyncio.sleep(0.5)  # an exchange is under way
        async with asyncio.timeout(5):
            await wallet.close()
        assert isinstance(await waits, BudgetRefusal)

    virtual.run(whole())


def test_a_lease_is_not_spent_after_it_may_have_expired() -> None:
    async def main(stage: Stage) -> None:
        wallet, line = await stage.wallet()
        accounts = wallet.matching("t", "r", "b", {})
        hold = await reserve(wallet, 1000)
        assert isinstance(hold, Reservation)
        line.cut = True
        await asyncio.sleep(LEASE_S + 1)
        assert wallet.reserve_now(accounts, 1, 1) is None
        stage.book().expire(stage.ledger.now_s())
        assert stage.book().unaccounted_nano == stage.book().spent_nano > 0
        line.cut = False
        await asyncio.sleep(2)
        wallet.settle(hold, 700)
        await asyncio.sleep(2)
        assert (stage.book().spent_nano, stage.book().unaccounted_nano) == (700, 0)
        assert "fenced" in stage.kinds()
        assert await spend(wallet, 39_300)

    play(main)


def test_a_dead_process_is_reconciled_by_its_neighbour(tmp_path: Path) -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        neighbour, _ = await stage.wallet()
        assert await spend(wallet, 5000)
        assert isinstance(await reserve(wallet, 1000), Reservation)
        assert wallet._sync._task is not None and wallet._sync._recovery_file is not None
        wallet._sync._task.cancel()
        wallet._sync._recovery_file.abandon()
        stage.wallets.remove(wallet)
        await asyncio.sleep(1.5)
        book = stage.book()
        assert (book.spent_nano, book.unaccounted_nano, book.leased_nano) == (6000, 1000, 0)
        assert stage.kinds() == ["unaccounted"]
        assert await spend(neighbour, 34_000)

    play(main, folder=tmp_path)


def test_stopping_hands_back_all_and_leaves_no_till(tmp_path: Path) -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        assert await spend(wallet, 5000)
        assert len(files(tmp_path)) == 1
        await wallet.close()
        stage.wallets.clear()
        assert (stage.book().spent_nano, stage.book().leased_nano) == (5000, 0)
        assert files(tmp_path) == []

    play(main, folder=tmp_path)


def test_stopping_without_the_ledger_leaves_the_till_to_prove_it(tmp_path: Path) -> None:
    async def main(stage: Stage) -> None:
        wallet, line = await stage.wallet()
        assert await spend(wallet, 5000)
        line.cut = True
        await wallet.close()
        stage.wallets.clear()
        assert len(files(tmp_path)) == 1
        await stage.wallet()
        assert (stage.book().spent_nano, stage.book().leased_nano) == (5000, 0)

    play(main, folder=tmp_path)


# ---------------------------------------------------------------------- before blocking


def test_near_its_limit_a_budget_asks_for_cheaper_arms() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        accounts = wallet.matching("t", "r", "b", {})
        assert await spend(wallet, 7999)
        assert wallet.advice(accounts).max_price_usd is None
        assert await spend(wallet, 1)
        assert (wallet.advice(accounts).max_price_usd, wallet.advice(accounts).then) == (
            0.0001,
            "rules",
        )
        assert wallet.advice(()).max_price_usd is None

    play(
        main,
        Budget("all", Scope(), 10_000, downgrade_at=0.8, downgrade_max_usd=0.0001, then="rules"),
        Budget("other", Scope(), 10_000, downgrade_at=0.8, downgrade_max_usd=0.01),
    )


def test_each_threshold_is_one_event_on_all_replicas() -> None:
    async def main(stage: Stage) -> None:
        wallets = [(await stage.wallet())[0] for _ in range(3)]
        for _ in range(10):
            for wallet in wallets:
                await spend(wallet, 2000)
            await asyncio.sleep(1)
        shares = [event.share for event in stage.events if event.kind == "threshold"]
        assert shares == [0.8, 0.9, 1.0]

    play(main)


def test_the_last_money_is_held_without_waiting_where_less_than_the_maximum_will_do() -> None:
    """A refusal of a large amount says nothing of a smaller one, so nobody waits for it to pass."""

    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        accounts = wallet.matching("t", "r", "b", {})
        started_s, held = asyncio.get_running_loop().time(), []
        for _ in range(40):
            found = wallet.reserve_now(accounts, 2_000, 2_000)
            found = found or await wallet.reserve(accounts, 2_000, 2_000, 300)
            assert isinstance(found, Reservation)
            held.append(found.hard_nano)
            await asyncio.sleep(0.002)
            wallet.settle(found, 1_000)
        assert held == [*[2_000] * 39, 1_000]
        assert asyncio.get_running_loop().time() - started_s < 0.3  # of virtual time
        refused = await wallet.reserve(accounts, 2_000, 2_000, 300)
        assert isinstance(refused, BudgetRefusal)
        assert (refused.reason, refused.left_nano) == ("exhausted", 0)

    play(main)


def test_no_less_is_held_than_makes_a_call_worth_while() -> None:
    async def main(stage: Stage) -> None:
        wallet, _ = await stage.wallet()
        accounts = wallet.matching("t", "r", "b", {})
        first = await wallet.reserve(accounts, 39_800, 39_800)
        assert isinstance(first, Reservation)
        wallet.settle(first, 39_800)
        refused = await wallet.reserve(accounts, 2_000, 2_000, 300)
        assert isinstance(refused, BudgetRefusal)
        assert refused.reason == "exhausted"
        last = await wallet.reserve(accounts, 2_000, 2_000, 200)
        assert isinstance(last, Reservation)
        assert last.hard_nano == 200
        wallet.void(last)

    play(main)
