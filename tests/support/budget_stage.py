"""The reservations of several processes over a ledger in memory, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.support import virtual
from tests.support.ledgers import START_S
from tests.support.world import Line
from tollway.gateway.budgets.model import (
    Budget,
    BudgetEvent,
    BudgetRefusal,
    Reservation,
    Scope,
)
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.budgets.stores.memory import MemoryLedger

ALL = Budget("all", Scope(), 40_000)


@dataclass
class Stage:
    """A ledger in memory, and the reservations of several processes."""

    budgets: tuple[Budget, ...]
    folder: Path | None
    events: list[BudgetEvent] = field(default_factory=list)
    holders: list[Reservations] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = MemoryLedger(lambda: START_S + asyncio.get_running_loop().time())

    async def reservations(
        self, may_forget: bool = False, **options: Any
    ) -> tuple[Reservations, Line]:
        line = Line(self.ledger, Random(0), 0.0, may_forget)
        reservations = Reservations(
            line,
            self.budgets,
            holder="w",
            clock=asyncio.get_running_loop().time,
            recovery_dir=self.folder,
            on_event=self.events.append,
            **options,
        )
        await reservations.open()
        self.holders.append(reservations)
        return reservations, line

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
    """Run a test in virtual time; every process returns what is left at the end."""

    async def whole() -> None:
        stage = Stage(budgets or (ALL,), folder)
        await main(stage)
        for reservations in stage.holders:
            await reservations.close()
        for book in stage.ledger.books():
            book.check()
            assert book.leased_nano == 0

    virtual.run(whole())


async def reserve(
    reservations: Reservations, amount_nano: int, tenant: str = "t"
) -> Reservation | BudgetRefusal:
    accounts = reservations.matching(tenant, "r", "b", {})
    hold = reservations.reserve_now(accounts, amount_nano, amount_nano)
    return hold or await reservations.reserve(accounts, amount_nano, amount_nano)
