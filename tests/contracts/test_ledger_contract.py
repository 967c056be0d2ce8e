"""The contract of `Ledger`, run over every implementation."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ledgers import START_S, Bench, Implementation
from tests.support.redis_server import RedisServer, redis_cluster, redis_server
from tollway.gateway.budgets.model import MAX_LIMIT_NANO, Budget, LeaseKey, Scope
from tollway.gateway.budgets.protocol import BudgetChange, LeaseExchange, RecoveryClaim
from tollway.gateway.budgets.window_state import KEEP_CLOSED_S, KEEP_ENDED_S, LEASE_S, SPENT_S


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), "--appendonly", "no") as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes[0]


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("redis", marks=pytest.mark.integration),
        pytest.param("cluster", marks=pytest.mark.integration),
    ],
)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Implementation:
    servers = {"redis": "server", "cluster": "cluster"}
    name = servers.get(request.param)
    server = None if name is None else request.getfixturevalue(name)
    return Implementation(request.param, tmp_path, server)


def key(lease: str, budget: str = "b") -> LeaseKey:
    return LeaseKey(budget, 0, None, lease)


# ---------------------------------------------------------------------- leasing


def test_a_lease_takes_from_what_is_free_and_settling_turns_it_into_spending(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        assert (await bench.lease("x", 300)).grant_nano == 300
        reply = await bench.say("x", settled_nano=120, open_nano=80)
        position = reply.position
        assert (position.spent_nano, position.leased_nano, position.free_nano) == (120, 180, 700)
        assert position.open_nano == 80

    ledger.run(main)


def test_what_is_asked_ahead_of_need_is_shared_but_need_is_met(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        first = await bench.say("x", need_nano=1, want_nano=10_000)
        second = await bench.say("y", need_nano=1, want_nano=10_000)
        assert (first.grant_nano, second.grant_nano) == (500, 166)
        needy = await bench.say("z", need_nano=10, due_nano=334, want_nano=334)
        assert needy.grant_nano == 334

    ledger.run(main)


def test_an_exchange_states_how_many_holders_leased_in_the_last_minute(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x.1", 10)
        assert (await bench.lease("x.2", 10)).position.spenders == 1
        assert (await bench.lease("y.1", 10)).position.spenders == 2
        assert (await bench.say("y.1", close=True, settled_nano=10)).position.spenders == 2
        await bench.turn(START_S + SPENT_S - 1)
        await bench.lease("x.3", 10)
        assert (await bench.account()).position.spenders == 2
        await bench.turn(START_S + SPENT_S + 1)
        assert (await bench.account()).position.spenders == 1

    ledger.run(main)


def test_what_is_leased_ahead_of_need_is_in_whole_calls(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        assert (await bench.say("x", need_nano=7, want_nano=10_000)).grant_nano == 497
        assert (await bench.say("y", need_nano=7, want_nano=100)).grant_nano == 98
        assert (await bench.say("z", need_nano=200, want_nano=10_000)).grant_nano == 200

    ledger.run(main)


def test_nothing_is_granted_if_the_least_useful_amount_is_not_free(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 950)
        reply = await bench.lease("y", 51)
        assert (reply.grant_nano, reply.short) == (0, True)
        assert (await bench.lease("y", 50)).grant_nano == 50
        assert (await bench.account()).position.free_nano == 0

    ledger.run(main)


def test_the_last_of_a_budget_can_be_leased_to_the_nano_dollar(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        assert (await bench.lease("x", MAX_LIMIT_NANO - 1)).grant_nano == MAX_LIMIT_NANO - 1
        assert (await bench.lease("y", 2)).grant_nano == 0
        assert (await bench.lease("y", 1)).grant_nano == 1
        assert (await bench.lease("y", 1)).grant_nano == 0
        reply = await bench.say("x", settled_nano=MAX_LIMIT_NANO - 1)
        assert reply.position.spent_nano == MAX_LIMIT_NANO - 1

    ledger.run(main, Budget("b", Scope(), MAX_LIMIT_NANO))


def test_holders_learn_that_another_is_short_and_return_idle_money(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 1000)
        assert (await bench.lease("y", 10)).grant_nano == 0
        assert (await bench.say("x")).short
        await bench.say("x", give_nano=990)
        assert (await bench.lease("y", 10)).grant_nano == 10
        await bench.turn(START_S + 2)
        assert not (await bench.say("x")).short

    ledger.run(main)


def test_a_window_that_is_not_the_current_one_grants_nothing_but_takes_settlements(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        window = int(START_S), int(START_S) + 20
        await bench.lease("x", 100, window=window)
        await bench.turn(START_S + 20)
        reply = await bench.lease("x", 100, window=window, settled_nano=70)
        assert (reply.grant_nano, reply.stale) == (0, True)
        assert (await bench.account("b", window[0])).position.spent_nano == 70
        early = window[1] + 20, window[1] + 40
        assert (await bench.lease("y", 100, window=early)).stale
        now = window[1], window[1] + 20
        assert (await bench.lease("z", 1000, window=now)).grant_nano == 1000

    ledger.run(main)


def test_an_overdraft_is_charged_and_shown_and_nothing_more_is_granted(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 1000)
        position = (await bench.say("x", settled_nano=1150)).position
        assert (position.spent_nano, position.leased_nano) == (1150, 0)
        assert (position.free_nano, position.overdraft_nano) == (0, 150)
        assert (await bench.lease("x", 1, settled_nano=1150)).grant_nano == 0

    ledger.run(main)


FIRST, SECOND, THIRD = ((int(START_S) + 20 * n, int(START_S) + 20 * n + 20) for n in range(3))
CARRYING = Budget("b", Scope(), 1000, window="hour", carry_overdraft=True)


def test_an_overdraft_is_repaid_by_the_following_windows(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 1000, window=FIRST)
        await bench.say("x", settled_nano=2300, window=FIRST)
        await bench.turn(FIRST[1])
        position = (await bench.lease("y", 1, window=SECOND)).position
        assert (position.carried_nano, position.spent_nano) == (1300, 0)
        assert (position.free_nano, position.overdraft_nano) == (0, 300)
        await bench.turn(SECOND[1])
        reply = await bench.lease("z", 700, window=THIRD)
        assert (reply.grant_nano, reply.position.carried_nano) == (700, 300)
        assert (reply.position.free_nano, reply.position.overdraft_nano) == (0, 0)
        assert (await bench.account("b", FIRST[0])).position.overdraft_nano == 1300

    ledger.run(main, CARRYING)


def test_a_late_bill_of_an_old_window_acts_on_the_current_one_at_once(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 1000, window=FIRST)
        await bench.turn(FIRST[1])
        assert (await bench.lease("y", 900, window=SECOND)).grant_nano == 900
        late = await bench.say("x", settled_nano=1200, window=FIRST)
        assert late.overdrawn_nano == 200
        position = (await bench.account("b", SECOND[0])).position
        assert (position.carried_nano, position.free_nano, position.overdraft_nano) == (200, 0, 100)
        await bench.say("y", give_nano=900, window=SECOND)
        assert (await bench.account("b", SECOND[0])).position.free_nano == 800

    ledger.run(main, CARRYING)


def test_money_that_was_in_doubt_is_carried_no_more_once_it_is_proven(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 600, window=FIRST)
        await bench.lease("y", 400, window=FIRST)
        await bench.say("y", settled_nano=700, window=FIRST)
        assert (await bench.account("b", SECOND[0])).position.carried_nano == 300
        await bench.ledger.reconcile([RecoveryClaim(LeaseKey("b", *FIRST, "x"), 0, 100)])
        assert (await bench.account("b", SECOND[0])).position.carried_nano == 0

    ledger.run(main, CARRYING)


def test_what_was_not_spent_is_never_carried(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 10, window=FIRST)
        await bench.turn(FIRST[1])
        reply = await bench.lease("y", 1001, window=SECOND)
        assert (reply.grant_nano, reply.position.free_nano) == (0, 1000)

    ledger.run(main, CARRYING)


def test_no_budget_carries_an_overdraft_by_default(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 1000, window=FIRST)
        await bench.say("x", settled_nano=2300, window=FIRST)
        await bench.turn(FIRST[1])
        assert (await bench.lease("y", 1000, window=SECOND)).grant_nano == 1000

    ledger.run(main)


def test_each_overspent_nano_dollar_is_reported_by_the_exchange_that_settled_it(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 600)
        await bench.lease("y", 400)
        assert (await bench.say("x", settled_nano=650)).overdrawn_nano == 50
        assert (await bench.say("x", seq=2, settled_nano=650)).overdrawn_nano == 50  # asked again
        assert (await bench.say("x", settled_nano=650)).overdrawn_nano == 0
        assert (await bench.say("y", settled_nano=300, give_nano=100)).overdrawn_nano == 0
        assert (await bench.say("y", settled_nano=460)).overdrawn_nano == 110

    ledger.run(main)


# ---------------------------------------------------------------------- once


def test_a_repeated_exchange_is_answered_and_not_applied(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        first = await bench.lease("x", 100)
        assert await bench.lease("x", 100, seq=1) == first
        given = await bench.say("x", settled_nano=30, give_nano=20, need_nano=5, due_nano=5)
        again = await bench.say("x", seq=2, settled_nano=30, give_nano=20, need_nano=5, due_nano=5)
        assert again == given
        assert (await bench.account()).position.spent_nano == 30
        assert (await bench.account()).position.leased_nano == 55

    ledger.run(main)


def test_a_delayed_copy_of_an_exchange_changes_nothing(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 100)
        await bench.say("x", settled_nano=10)
        await bench.say("x", settled_nano=40)
        assert (await bench.lease("x", 100, seq=1)).grant_nano == 0
        await bench.say("x", seq=2, settled_nano=10, give_nano=5)
        position = (await bench.account()).position
        assert (position.spent_nano, position.leased_nano) == (40, 60)

    ledger.run(main)


def test_a_closing_exchange_may_be_repeated_even_when_the_lease_is_forgotten(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 100)
        await bench.say("x", settled_nano=60, close=True)
        await bench.say("x", seq=2, settled_nano=60, close=True)
        await bench.turn(START_S + KEEP_CLOSED_S + 1)
        await bench.say("x", seq=2, settled_nano=60, close=True)
        account = await bench.account()
        assert (account.position.spent_nano, account.position.leased_nano) == (60, 0)
        assert account.leases == ()

    ledger.run(main)


def test_each_threshold_is_crossed_once_by_any_holder(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 500)
        await bench.lease("y", 500)
        assert (await bench.say("x", settled_nano=500)).crossed == ()
        assert (await bench.say("y", settled_nano=410)).crossed == (0.8, 0.9)
        assert (await bench.say("x", settled_nano=500)).crossed == ()
        assert (await bench.say("y", settled_nano=500)).crossed == (1.0,)
        assert (await bench.say("y", seq=3, settled_nano=500)).crossed == (1.0,)  # asked again
        assert (await bench.say("y", settled_nano=500)).crossed == ()

    ledger.run(main)


def test_after_a_failover_the_ledger_learns_lost_leases_from_the_holder(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 100)
        # Exchanges 2 and 3 are lost: 2 was granted 200 more, 3 reported 50 settled.
        reply = await bench.say("x", seq=4, settled_nano=60, held_nano=250, flushed_nano=50)
        position = reply.position
        assert (position.spent_nano, position.leased_nano) == (60, 240)

    ledger.run(main)


# ---------------------------------------------------------------------- holders that are gone


def test_an_expired_lease_counts_as_spent_and_is_unaccounted(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 300)
        await bench.say("x", settled_nano=100, open_nano=50)
        await bench.turn(START_S + LEASE_S)
        account = await bench.account()
        position = account.position
        assert (position.spent_nano, position.unaccounted_nano) == (300, 200)
        assert (position.leased_nano, position.open_nano) == (0, 0)
        assert [(view.state, view.charged_nano) for view in account.leases] == [("ended", 200)]

    ledger.run(main)


def test_a_holder_that_comes_back_late_gets_nothing_but_its_settlements_count(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 300)
        await bench.turn(START_S + LEASE_S)
        reply = await bench.lease("x", 10, settled_nano=100, open_nano=50)
        assert (reply.ended, reply.grant_nano) == (True, 0)
        position = (await bench.account()).position
        assert (position.spent_nano, position.unaccounted_nano) == (300, 200)
        await bench.say("x", settled_nano=140, give_nano=160)
        position = (await bench.account()).position
        assert (position.spent_nano, position.unaccounted_nano, position.free_nano) == (140, 0, 860)

    ledger.run(main)


def test_a_late_settlement_cannot_free_money_twice(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 300)
        await bench.turn(START_S + LEASE_S)
        await bench.say("x", settled_nano=0, give_nano=300)
        await bench.say("x", settled_nano=0, give_nano=300)
        position = (await bench.account()).position
        assert (position.spent_nano, position.free_nano) == (0, 1000)
        position = (await bench.say("x", settled_nano=40)).position
        assert position.spent_nano == 40  # a call that ran is charged, lease or no lease

    ledger.run(main)


@pytest.mark.parametrize("late", [False, True])
def test_a_recovery_file_proves_what_was_spent_and_the_rest_comes_back(
    ledger: Implementation, late: bool
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 300)
        await bench.say("x", settled_nano=100)
        await bench.turn(START_S + LEASE_S * late)
        freed = await bench.ledger.reconcile([RecoveryClaim(key("x"), 130, 50)])
        assert freed == (120)
        position = (await bench.account()).position
        assert (position.spent_nano, position.unaccounted_nano) == (180, 50)
        assert (position.leased_nano, position.free_nano) == (0, 820)

    ledger.run(main)


def test_a_reconciled_lease_accepts_no_exchange_and_is_reconciled_once(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 300)
        claim = RecoveryClaim(key("x"), 100, 50)
        await bench.ledger.reconcile([claim])
        assert await bench.ledger.reconcile([claim]) == 0
        await bench.say("x", settled_nano=100, give_nano=200)  # sent before it died, come late
        position = (await bench.account()).position
        assert (position.spent_nano, position.unaccounted_nano) == (150, 50)

    ledger.run(main)


def test_claims_on_unknown_leases_are_ignored(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        claims = [
            RecoveryClaim(key("never"), 5, 5),
            RecoveryClaim(key("x", "no-such-budget"), 5, 5),
        ]
        assert await bench.ledger.reconcile(claims) == 0
        assert (await bench.account()).position.spent_nano == 0

    ledger.run(main)


def test_an_ended_lease_is_forgotten_when_nothing_is_charged_on_it(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 100)
        await bench.lease("y", 100)
        await bench.turn(START_S + LEASE_S)
        await bench.say("y", give_nano=100)
        await bench.turn(START_S + LEASE_S + KEEP_ENDED_S + 1)
        assert [view.lease for view in (await bench.account()).leases] == ["x"]

    ledger.run(main)


# ---------------------------------------------------------------------- operators


def test_an_operator_sets_limits_adds_credit_and_releases_leases_and_all_is_kept(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        acts = [
            BudgetChange("limit", "b", 2000, "ann", "launch", at_s=1.5),
            BudgetChange("credit", "b", 500, "bob", "refund", at_s=2.5),
            BudgetChange("release", "b", 0, "ann", "the host burnt down", lease="x", at_s=3.5),
        ]
        await bench.lease("x", 300)
        assert (await bench.ledger.change(acts[0])).limit_nano == 2000
        raised = await bench.ledger.change(acts[1])
        assert (raised.limit_nano, raised.credit_nano, raised.spent_nano) == (2500, 500, 0)
        await bench.turn(START_S + LEASE_S)
        assert (await bench.account()).position.unaccounted_nano == 300
        released = await bench.ledger.change(acts[2])
        assert (released.unaccounted_nano, released.free_nano) == (0, 2500)
        assert await bench.ledger.changes("b") == tuple(acts)

    ledger.run(main)


def test_a_released_lease_of_a_holder_that_lives_spends_no_more(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 300)
        await bench.ledger.change(BudgetChange("release", "b", 0, "ann", "gone", lease="x"))
        reply = await bench.lease("x", 10, settled_nano=20)
        assert (reply.ended, reply.grant_nano, reply.position.spent_nano) == (True, 0, 20)

    ledger.run(main)


def test_a_change_to_an_unknown_budget_or_lease_is_an_error_and_not_recorded(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        for change in (
            BudgetChange("limit", "nope", 1, "ann", "why"),
            BudgetChange("release", "b", 0, "ann", "why", lease="nope"),
        ):
            with pytest.raises(KeyError):
                await bench.ledger.change(change)
        assert await bench.ledger.changes("b") == ()

    ledger.run(main)


def test_an_operators_limit_outlasts_restarts_until_the_configuration_changes(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.ledger.change(BudgetChange("limit", "b", 1500, "ann", "why"))
        await bench.ledger.register([Budget("b", Scope(), 1000)])
        assert (await bench.account()).position.limit_nano == 1500
        await bench.ledger.register([Budget("b", Scope(), 1200)])
        assert (await bench.account()).position.limit_nano == 1200
        assert [change.who for change in await bench.ledger.changes("b")] == ["ann", "config"]

    ledger.run(main)


def test_a_lowered_limit_leaves_leases_alone_and_grants_no_more(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        await bench.lease("x", 800)
        await bench.ledger.change(BudgetChange("limit", "b", 500, "ann", "why"))
        position = (await bench.say("x", settled_nano=100)).position
        assert (position.leased_nano, position.free_nano, position.overdraft_nano) == (700, 0, 300)
        assert (await bench.lease("y", 1)).grant_nano == 0

    ledger.run(main)


def test_a_budget_that_was_never_registered_is_an_error(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        with pytest.raises(KeyError):
            await bench.ledger.exchange([LeaseExchange(key("x", "nope"), 1)])
        with pytest.raises(KeyError):
            await bench.ledger.accounts([("nope", 0)])

    ledger.run(main)


def test_a_batch_is_answered_in_its_order_and_each_budget_is_its_own(
    ledger: Implementation,
) -> None:
    async def main(bench: Bench) -> None:
        asked = [
            LeaseExchange(key("x", name), 1, need_nano=amount, due_nano=amount)
            for name, amount in (("c", 30), ("b", 20), ("odd {name}", 10))
        ]
        answer = await bench.ledger.exchange(asked)
        assert [reply.grant_nano for reply in answer.replies] == [30, 20, 10]
        assert answer.now_s == pytest.approx(START_S)

    names = ("b", "c", "odd {name}")
    ledger.run(main, *[Budget(name, Scope(), 1000) for name in names])


def test_a_hundred_at_once_on_a_budget_worth_forty_get_forty(ledger: Implementation) -> None:
    async def main(bench: Bench) -> None:
        replies = await asyncio.gather(*(bench.lease(f"h{n}", 25) for n in range(100)))
        assert sorted(reply.grant_nano for reply in replies) == [0] * 60 + [25] * 40

    ledger.run(main)


def test_a_holder_that_comes_back_after_days_is_charged_once(ledger: Implementation) -> None:
    """A machine was asleep: its lease ended without money in doubt and is still known."""

    async def main(bench: Bench) -> None:
        await bench.lease("x", 100)
        await bench.say("x", settled_nano=100, held_nano=100)
        await bench.turn(START_S + LEASE_S)
        assert (await bench.account()).position.spent_nano == 100
        await bench.turn(START_S + 5 * 86_400)
        await bench.account()  # the ledger forgets what it may

        await bench.say("x", settled_nano=150, flushed_nano=100)

        assert (await bench.account()).position.spent_nano == 150

    ledger.run(main)
