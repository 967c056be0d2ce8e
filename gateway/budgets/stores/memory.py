"""The in-memory ledger, for simulations, tests, and gateways that may lose state on exit."""

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
    """A registered budget: its current limit and its last configured limit."""

    limit_nano: int
    configured_nano: int
    alert_at: tuple[float, ...]
    carries: bool = False
    # Each window's balance (over- or underspending) when it was last used.
    balances_nano: dict[int, int] = field(default_factory=dict)
    changes: list[BudgetChange] = field(default_factory=list)

    def configure(self, budget: Budget, now_s: float) -> None:
        """Apply a configured limit if it changed; otherwise keep the limit set by operators."""
        self.alert_at, self.carries = budget.alert_at, budget.carry_overdraft
        if budget.limit_nano != self.configured_nano:
            self.configured_nano = self.limit_nano = budget.limit_nano
            why = "the configuration changed"
            self.changes.append(
                BudgetChange("limit", budget.name, budget.limit_nano, "config", why, at_s=now_s)
            )


class MemoryLedger:
    """Stores windows in a dict. One event loop; only simulated gateways share an instance."""

    # The mutable state is the registered budgets and their windows.

    may_forget = False

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` returns the time of day in seconds since the epoch."""
        self._clock = clock
        self._id = secrets.token_hex(8)
        self._known: dict[str, Known] = {}
        self._books: dict[tuple[str, int], BudgetWindow] = {}

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def register(self, budgets: Sequence[Budget]) -> BatchReply:
        """Register budgets."""
        return self.register_now(budgets)

    async def exchange(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
        """Apply each exchange once."""
        return self.exchange_now(exchanges)

    def register_now(self, budgets: Sequence[Budget]) -> BatchReply:
        """Register budgets."""
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
        """Apply each exchange once, synchronously. The simulator calls this."""
        now_s = self._clock()
        replies: list[ExchangeReply] = []
        for asked in exchanges:
            with self._book(asked.key.budget, asked.key.window_start_s) as book:
                replies.append(book.exchange(asked, now_s))
        return BatchReply(now_s, self._id, tuple(replies))

    async def reconcile(self, claims: Sequence[RecoveryClaim]) -> int:
        """End dead holders' leases by their recovery files."""
        freed_nano = 0
        for claim in claims:
            if claim.key.budget in self._known:
                with self._book(claim.key.budget, claim.key.window_start_s) as book:
                    freed_nano += book.reconcile(claim, self._clock())
        return freed_nano

    async def accounts(self, keys: Sequence[tuple[str, int]]) -> tuple[WindowStatement, ...]:
        """Return statements."""
        statements = []
        for key in keys:
            with self._book(*key) as book:
                now_s = self._clock()
                book.expire(now_s)
                statements.append(book.statement(now_s))
        return tuple(statements)

    async def change(self, change: BudgetChange) -> BudgetPosition:
        """Apply an operator's change."""
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
        """Return a budget's changes, oldest first."""
        return tuple(self._known[budget].changes)

    def now_s(self) -> float:
        """Return the ledger's time."""
        return self._clock()

    def books(self) -> list[BudgetWindow]:
        """Return every window, for invariant checks."""
        return list(self._books.values())

    @contextmanager
    def _book(self, budget: str, start_s: int) -> Iterator[BudgetWindow]:
        """Yield a window with its carried overdraft; store its balance afterwards."""
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
        """Set a budget's limit and alerts in all its windows, including past ones."""
        for (budget, _), book in self._books.items():
            if budget == name:
                book.base_nano, book.alert_at = known.limit_nano, known.alert_at
