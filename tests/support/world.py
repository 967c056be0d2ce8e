"""A world of gateways, a ledger, clocks, crashes and partitions, deterministic by its seed.

Everything in it is the production code but the network, the disk's power and the time: the
reservations run their own tasks on an event loop in virtual time, with real recovery files in a
folder. The backends keep the truth: what each call that ran has cost, by the window it was reserved
in.

Operators edit limits and credit windows, also below what is spent or leased; gateways reload, each
by itself, so that they disagree about budgets for a while; in some worlds they go on without their
ledger (`on_ledger_failure = "allow"`). What was leased before a limit fell may still be spent, and
not a
nano-dollar more: after each step, what is spent and leased is within the limit or has not grown.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Literal, TypeVar

from tests.support.ledgers import START_S
from tollway.gateway.budgets.calendar import window_at
from tollway.gateway.budgets.local_lease import LocalLease
from tollway.gateway.budgets.model import Budget, BudgetEvent, BudgetRefusal, Reservation, Scope
from tollway.gateway.budgets.protocol import (
    BatchReply,
    BudgetChange,
    BudgetPosition,
    LeaseExchange,
    LedgerUnavailable,
    RecoveryClaim,
    WindowStatement,
)
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.budgets.stores.memory import MemoryLedger
from tollway.gateway.budgets.window_state import CARRY_WINDOWS, BudgetWindow, carry

T = TypeVar("T")

PRICE = 1000


class Line:
    """A gateway's connection to the ledger: slow, lossy, cut; it may duplicate messages.

    A copy comes at most a minute late by the ledger's clock, which forgets closed leases after ten.
    """

    def __init__(
        self,
        ledger: MemoryLedger,
        rng: Random,
        faults: float,
        may_forget: bool = False,
        watch: Callable[[BudgetWindow], None] = BudgetWindow.check,
    ) -> None:
        """`watch` is shown every book after each call."""
        self.watch = watch
        self.ledger = ledger
        self.may_forget = may_forget
        self.rng = rng
        self.faults = faults
        self.cut = False
        self.kept: list[tuple[float, Sequence[LeaseExchange]]] = []

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def _carry(self, call: Callable[[], Awaitable[T]]) -> T:
        rng = self.rng
        await asyncio.sleep(rng.expovariate(1 / 0.002))
        if self.cut or rng.random() < self.faults:
            await asyncio.sleep(0.05)
            raise LedgerUnavailable("the request was lost")
        answer = await call()
        for book in self.ledger.books():
            self.watch(book)
        await asyncio.sleep(rng.expovariate(1 / 0.002))
        if self.cut or rng.random() < self.faults:
            await asyncio.sleep(0.05)
            raise LedgerUnavailable("the reply was lost")
        return answer

    async def register(self, budgets: Sequence[Budget]) -> BatchReply:
        return await self._carry(lambda: self.ledger.register(budgets))

    async def exchange(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
        now_s = self.ledger.now_s()
        self.kept = [(at_s, copy) for at_s, copy in self.kept if abs(now_s - at_s) < 60]
        if self.rng.random() < self.faults:
            self.kept.append((now_s, exchanges))
        if self.kept and self.rng.random() < self.faults:
            _, late = self.kept.pop(self.rng.randrange(len(self.kept)))
            await self.ledger.exchange(late)
        return await self._carry(lambda: self.ledger.exchange(exchanges))

    async def reconcile(self, claims: Sequence[RecoveryClaim]) -> int:
        return await self._carry(lambda: self.ledger.reconcile(claims))

    async def accounts(self, keys: Sequence[tuple[str, int]]) -> tuple[WindowStatement, ...]:
        return await self._carry(lambda: self.ledger.accounts(keys))

    async def change(self, change: BudgetChange) -> BudgetPosition:
        return await self._carry(lambda: self.ledger.change(change))

    async def changes(self, budget: str) -> tuple[BudgetChange, ...]:
        return await self._carry(lambda: self.ledger.changes(budget))


@dataclass
class Gateway:
    """One process: its reservations, its queue, and its calls in progress."""

    reservations: Reservations
    line: Line
    offset_s: float
    calls: dict["asyncio.Task[None]", None] = field(default_factory=dict)  # in order

    async def crash(self) -> None:
        """End as SIGKILL does: nothing more runs, and the kernel drops the recovery file's lock."""
        for task in self.calls:
            task.cancel()
        if self.reservations._sync._task is not None:
            self.reservations._sync._task.cancel()
        await asyncio.gather(*self.calls, self.reservations._sync._task, return_exceptions=True)  # type: ignore[arg-type]
        if self.reservations._sync._recovery_file is not None:
            self.reservations._sync._recovery_file.abandon()


