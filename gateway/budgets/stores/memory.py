"""The ledger in memory: for simulations and tests, and for gateways that may forget on exit."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tollway.gateway.budgets.model import Budget
from tollway.gateway.budgets.protocol import (
    BatchReply,
    BudgetChange,
    BudgetPosition,
    ExchangeReply,
    LeaseExchange,
    RecoveryClaim,
    WindowStatement,
)
from tollway.gateway.budgets.window_state import CARRY_WINDOWS, BudgetWindow, carry


@dataclass(slots=True)
class Known:
    """A registered budget: its limit now, and what a configuration last said it was."""

    limit_nano: int
    configured_nano: int
    alert_at: tuple[float, ...]
    carries: bool = False
    # What each window has over- or underspent, as of the last time it was asked about.
    balances_nano: dict[int, int] = field(default_factory=dict)
    changes: list[BudgetChange] = field(default_factory=list)

    def configure(self, budget: Budget, now_s: float) -> None:
        """Take a configuration's word where it is news; else the operators' word stands."""
        self.alert_at, self.carries = budget.alert_at, budget.carry_overdraft
        if budget.limit_nano != self.configured_nano:
            self.configured_nano = self.limit_nano = budget.limit_nano
            why = "the configuration changed"
            self.changes.append(
                BudgetChange("limit", budget.name, budget.limit_nano, "config", why, at_s=now_s)
            )


class MemoryLedger:
    """Keeps books in a dict. One event loop; no two gateways share it but in a simulation."""

    # The mutable state is the budgets known and the books.

    may_forget = False

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` tells the time of day: seconds since the epoch."""
        self._clock = clock
        self._id = secrets.token_hex(8)
        self._known: dict[str, Known] = {}
        self._books: dict[tuple[str, int], BudgetWindow] = {}

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def register(self, budgets: Sequence[Budget]) -> BatchReply:
        """Make budgets known."""
        return self.register_now(budgets)

    async def exchange(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
        """Apply each exchange once."""
        return self.exchange_now(exchanges)

    def register_now(self, budgets: Sequence[Budget]) -> BatchReply:
        """Make budgets known."""
        now_s = self._clock()
        for budget in budgets:
            known = self._known.get(budget.name)
            if known is None:
                known = Known(budget.limit_nano, budget.limit_nano, budget.alert_at)
                self._known[budget.name] = known
            known.configure(budget, now_s)
            self._rebase(budget.name, known)
        return BatchReply(now_s, self._id, ())

    def exchange_now(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
        """Apply each exchange once, without waiting: the simulator calls this."""
        now_s = self._clock()
        replies: list[ExchangeReply] = []
        for asked in exchanges:
            with self._book(asked.key.budget, asked.key.window_start_s) as book:
                replies.append(book.exchange(asked, now_s))
        return BatchReply(now_s, self._id, tuple(replies))

    async def reconcile(self, claims: Sequence[RecoveryClaim]) -> int:
        """End dead leases by what their tills prove."""
        freed_nano = 0
        for claim in claims:
            if claim.key.budget in self._known:
                with self._book(claim.key.budget, claim.key.window_start_s) as book:
                    freed_nano += book.reconcile(claim, self._clock())
        return freed_nano

    async def accounts(self, keys: Sequence[tuple[str, int]]) -> tuple[WindowStatement, ...]:
        """Return accounts."""
        found = []
        for key in keys:
            with self._book(*key) as book:
                now_s = self._clock()
                book.expire(now_s)
                found.append(book.statement(now_s))
        return tuple(found)

    async def change(self, change: BudgetChange) -> BudgetPosition:
        """Apply an operator's act."""
        known = self._known[change.budget]
        with self._book(change.budget, change.window_start_s) as book:
            if change.kind == "limit":
                known.limit_nano = change.amount_nano
                self._rebase(change.budget, known)
            elif change.kind == "credit":
                book.credit_nano += change.amount_nano
            else:
                book.release(change.lease, self._clock(), change.amount_nano)
            known.changes.append(change)
            return book.position(self._clock())

    async def changes(self, budget: str) -> tuple[BudgetChange, ...]:
        """Return the acts on a budget, oldest first."""
        return tuple(self._known[budget].changes)

    def now_s(self) -> float:
        """Return the time by its clock."""
        return self._clock()

    def books(self) -> list[BudgetWindow]:
        """Return every book, for checks."""
        return list(self._books.values())

    @contextmanager
    def _book(self, budget: str, start_s: int) -> Iterator[BudgetWindow]:
        """Open a book with what it carries; keep its balance as the body has left it."""
        known, book = self._known[budget], self._books.get((budget, start_s))
        if book is None:
            book = BudgetWindow(budget, start_s, known.limit_nano, known.alert_at)
            self._books[budget, start_s] = book
        earlier = sorted(start for start in known.balances_nano if start < start_s)
        balances = (known.balances_nano[start] for start in earlier[-CARRY_WINDOWS:])
        book.carried_nano = carry(balances) if known.carries else 0
        yield book
        if known.carries:
            known.balances_nano[start_s] = book.balance_nano

    def _rebase(self, name: str, known: Known) -> None:
        """Put a budget's limit into its books; windows that are over keep theirs no less."""
        for (budget, _), book in self._books.items():
            if budget == name:
                book.base_nano, book.alert_at = known.limit_nano, known.alert_at
