"""The embedded source: a table of a SQLite file, the gateway's own or one that others fill.

Without a table of the operator's, the gateway keeps a table of its own, under pseudonyms, which the
control plane writes. Queries run in one thread, which a look-up that takes too long interrupts.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tollway.gateway.features.online.model import Found, SourceError
from tollway.gateway.features.sources.table import SourceTable
from tollway.gateway.security.private_files import make_folder

T = TypeVar("T")

_OWN = """CREATE TABLE IF NOT EXISTS feature_values (
  feature TEXT NOT NULL, entity TEXT NOT NULL, "values" TEXT NOT NULL,
  PRIMARY KEY (feature, entity)) WITHOUT ROWID"""
_BUSY_S = 0.2  # a writer holds the file for one commit


class SqliteSource:
    """One group's values in a SQLite file."""

    # The mutable state is the connection, opened at the first query, how many queries run,
    # and which is running now, under the lock.

    def __init__(self, path: Path, group: str, table: SourceTable | None = None) -> None:
        """Without `table`, the group's rows are in the gateway's own."""
        self.by_digest = table is None
        self.is_writable = table is None or table.is_writable
        self._path = path
        self._group = group
        self._table = table
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="features")
        self._open: sqlite3.Connection | None = None
        self._running = 0
        self._lock = threading.Lock()
        self._present: object = None

    async def fetch(self, keys: Sequence[str], deadline_s: float) -> Found:
        """Return the values of the keys that it knows. Raises SourceError or TimeoutError."""
        return await self._run(lambda db: self._fetched(db, keys))

    async def put(self, key: str, values: Mapping[str, Any]) -> None:
        """Store the values of an entity. Raises SourceError."""
        await self._run(lambda db: self._put(db, key, values))

    async def erase(self, key: str) -> int:
        """Remove an entity and return how many rows there were. Raises SourceError."""
        return await self._run(lambda db: self._erased(db, key))

    def gauges(self) -> Mapping[str, float]:
        """Return the connections that are open and idle, and how many queries wait."""
        opened, busy = self._open is not None, self._running
        return {
            "open": float(opened),
            "idle": float(opened and not busy),
            "waiting": max(0.0, busy - 1.0),
        }

    async def aclose(self) -> None:
        """Close the file."""
        if self._open is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open.close)
            self._open = None
        self._thread.shutdown(wait=False)

    # ------------------------------------------------------------------ in the thread

    async def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        self._running += 1
        try:
            return await loop.run_in_executor(self._thread, self._run_now, query)
        except asyncio.CancelledError:
            with self._lock:  # another's query may be running
                if self._open is not None and self._present is query:
                    self._open.interrupt()
            raise
        except (sqlite3.Error, OSError) as exc:
            raise SourceError(f"{self._path}: {exc}") from exc
        finally:
            self._running -= 1

    def _run_now(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            self._present = query
        try:
            return query(self._connection())
        finally:
            with self._lock:
                self._present = None

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            if self._table is None:
                make_folder(self._path.parent)
            db = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            if self._table is None:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute(_OWN)
            self._open = db
        return self._open

    def _fetched(self, db: sqlite3.Connection, keys: Sequence[str]) -> Found:
        marks = ",".join("?" * len(keys))
        table = self._table
        if table is None:
            rows = db.execute(
                f'SELECT entity, "values" FROM feature_values WHERE feature = ? '
                f"AND entity IN ({marks})",
                [self._group, *keys],
            )
            return {entity: orjson.loads(values) for entity, values in rows}
        known = table.parsed(keys)
        marks = ",".join("?" * len(known))
        found = db.execute(f"{table.select} IN ({marks})", list(known))
        return {known[row[0]]: table.named(row[1:]) for row in found if row[0] in known}

    def _put(self, db: sqlite3.Connection, key: str, values: Mapping[str, Any]) -> None:
        table = self._table
        if table is None:
            text = orjson.dumps(values).decode()
            db.execute("REPLACE INTO feature_values VALUES (?, ?, ?)", (self._group, key, text))
            return
        marks = ", ".join("?" * (1 + len(table.columns)))
        db.execute(table.upsert(marks), table.row(key, values))

    def _erased(self, db: sqlite3.Connection, key: str) -> int:
        table = self._table
        if table is None:
            where = "DELETE FROM feature_values WHERE feature = ? AND entity = ?"
            return db.execute(where, (self._group, key)).rowcount
        known = table.parsed([key])
        return db.execute(f"{table.delete} = ?", [*known]).rowcount if known else 0
