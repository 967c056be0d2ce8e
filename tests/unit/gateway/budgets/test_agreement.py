"""The three ledgers give equal answers to any operations, and their invariant holds."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.support.ledgers import START_S, ClockedRedis, Implementation
from tests.support.redis_server import RedisServer
from tollway.gateway.budgets.model import Budget, LeaseKey, Scope
from tollway.gateway.budgets.protocol import BudgetChange, LeaseExchange, Ledger, RecoveryClaim

EXAMPLES = int(os.environ.get("TOLLWAY_EXAMPLES", "60"))
BUDGET = Budget("b", Scope(), 10_000, alert_at=(0.1, 0.5, 1.0), carry_overdraft=True)
amounts = st.integers(0, 4000)
leases = st.sampled_from(["x", "y", "z"])
starts = st.sampled_from([0, 0, 50, 100])


class Agreement(RuleBasedStateMachine):
    """Applies every operation to each ledger."""

    names: tuple[str, ...] = ("memory", "sqlite")
    redis: RedisServer | None = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = TemporaryDirectory()
        self.now_s = START_S
        self.seqs: dict[tuple[str, int], int] = {}
        self.settled: dict[tuple[str, int], int] = {}
        self.said: dict[tuple[str, int, int], LeaseExchange] = {}
        self.ledgers = [
            Implementation(name, Path(self.folder.name), self.redis).make(lambda: self.now_s)
            for name in self.names
        ]
        for ledger in self.ledgers:
            self.runner.run(self.start(ledger))

    async def start(self, ledger: Ledger) -> None:
        await ledger.open()
        if isinstance(ledger, ClockedRedis):
            await ledger.flush()
            await ledger.open()
            await ledger.turn(self.now_s)
        await ledger.register([BUDGET])

    def teardown(self) -> None:
        for ledger in self.ledgers:
            self.runner.run(ledger.close())
        self.runner.close()
        self.folder.cleanup()

    def same(self, call: Callable[[Ledger], Coroutine[Any, Any, Any]]) -> None:
        """Apply an operation to all; their answers must be equal."""
        answers = []
        for ledger in self.ledgers:
            try:
                answers.append(self.runner.run(call(ledger)))
            except KeyError:
                answers.append(KeyError)
        assert all(answer == answers[0] for answer in answers), answers

    def exchange(self, asked: LeaseExchange) -> None:
        async def call(ledger: Ledger) -> Any:
            return (await ledger.exchange([asked])).replies

        self.same(call)

    @rule(
        lease=leases,
        start=starts,
        spent=amounts,
        flushed=amounts,
        figures=st.tuples(amounts, amounts, amounts, amounts, amounts, amounts),
        skip=st.sampled_from([1, 1, 1, 1, 2]),
        close=st.booleans(),
        ends=st.sampled_from([None, 10, 10**6]),
    )
    def say(  # noqa: PLR0917 - Hypothesis passes them by name
        self,
        lease: str,
        start: int,
        spent: int,
        flushed: int,
        figures: tuple[int, ...],
        skip: int,
        close: bool,
        ends: int | None,
    ) -> None:
        which = lease, start
        seq = self.seqs[which] = self.seqs.get(which, 0) + skip
        settled = self.settled[which] = self.settled.get(which, 0) + spent
        end_s = None if ends is None else int(START_S) + ends
        key = LeaseKey("b", start, end_s, lease)
        held, opened, give, need, due, want = figures
        asked = LeaseExchange(
            key,
            seq,
            settled_nano=settled,
            held_nano=held,
            flushed_nano=min(flushed, settled),
            open_nano=opened,
            give_nano=give,
            need_nano=need,
            due_nano=due,
            want_nano=want,
            close=close and seq > 1,
        )
        self.said[lease, start, seq] = asked
        self.exchange(asked)

    @rule(data=st.data())
    def say_again(self, data: st.DataObject) -> None:
        if self.said:
            self.exchange(data.draw(st.sampled_from(list(self.said.values()))))

    @rule(by_s=st.sampled_from([0.5, 29.0, 31.0, 700.0, 90_000.0, -5.0]))
    def turn(self, by_s: float) -> None:
        self.now_s += by_s
        for ledger in self.ledgers:
            if isinstance(ledger, ClockedRedis):
                self.runner.run(ledger.turn(self.now_s))

    @rule(lease=leases, start=starts, more=amounts, opened=amounts, acknowledged=st.booleans())
    def die(self, lease: str, start: int, more: int, opened: int, acknowledged: bool) -> None:
        settled = self.settled.get((lease, start), 0) + more
        claim = RecoveryClaim(LeaseKey("b", start, None, lease), settled, opened, acknowledged)
        self.same(lambda ledger: ledger.reconcile([claim]))

    @rule(
        kind=st.sampled_from(["limit", "credit", "release"]),
        amount=amounts,
        lease=leases,
        start=starts,
    )
    def act(self, kind: Any, amount: int, lease: str, start: int) -> None:
        change = BudgetChange(kind, "b", amount, "ann", "why", lease=lease, window_start_s=start)
        self.same(lambda ledger: ledger.change(change))
        self.same(self.changes)

    async def changes(self, ledger: Ledger) -> list[BudgetChange]:
        return [replace(change, at_s=0.0) for change in await ledger.changes("b")]

    @rule(limit=st.sampled_from([5000, 10_000]), carries=st.booleans())
    def configure(self, limit: int, carries: bool) -> None:
        budget = replace(BUDGET, limit_nano=limit, carry_overdraft=carries)

        async def call(ledger: Ledger) -> None:
            await ledger.register([budget])

        self.same(call)

    @invariant()
    def money_adds_up(self) -> None:
        places = [("b", 0), ("b", 50), ("b", 100)]
        self.same(lambda ledger: ledger.accounts(places))
        for account in self.runner.run(self.ledgers[0].accounts(places)):
            position = account.position
            assert position.limit_nano + position.overdraft_nano == (
                position.used_nano + position.leased_nano + position.free_nano
            )
            assert min(position.spent_nano, position.leased_nano, position.unaccounted_nano) >= 0
        for book in self.ledgers[0].books():  # type: ignore[attr-defined]
            book.check()


OPTIONS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


@pytest.mark.integration
def test_memory_and_sqlite_agree() -> None:
    run_state_machine_as_test(Agreement, settings=OPTIONS)


@pytest.mark.integration
def test_memory_and_redis_agree(shared_redis: RedisServer) -> None:
    class WithRedis(Agreement):
        names = ("memory", "redis")
        redis = shared_redis

    run_state_machine_as_test(WithRedis, settings=OPTIONS)
