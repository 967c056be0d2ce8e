"""The control store in SQLite: the ledger's file, in tables of its own.

Each call is one transaction that takes the write lock first where it writes. All calls run in one
thread, so the event loop never waits for the disk.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tollway.gateway.control_store.protocol import (
    Document,
    StoreUnavailable,
    parsed,
    text_of,
)
from tollway.gateway.security.private_files import make_file

T = TypeVar("T")

BUSY_S = 2.0  # longest wait for other writers' transactions, which take a few milliseconds each

SCHEMA = """
CREATE TABLE IF NOT EXISTS control_documents (
    key TEXT PRIMARY KEY, document TEXT NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS control_leases (
    name TEXT PRIMARY KEY, holder TEXT NOT NULL, until_s REAL NOT NULL) WITHOUT ROWID;
"""

# The range is found in the key's index; the last part leaves out folders in the folder.
_IN_FOLDER = "key >= ? AND key < ? AND instr(substr(key, ?), '/') = 0"


class SqliteControlStore:
    """Stores documents in a SQLite file."""

    # The mutable state is the connection, which only the store's thread uses.

    def __init__(self, path: str | Path, clock: Callable[[], float]) -> None:
        """`clock`: the time of day, which all processes share."""
        self._path = Path(path)
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._thread: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Connect and create missing tables."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "tollway-control")
        await self._run(self._connect)

    async def close(self) -> None:
        """Close the file."""
        if self._thread is not None:
            await self._run(self._disconnect)
            self._thread.shutdown()
            self._thread = None

    async def get(self, key: str) -> tuple[Document, int] | None:
        """Return a document and its revision."""
        sql = "SELECT document, revision FROM control_documents WHERE key = ?"
        row = await self._run(lambda: self._base.execute(sql, (key,)).fetchone())
        return None if row is None else ((await parsed({key: row[0]}))[key], row[1])

    async def put(self, key: str, document: Document, revision: int) -> bool:
        """Replace a document that has this revision."""
        text = text_of(document)
        if revision == 0:
            sql = "INSERT OR IGNORE INTO control_documents VALUES (?, ?, 1)"
            return await self._change(sql, (key, text)) == 1
        sql = (
            "UPDATE control_documents SET document = ?, revision = revision + 1 "
            "WHERE key = ? AND revision = ?"
        )
        return await self._change(sql, (text, key, revision)) == 1

    async def write(self, key: str, document: Document) -> None:
        """Write a document."""
        sql = (
            "INSERT INTO control_documents VALUES (?, ?, 1) ON CONFLICT (key) DO UPDATE SET "
            "document = excluded.document, revision = revision + 1"
        )
        await self._change(sql, (key, text_of(document)))

    async def list(self, folder: str) -> dict[str, Document]:
        """Return a folder's documents by key."""
        sql = f"SELECT key, document FROM control_documents WHERE {_IN_FOLDER} ORDER BY key"
        rows = await self._run(lambda: self._base.execute(sql, _bounds(folder)).fetchall())
        return await parsed(dict(rows))

    async def delete(self, folder: str) -> None:
        """Delete a folder's documents."""
        await self._change(f"DELETE FROM control_documents WHERE {_IN_FOLDER}", _bounds(folder))

    async def remove(self, key: str) -> None:
        """Delete a document."""
        await self._change("DELETE FROM control_documents WHERE key = ?", (key,))

    async def lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or renew a lease."""
        now_s = self._clock()
        sql = (
            "INSERT INTO control_leases VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
            "holder = excluded.holder, until_s = excluded.until_s "
            "WHERE holder = excluded.holder OR until_s <= ?"
        )
        return await self._change(sql, (name, holder, now_s + ttl_s, now_s)) == 1

    @property
    def _base(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.OperationalError("the control store is not open")
        return self._db

    async def _change(self, sql: str, values: tuple[object, ...]) -> int:
        """Run a statement; return how many rows it changed."""
        return await self._run(lambda: self._base.execute(sql, values).rowcount)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise StoreUnavailable("the control store is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"{self._path}: {exc}") from exc

    def _connect(self) -> None:
        if self._db is not None:
            return
        make_file(self._path)
        db = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            for statement in SCHEMA.split(";"):
                db.execute(statement)
        except sqlite3.Error:
            db.close()
            raise
        self._db = db

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _bounds(folder: str) -> tuple[str, str, int]:
    prefix = f"{folder}/" if folder else ""
    return prefix, prefix + "\U0010ffff", len(prefix) + 1
