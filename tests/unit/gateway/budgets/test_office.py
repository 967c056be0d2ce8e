"""Operators' changes to budgets, on every ledger."""

from dataclasses import replace

import pytest

from tests.support.ledgers import START_S, Bench, Implementation
from tollway.gateway.budgets.administration import BudgetAdmin
from tollway.gateway.budgets.model import MAX_LIMIT_NANO, Budget, Scope
from tollway.gateway.budgets.window_state import LEASE_S

HOUR_START_S = int(START_S - START_S % 3600)
BUDGETS = [Budget("b", Scope(), 1000, window="hour"), Budget("c", Scope(tenant="t"), 500)]
WINDOW = (HOUR_START_S, HOUR_START_S + 3600)


def admin(bench: Bench) -> BudgetAdmin:
    return BudgetAdmin(bench.ledger, BUDGETS, clock=lambda: 12.5)


def test_it_lists_every_budget_in_its_current_window(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 300, window=WINDOW)
        await bench.say("x", window=WINDOW, settled_nano=100)
        first, second = await admin(bench).list()
        assert (first.budget.name, first.spent_nano, first.held_nano) == ("b", 100, 200)
        assert (first.window_start_s, first.resets_at_s) == WINDOW
        assert (second.free_nano, second.resets_at_s) == (500, None)

    ledger.run(main, *BUDGETS)


def test_a_reset_frees_the_whole_limit_and_hides_nothing(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 700, window=WINDOW)
        await bench.say("x", window=WINDOW, settled_nano=600)
        for spent_nano in (600, 900):
            status = (await admin(bench).reset("b", "ann", "a test ran wild")).status
            assert (status.spent_nano, status.credit_nano) == (spent_nano, spent_nano)
            assert status.free_nano + status.held_nano == 1000
            await bench.lease("x", 300, window=WINDOW, settled_nano=900)
        details = await admin(bench).show("b")
        assert [change.kind for change in details.changes] == ["credit", "credit"]
        assert details.changes[0].at_s == 12.5

    ledger.run(main, *BUDGETS)


def test_a_change_needs_a_name_a_reason_and_an_amount(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        for who, why in (("", "why"), ("ann", " ")):
            with pytest.raises(ValueError, match="requires `who` and `why`"):
                await admin(bench).set_limit("b", 5, who, why)
        for limit_nano in (-1, MAX_LIMIT_NANO + 1):
            with pytest.raises(ValueError, match="the limit must be"):
                await admin(bench).set_limit("b", limit_nano, "ann", "why")
        with pytest.raises(KeyError):
            await admin(bench).show("nope")
        assert (await admin(bench).show("b")).changes == ()

    ledger.run(main, *BUDGETS)


def test_it_sets_limits_and_shows_and_releases_holders(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 300, window=WINDOW)
        details = await admin(bench).set_limit("b", 2000, "ann", "launch")
        assert (details.status.limit_nano, details.holders[0].held_nano) == (2000, 300)
        await bench.turn(START_S + LEASE_S)
        details = await admin(bench).show("b")
        assert (details.holders[0].state, details.status.unaccounted_nano) == ("ended", 300)
        details = await admin(bench).release("b", "x", "bob", "the machine burnt down")
        assert (details.status.unaccounted_nano, details.status.free_nano) == (0, 2000)
        assert [change.who for change in details.changes] == ["ann", "bob"]

    ledger.run(main, *BUDGETS)


def test_reading_budgets_changes_none_of_them(ledger: Implementation) -> None:
    """Two gateways whose configurations differ, while a new one is rolled out, and an operator."""

    async def main(bench: Bench) -> None:
        other = BudgetAdmin(bench.ledger, [replace(budget, limit_nano=7) for budget in BUDGETS])
        await admin(bench).set_limit("b", 2000, "ann", "launch")
        for one in (other, admin(bench), other):
            assert (await one.show("b")).status.limit_nano == 2000
            assert [status.limit_nano for status in await one.list()] == [2000, 500]
        await other.credit("b", 5, "bob", "a gift")
        details = await admin(bench).show("b")
        assert details.status.limit_nano == 2005
        assert [change.who for change in details.changes] == ["ann", "bob"]

    ledger.run(main, *BUDGETS)


def test_a_budget_that_no_gateway_has_registered_can_be_read(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        both = [*BUDGETS, Budget("new", Scope(), 70)]
        listed = await BudgetAdmin(bench.ledger, both).list()
        assert [status.limit_nano for status in listed] == [1000, 500, 70]
        assert await BudgetAdmin(bench.ledger, []).list() == []

    ledger.run(main, *BUDGETS)
