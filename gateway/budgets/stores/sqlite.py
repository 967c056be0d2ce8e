"""The SQLite ledger: shared by several processes on one machine, with nothing to install.

Each batch is one transaction that takes the write lock first, so its reads cannot become stale. The
database uses WAL with `synchronous=FULL`: a lease is on disk before any of it can be spent, so even
a power loss does not free it. All calls run in one thread, so the event loop never waits for the
disk.
"""

import asyncio
import contextlib
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import TypeVar

from tollway.gateway.budgets.model import Budget
from tollway.gateway.budgets.protocol import (
    BatchReply,
    BudgetChange,
    BudgetPosition,
    Clock,
    LeaseExchange,
    LedgerUnavailable,
    RecoveryClaim,
    WindowStatement,
)
from tollway.gateway.budgets.window_state import CARRY_WINDOWS, BudgetWindow, Lease, carry
from tollway.gateway.security.private_files import make_file

T = TypeVar("T")


class UnknownBudget(KeyError):  # noqa: N818 - says a state
    """The budget is not registered in this ledger."""


BUSY_S = 2.0  # longest wait for other writers' transactions, which take a few milliseconds each

FORMAT = 1  # of the tables; a version that changes their meaning raises it

SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS budgets (
    name TEXT PRIMARY KEY, limit_nano INTEGER NOT NULL, configured_nano INTEGER NOT NULL,
    alert_at TEXT NOT NULL, carries INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS books (
    budget TEXT NOT NULL, window_start_s INTEGER NOT NULL, credit_nano INTEGER NOT NULL,
    spent_nano INTEGER NOT NULL, leased_nano INTEGER NOT NULL, open_nano INTEGER NOT NULL,
    unaccounted_nano INTEGER NOT NULL, raised TEXT NOT NULL, short_until_s REAL NOT NULL,
    balance_nano INTEGER, PRIMARY KEY (budget, window_start_s)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    budget TEXT NOT NULL, window_start_s INTEGER NOT NULL, lease TEXT NOT NULL, state TEXT NOT NULL,
    seq INTEGER NOT NULL, held_nano INTEGER NOT NULL, open_nano INTEGER NOT NULL,
    settled_nano INTEGER NOT NULL, charged_nano INTEGER NOT NULL, expires_at_s REAL NOT NULL,
    grant_nano INTEGER NOT NULL, overdrawn_nano INTEGER NOT NULL, stale INTEGER NOT NULL,
    crossed TEXT NOT NULL,
    PRIMARY KEY (budget, window_start_s, lease)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, budget TEXT NOT NULL,
    amount_nano INTEGER NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL,
    window_start_s INTEGER NOT NULL, lease TEXT NOT NULL, at_s REAL NOT NULL);
"""

LEASE_COLUMNS = ", ".join(field.name for field in fields(Lease))
CHANGE_COLUMNS = ", ".join(field.name for field in fields(BudgetChange))


class SqliteLedger:
    """Stores windows in a SQLite file."""

    # The mutable state is the connection, which only the ledger's thread uses.

    may_forget = False

    def __init__(self, path: str | Path, clock: Clock) -> None:
        """`clock` returns the time of day in seconds since the epoch."""
        self._path = Path(path)
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._thread: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Connect and create missing tables."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "tollway-ledger")
        await self._run(self._connect)

    async def close(self) -> None:
        """Close the file."""
        if self._thread is not None:
            await self._run(self._disconnect)
            self._thread.shutdown()
            self._thread = None

    async def register(self, budgets: Sequence[Budget]) -> BatchReply:
        """Register budgets."""
        return await self._run(lambda: self._register(budgets))

    async def exchange(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
        """Apply each exchange once, all in one transaction."""
        return await self._run(lambda: self._exchange(exchanges))

    async def reconcile(self, claims: Sequence[RecoveryClaim]) -> int:
        """End dead holders' leases by their recovery files."""
        return await self._run(lambda: self._reconcile(claims))

    async def accounts(self, keys: Sequence[tuple[str, int]]) -> tuple[WindowStatement, ...]:
        """Return statements."""
        return await self._run(lambda: self._accounts(keys))

    async def change(self, change: BudgetChange) -> BudgetPosition:
        """Apply an operator's change."""
        return await self._run(lambda: self._change(change))

    async def changes(self, budget: str) -> tuple[BudgetChange, ...]:
        """Return a budget's changes, oldest first."""
        return await self._run(lambda: self._changes(budget))

    async def _run(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise LedgerUnavailable("the ledger is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.OperationalError as exc:  # locked, full, unreadable: may be temporary
            raise LedgerUnavailable(f"{self._path}: {exc}") from exc

    # ------------------------------------------------------------------ in the thread

    def _connect(self) -> None:
        if self._db is not None:
            return
        make_file(self._path)  # SQLite gives its mode to the -wal and -shm files too
        db = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._db = db
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            with self._transaction():
                (found,) = db.execute("PRAGMA user_version").fetchone()
                if found > FORMAT:
                    raise LedgerUnavailable(
                        f"{self._path} is of format {found}, which a newer version wrote; this one "
                        f"knows {FORMAT}: start the newer version, or restore an older copy"
                    )
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                if found != FORMAT:
                    db.execute(f"PRAGMA user_version = {FORMAT}")
                db.execute("INSERT OR IGNORE INTO ledger VALUES (1, ?)", (secrets.token_hex(8),))
        except BaseException:
            self._disconnect()  # a partial schema is unusable, so the next attempt starts over
            raise

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the body in one transaction that excludes other writers."""
        assert self._db is not None
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself may roll back when the disk is full
                self._db.execute("ROLLBACK")
            raise

    def _register(self, budgets: Sequence[Budget]) -> BatchReply:
        now_s = self._clock()
        with self._transaction() as db:
            for budget in budgets:
                self._configure(db, budget, now_s)
            return BatchReply(now_s, self._id(db), ())

    def _configure(self, db: sqlite3.Connection, budget: Budget, now_s: float) -> None:
        """Apply a configured limit if it changed; otherwise keep the limit set by operators."""
        name, limit_nano = budget.name, budget.limit_nano
        alert_at = json.dumps(budget.alert_at)
        query = "SELECT configured_nano FROM budgets WHERE name = ?"
        known = db.execute(query, (name,)).fetchone()
        if known is None:
            query = "INSERT INTO budgets VALUES (?, ?, ?, ?, ?)"
            carries = budget.carry_overdraft
            db.execute(query, (name, limit_nano, limit_nano, alert_at, carries))
            return
        query = "UPDATE budgets SET alert_at = ?, carries = ? WHERE name = ?"
        db.execute(query, (alert_at, budget.carry_overdraft, name))
        if known[0] != limit_nano:
            query = "UPDATE budgets SET limit_nano = ?, configured_nano = ? WHERE name = ?"
            db.execute(query, (limit_nano, limit_nano, name))
            why = "the configuration changed"
            self._keep(db, BudgetChange("limit", name, limit_nano, "config", why, at_s=now_s))

    def _exchange(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
        now_s = self._clock()
        replies = []
        with self._transaction() as db:
            for asked in exchanges:
                with self._book(db, asked.key.budget, asked.key.window_start_s) as book:
                    replies.append(book.exchange(asked, now_s))
            return BatchReply(now_s, self._id(db), tuple(replies))

    def _reconcile(self, claims: Sequence[RecoveryClaim]) -> int:
        freed_nano = 0
        with self._transaction() as db:
            for claim in claims:
                with (
                    contextlib.suppress(UnknownBudget),
                    self._book(db, claim.key.budget, claim.key.window_start_s) as book,
                ):
                    freed_nano += book.reconcile(claim, self._clock())
        return freed_nano

    def _accounts(self, keys: Sequence[tuple[str, int]]) -> tuple[WindowStatement, ...]:
        statements = []
        with self._transaction() as db:
            for key in keys:
                with self._book(db, *key) as book:
                    now_s = self._clock()
                    book.expire(now_s)
                    statements.append(book.statement(now_s))
        return tuple(statements)

    def _change(self, change: BudgetChange) -> BudgetPosition:
        with self._transaction() as db:
            if change.kind == "limit":
                row = (change.amount_nano, change.budget)
                db.execute("UPDATE budgets SET limit_nano = ? WHERE name = ?", row)
            with self._book(db, change.budget, change.window_start_s) as book:
                if change.kind == "credit":
                    book.credit_nano += change.amount_nano
                elif change.kind == "release":
                    book.release(change.lease, self._clock(), change.amount_nano)
                self._keep(db, change)
                return book.position(self._clock())

    def _changes(self, budget: str) -> tuple[BudgetChange, ...]:
        assert self._db is not None
        query = f"SELECT {CHANGE_COLUMNS} FROM changes WHERE budget = ? ORDER BY number"
        return tuple(BudgetChange(*row) for row in self._db.execute(query, (budget,)))

    # ------------------------------------------------------------------ rows

    def _id(self, db: sqlite3.Connection) -> str:
        return str(db.execute("SELECT id FROM ledger").fetchone()[0])

    def _keep(self, db: sqlite3.Connection, change: BudgetChange) -> None:
        marks = ", ".join("?" * len(fields(BudgetChange)))
        db.execute(f"INSERT INTO changes ({CHANGE_COLUMNS}) VALUES ({marks})", astuple(change))

    @contextmanager
    def _book(self, db: sqlite3.Connection, budget: str, start_s: int) -> Iterator[BudgetWindow]:
        """Read a window with its leases; write back what the body changed."""
        book, balance_nano, carries = self._read(db, budget, start_s)
        before = (*_book_row(book), balance_nano)
        leases = {name: _lease_row(lease) for name, lease in book.leases.items()}
        yield book
        row = (*_book_row(book), book.balance_nano if carries else balance_nano)
        if row != before:
            query = "INSERT OR REPLACE INTO books VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            db.execute(query, (budget, start_s, *row))
        for name in leases.keys() - book.leases.keys():
            query = "DELETE FROM leases WHERE budget = ? AND window_start_s = ? AND lease = ?"
            db.execute(query, (budget, start_s, name))
        for name, lease in book.leases.items():
            row = _lease_row(lease)
            if leases.get(name) != row:
                marks = ", ".join("?" * (3 + len(row)))
                columns = f"budget, window_start_s, lease, {LEASE_COLUMNS}"
                query = f"INSERT OR REPLACE INTO leases ({columns}) VALUES ({marks})"
                db.execute(query, (budget, start_s, name, *row))

    def _read(
        self, db: sqlite3.Connection, budget: str, start_s: int
    ) -> tuple[BudgetWindow, int | None, bool]:
        """Return a window, its last stored balance, and whether the budget carries overdrafts."""
        query = "SELECT limit_nano, alert_at, carries FROM budgets WHERE name = ?"
        known = db.execute(query, (budget,)).fetchone()
        if known is None:
            raise UnknownBudget(f"no budget {budget!r} is registered")
        book, balance_nano = (
            BudgetWindow(budget, start_s, known[0], tuple(json.loads(known[1]))),
            None,
        )
        query = (
            "SELECT credit_nano, spent_nano, leased_nano, open_nano, unaccounted_nano, raised, "
            "short_until_s, balance_nano FROM books WHERE budget = ? AND window_start_s = ?"
        )
        if row := db.execute(query, (budget, start_s)).fetchone():
            book.credit_nano, book.spent_nano, book.leased_nano, book.open_nano = row[:4]
            book.unaccounted_nano, book.short_until_s, balance_nano = row[4], row[6], row[7]
            book.raised = tuple(json.loads(row[5]))
        where = "budget = ? AND window_start_s = ?"
        query = f"SELECT lease, {LEASE_COLUMNS} FROM leases WHERE {where}"
        for name, *columns in db.execute(query, (budget, start_s)):
            lease = book.leases[name] = Lease(*columns)
            lease.stale, lease.crossed = bool(columns[-2]), tuple(json.loads(columns[-1]))
        if known[2]:
            query = (
                "SELECT balance_nano FROM books WHERE budget = ? AND window_start_s < ? "
                "AND balance_nano IS NOT NULL ORDER BY window_start_s DESC LIMIT ?"
            )
            balances = db.execute(query, (budget, start_s, CARRY_WINDOWS)).fetchall()
            book.carried_nano = carry(balance for (balance,) in reversed(balances))
        return book, balance_nano, bool(known[2])


def _book_row(book: BudgetWindow) -> tuple[object, ...]:
    return (
        book.credit_nano,
        book.spent_nano,
        book.leased_nano,
        book.open_nano,
        book.unaccounted_nano,
        json.dumps(book.raised),
        book.short_until_s,
    )


def _lease_row(lease: Lease) -> tuple[object, ...]:
    *plain, stale, crossed = astuple(lease)
    return (*plain, int(stale), json.dumps(crossed))
