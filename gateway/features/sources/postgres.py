"""PostgreSQL as a source: a pool of connections, prepared statements, a limit on each step.

The pool opens at the first look-up, so that a gateway starts without its database. asyncpg prepares
a statement once for each connection and then reuses it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tollway.gateway.features.online.model import Found, SourceError
from tollway.gateway.features.sources.table import SourceTable

ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


class PostgresSource:
    """One group's values in a table of PostgreSQL."""

    # The mutable state is the pool, once it is open, and how many wait for one of its connections.

    by_digest = False

    def __init__(
        self,
        url: str,
        table: SourceTable,
        *,
        pool_min: int = 10,
        pool_max: int = 20,
        connect_timeout_s: float = 2.0,
        acquire_timeout_s: float = 0.5,
        query_timeout_s: float = 1.0,
        password: str | None = None,
    ) -> None:
        # It warns, with a traceback, of each connection that it cannot restore, which the breaker
        # and the metrics of the pool show as well.
        logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)
        self.is_writable = table.is_writable
        self._url = url
        self._table = table
        self._sizes = pool_min, pool_max
        self._connect_s = connect_timeout_s
        self._acquire_s = acquire_timeout_s
        self._query_s = query_timeout_s
        self._password = password
        self._pool: Any = None
        self._opening: asyncio.Task[Any] | None = None
        self._waiting = 0
        kind = "bigint[]" if table.integer_keys else "text[]"
        self._select = f"{table.select} = ANY($1::{kind})"
        self._upsert = table.upsert(", ".join(f"${n}" for n in range(1, 2 + len(table.columns))))
        self._delete = f"{table.delete} = $1"

    async def fetch(self, keys: Sequence[str], deadline_s: float) -> Found:
        """Return the values of the keys that it knows. Raises SourceError or TimeoutError."""
        known = self._table.parsed(keys)
        if not known:
            return {}
        async with self._connection() as connection:
            rows = await connection.fetch(self._select, list(known))
        return {known[row[0]]: self._table.named(tuple(row)[1:]) for row in rows if row[0] in known}

    async def put(self, key: str, values: Mapping[str, Any]) -> None:
        """Write the row of an entity. Raises SourceError."""
        row = self._table.row(key, values)
        async with self._connection() as connection:
            await connection.execute(self._upsert, *row)

    async def erase(self, key: str) -> int:
        """Delete the row of an entity and return how many there were. Raises SourceError."""
        known = list(self._table.parsed([key]))
        if not known:
            return 0
        async with self._connection() as connection:
            done = await connection.execute(self._delete, known[0])
        return int(done.rpartition(" ")[2])

    def gauges(self) -> Mapping[str, float]:
        """Return the connections that are open and idle, and how many look-ups wait for one."""
        if self._pool is None:
            return {"open": 0.0, "idle": 0.0, "waiting": float(self._waiting)}
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        return {"open": float(size), "idle": float(idle), "waiting": float(self._waiting)}

    async def aclose(self) -> None:
        """Close all connections."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            if self._pool is None:
                await self._open()
            self._waiting += 1
            try:
                connection = await self._pool.acquire(timeout=self._acquire_s)
            finally:
                self._waiting -= 1
            try:
                yield connection
            finally:
                await self._pool.release(connection, timeout=self._query_s)
        except ERRORS as exc:
            raise SourceError(f"PostgreSQL: {type(exc).__name__}: {exc}") from exc

    async def _open(self) -> None:
        """Open the pool, once for all who wait; a caller that leaves does not end it."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._opened())
        opening = self._opening
        try:
            self._pool = await asyncio.shield(opening)
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None

    async def _opened(self) -> Any:
        least, most = self._sizes
        return await asyncpg.create_pool(
            self._url,
            password=self._password,
            min_size=least,
            max_size=most,
            timeout=self._connect_s,
            command_timeout=self._query_s,
        )