class World:
    """The whole world. It counts the true spend by (budget, window), answers and refusals."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        budgets: Sequence[Budget],
        faults: float,
        on_ledger_failure: Literal["refuse", "allow"] = "refuse",
    ) -> None:
        self.on_ledger_failure = on_ledger_failure
        self.used_nano: dict[tuple[str, int], int] = {}  # of hard budgets: spent and leased
        self.edits: Counter[str] = Counter()
        self.rng = Random(seed)
        self.folder = folder
        self.budgets = budgets
        self.faults = faults
        self.jump_s = 0.0
        self.ledger = MemoryLedger(self.ledger_clock)
        self.gateways: list[Gateway] = []
        self.names = itertools.count()
        self.truth: Counter[tuple[str, int]] = Counter()
        self.excess: Counter[str] = Counter()  # billed above what was held
        self.untold: Counter[tuple[str, int]] = Counter()  # ... by calls that did not settle
        self.open: Counter[tuple[str, int]] = Counter()  # held by calls that did not settle
        self.answered = 0
        self.refused: Counter[str] = Counter()
        self.events: list[BudgetEvent] = []

    def ledger_clock(self) -> float:
        return START_S + self.jump_s + asyncio.get_running_loop().time()

    async def start(self, machine: str) -> Gateway:
        """Start a gateway on a machine; those of one machine share a folder of recovery files."""
        line = Line(self.ledger, self.rng, self.faults, watch=self.watch)
        offset_s = self.rng.uniform(0, 1e6)
        loop = asyncio.get_running_loop()
        reservations = Reservations(
            line,
            self.budgets,
            holder=f"g{next(self.names)}",
            clock=lambda: loop.time() + offset_s,
            recovery_dir=self.folder / machine,
            on_event=self.events.append,
            on_ledger_failure=self.on_ledger_failure,
        )
        gateway = Gateway(reservations, line, offset_s)
        await reservations.open()
        self.gateways.append(gateway)
        return gateway

    def watch(self, book: BudgetWindow) -> None:
        """Assert that a book adds up, and that no hard budget gave away more than it has."""
        book.check()
        place = book.budget, book.window_start_s
        hard = any(b.name == book.budget and b.enforcement == "hard" for b in self.budgets)
        if hard and self.on_ledger_failure == "closed":
            used_nano = book.spent_nano + book.leased_nano
            before_nano = self.used_nano.get(place, 0)
            assert used_nano <= max(book.limit_nano, before_nano), f"{place}: overspent"
            self.used_nano[place] = used_nano

    def call(self, gateway: Gateway, tenant: str = "t") -> None:
        """Have a client call."""
        task = asyncio.create_task(self._call(gateway, tenant))
        gateway.calls[task] = None
        task.add_done_callback(gateway.calls.pop)

    async def _call(self, gateway: Gateway, tenant: str) -> None:
        rng, reservations = self.rng, gateway.reservations
        accounts = reservations.matching(tenant, "r", "b", {})
        maximum_nano = rng.choice((1, PRICE // 2, PRICE, PRICE, 3 * PRICE))
        ceiling_nano = rng.choice((maximum_nano, maximum_nano, maximum_nano // 2))
        hold = reservations.reserve_now(accounts, ceiling_nano, maximum_nano)
        if hold is None:
            found = await reservations.reserve(accounts, ceiling_nano, maximum_nano)
            if isinstance(found, BudgetRefusal):
                self.refused[found.reason] += 1
                return
            hold = found
        await self._attempt(gateway, hold, maximum_nano)

    async def _attempt(self, gateway: Gateway, hold: Reservation, maximum_nano: int) -> None:
        """Call a backend; it bills when it answers, which may be after its caller is gone."""
        rng = self.rng
        if rng.random() < 0.1:  # the connection failed: nothing ran
            gateway.reservations.void(hold)
            return
        cost_nano = maximum_nano if rng.random() < 0.5 else rng.randint(0, maximum_nano)
        for lease, amount_nano in hold.holds:
            assert isinstance(lease, LocalLease)
            place = lease.key.budget, lease.key.window_start_s
            self.truth[place] += cost_nano
            self.excess[place[0]] += max(0, cost_nano - amount_nano)
            self.untold[place] += max(0, cost_nano - amount_nano)
            self.open[place] += amount_nano
        await asyncio.sleep(rng.choice((0.001, 0.05, 0.05, 0.5, 5.0)))
        gateway.reservations.settle(hold, cost_nano)
        for lease, amount_nano in hold.holds:
            place = lease.key.budget, lease.key.window_start_s
            self.untold[place] -= max(0, cost_nano - amount_nano)
            self.open[place] -= amount_nano
        self.answered += 1

    async def edit(self) -> None:
        """Have an operator change a hard budget, or a gateway reload another configuration."""
        rng = self.rng
        hard = [budget for budget in self.budgets if budget.enforcement == "hard"]
        budget = rng.choice(hard)
        what: Literal["limit", "credit", "reload"] = rng.choice(
            ("limit", "credit", "reload", "reload")
        )
        self.edits[what] += 1
        if what == "reload":
            if self.gateways:
                with contextlib.suppress(LedgerUnavailable):
                    await rng.choice(self.gateways).reservations.revise(self._other_budgets())
            return
        now_s = self.ledger_clock()
        start_s = window_at(budget.window, budget.timezone, now_s).start_s
        amount_nano = rng.choice((0, 1, 5 * PRICE, 50 * PRICE, budget.limit_nano))
        why = "to see what happens"
        await self.ledger.change(BudgetChange(what, budget.name, amount_nano, "we", why, start_s))

    def _other_budgets(self) -> list[Budget]:
        """Return a configuration in which a budget is gone, has another limit, or is unchanged.

        The limit of what carries stays: the checks at the end take all its windows to have one.
        """
        budgets = list(self.budgets)
        at = self.rng.randrange(len(budgets))
        if self.rng.random() < 0.4:
            del budgets[at]
        elif not budgets[at].carry_overdraft:
            limit_nano = self.rng.choice((0, 3 * PRICE, 500 * PRICE))
            budgets[at] = replace(budgets[at], limit_nano=limit_nano)
        return budgets

    async def fault(self) -> None:
        """Inject a fault, or end one."""
        rng = self.rng
        what = rng.choice(("crash", "crash", "cut", "heal", "heal", "clock", "stop"))
        if what == "clock":
            self.jump_s += rng.choice((-3600.0, -40.0, -1.0, 1.0, 40.0, 3600.0))
        if not self.gateways:
            return
        gateway = rng.choice(self.gateways)
        if what in {"cut", "heal"}:
            gateway.line.cut = what == "cut"
        elif what == "crash":
            self.gateways.remove(gateway)
            await gateway.crash()
        elif what == "stop":
            self.gateways.remove(gateway)
            await asyncio.gather(*gateway.calls)
            await gateway.reservations.close()

    async def rest(self) -> None:
        """End all faults, let calls end, and have each machine's last gateway recover its files."""
        for gateway in self.gateways:
            gateway.line.cut = False
            gateway.line.faults = 0.0
        self.faults = 0.0
        while any(gateway.calls for gateway in self.gateways):
            await asyncio.gather(*itertools.chain(*(g.calls for g in self.gateways)))
        await asyncio.sleep(2.0)
        await self._check_quiet()
        await asyncio.sleep(1.0)

    async def _check_quiet(self) -> None:
        """Two quiet seconds: all money that is neither spent nor in doubt can be leased."""
        if not self.gateways:
            return
        gateway = self.rng.choice(self.gateways)
        accounts = gateway.reservations.matching("t", "r", "b", {})
        free_nano = min(
            (
                book.limit_nano - self.carried_nano(book) - book.spent_nano - self.dead_nano(book)
                for account in accounts
                if account.limited
                for book in self.ledger.books()
                if (book.budget, book.window_start_s) == (account.budget.name, account.span.start_s)
            ),
            default=0,
        )
        if free_nano > 0:
            hold = await gateway.reservations.reserve(accounts, free_nano, free_nano)
            assert isinstance(hold, Reservation), f"refused while {free_nano} is free: {hold}"
            gateway.reservations.void(hold)

    def carried_nano(self, book: BudgetWindow) -> int:
        """Return what a window must carry, computed from the windows before it."""
        if not next(b for b in self.budgets if b.name == book.budget).carry_overdraft:
            return 0
        earlier = [
            other
            for other in self.ledger.books()
            if other.budget == book.budget and other.window_start_s < book.window_start_s
        ]
        earlier.sort(key=lambda other: other.window_start_s)
        return carry(other.balance_nano for other in earlier[-CARRY_WINDOWS:])

    def dead_nano(self, book: BudgetWindow) -> int:
        """Return what dead processes hold on machines where nothing can prove it."""
        living = {gateway.reservations.holder for gateway in self.gateways}
        return sum(
            lease.held_nano
            for name, lease in book.leases.items()
            if name.rpartition(".")[0] not in living
        )

    async def stop(self) -> None:
        """Stop every gateway cleanly, and recover each machine's files once more."""
        for gateway in self.gateways:
            await gateway.reservations.close()
        self.gateways.clear()
        for folder in sorted(self.folder.iterdir()):
            last = await self.start(folder.name)
            await last.reservations.close()

    def check(self) -> None:
        """Assert what must hold at the end of every run."""
        books = {(book.budget, book.window_start_s): book for book in self.ledger.books()}
        hard = {budget.name for budget in self.budgets if budget.enforcement == "hard"}
        for place, truth_nano in self.truth.items():
            book = books[place]
            self.watch(book)
            lost_nano = truth_nano - book.spent_nano
            assert lost_nano <= self.untold[place], f"{place}: spending was lost"
            # A budget that is not hard takes what a dead process's calls held for what they cost.
            taken_nano = 0 if place[0] in hard else self.open[place]
            doubt_nano = book.unaccounted_nano + taken_nano
            assert book.spent_nano - truth_nano <= doubt_nano, f"{place}: invented"
            assert book.leased_nano == 0, f"{place}: somebody holds on to money"
        for budget in self.budgets:
            if budget.carry_overdraft:
                self._check_carried(budget)
        crossed = Counter(
            (event.budget, event.share, event.window_start_s)
            for event in self.events
            if event.kind == "threshold"
        )
        assert all(count == 1 for count in crossed.values()), "a threshold was raised twice"

    def _check_carried(self, budget: Budget) -> None:
        """Over any sequence of windows, spend is at most the limits plus the last overdraft.

        And no overdraft is larger than all that was ever billed above what was held for it.
        """
        books = [book for book in self.ledger.books() if book.budget == budget.name]
        books.sort(key=lambda book: book.window_start_s)
        for last, book in enumerate(books):
            overdraft_nano = max(0, self.carried_nano(book) + book.balance_nano)
            if self.on_ledger_failure == "closed":
                assert overdraft_nano <= self.excess[budget.name], "an overdraft was invented"
            for first in range(last + 1):
                run = books[first : last + 1]
                spent_nano = sum(one.spent_nano for one in run)
                assert spent_nano <= len(run) * budget.limit_nano + overdraft_nano


async def story(seed: int, folder: Path) -> World:
    """Run two minutes of a world, then stop it."""
    rng = Random(seed ^ 0xC0FFEE)
    budgets = [
        Budget("all", Scope(), rng.choice((7, 40, 400, 4000)) * PRICE),
        Budget("tenant", Scope(tenant="t"), rng.choice((30, 1000)) * PRICE, window="hour"),
        Budget("soft", Scope(), 20 * PRICE, enforcement="soft"),
        Budget(
            "carrying",
            Scope(tenant="t"),
            rng.choice((10, 60)) * PRICE,
            window="hour",
            enforcement="expected",
            carry_overdraft=True,
        ),
    ]
    faults = rng.choice((0.0, 0.01, 0.1))
    on_ledger_failure: Literal["closed", "allow"] = "allow" if seed % 4 == 3 else "closed"
    world = World(seed, folder, budgets, faults, on_ledger_failure)
    world.jump_s = rng.choice((0.0, 3195.0, 3180.0))  # 3200 s after START_S an hour begins
    machines = [f"m{n}" for n in range(rng.randint(1, 3))]
    for _ in range(rng.randint(1, 4)):
        with contextlib.suppress(LedgerUnavailable):
            await world.start(rng.choice(machines))
    for _ in range(rng.randint(5, 60)):
        for gateway in world.gateways:
            for _ in range(rng.choice((0, 1, 1, 3, 30))):
                world.call(gateway, rng.choice(("t", "t", "u")))
        await asyncio.sleep(rng.choice((0.0, 0.01, 0.1, 1.0, 4.0)))
        if rng.random() < 0.3:
            await world.fault()
        if seed % 2 and rng.random() < 0.2:  # in every other run no budget changes
            await world.edit()
        if rng.random() < 0.1 and len(world.gateways) < 4:
            with contextlib.suppress(LedgerUnavailable):
                await world.start(rng.choice(machines))
    async with asyncio.timeout(300.0):  # of its own time: else somebody waits for ever
        await world.rest()
        await world.stop()
    return world
