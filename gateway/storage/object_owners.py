"""Which backend holds an object, such as a stored response or a file, and which tenant made it.

Theory of operation. A provider's objects are where they were made, and only its id comes back with
a later request. Each id that a reply names is remembered in memory and, 20 ms later, in a SQLite
file that all workers of a machine share; a thread writes it. So a restart forgets nothing that was
written, and another worker finds it soon. Both are bounded: the file forgets the oldest first. What
is in neither is asked of the backends, one after the other (`free_calls`).

Without the file (the disk is full, a simulation) it all works within one process.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tollway.record import record

if TYPE_CHECKING:
    import sqlite3

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = tuple[str, str, str, int]
"""An id, its backend, its tenant, and when it was noted, in seconds since 1970."""

OBJECTS_MAX = 1_000_000  # in the file: 150 MB; OpenAI keeps responses for 30 days, files for ever
CACHED_MAX = 32_768  # in memory: 10 MB
WAITING_MAX = 8_192  # objects to be written; further ones are only in memory
GATHER_S = 0.02  # a write costs 0.2 ms, whether it is of one object or of twenty
PRUNE_EVERY = 4_096  # writes between two checks of the size
ID_CHARS_MAX = 256
BUSY_S = 2.0  # longest wait for other workers' writes

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    id TEXT PRIMARY KEY, backend TEXT NOT NULL, tenant TEXT NOT NULL, at_s INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_by_time ON objects (at_s);
"""
_OLDEST = "SELECT at_s FROM objects ORDER BY at_s DESC LIMIT 1 OFFSET ?"


@record
class Owner:
    """The backend that holds an object, and the tenant that made it; empty if that is unknown."""

    backend: str
    tenant: str


class ObjectOwners:
    """The owners of objects."""

    # The mutable state is the latest objects, those to be written, and the connection, which one
    # thread at a time uses.

    def __init__(self, path: Path | None, *, wall: Callable[[], float]) -> None:
        """`path`: the file; None keeps everything in memory. `wall` is the time of day."""
        self._path = path
        self._wall = wall
        self._latest: OrderedDict[str, Owner] = OrderedDict()
        self._waiting: dict[str, tuple[Owner, int]] = {}
        self._file: sqlite3.Connection | None = None
        self._turn = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self._written = 0

    def note(self, name: str, owner: Owner) -> None:
        """Remember an object (2 us); it is written soon."""
        if not 0 < len(name) <= ID_CHARS_MAX or self._latest.get(name) == owner:
            return
        self._keep(name, owner)
        if self._path is None or len(self._waiting) >= WAITING_MAX:
            return
        self._waiting[name] = owner, int(self._wall())
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def find(self, name: str) -> Owner | None:
        """Return the owner of an object; None if it is not known."""
        owner = self._latest.get(name)
        if owner is not None or self._path is None or not 0 < len(name) <= ID_CHARS_MAX:
            return owner
        found = await self._run(partial(_found, name))
        if found is not None:
            self._keep(name, found)
        return found

    async def close(self) -> None:
        """Write what is waiting, and close the file."""
        if self._writing is not None:
            await self._writing
        async with self._turn:
            if self._file is not None:
                await asyncio.to_thread(self._file.close)
                self._file = None

    def _keep(self, name: str, owner: Owner) -> None:
        self._latest[name] = owner
        self._latest.move_to_end(name)
        if len(self._latest) > CACHED_MAX:
            self._latest.popitem(last=False)

    async def _write(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            waiting, self._waiting = self._waiting, {}
            rows = [(name, one.backend, one.tenant, at_s) for name, (one, at_s) in waiting.items()]
            await self._run(partial(self._insert, rows))

    def _insert(self, rows: list[Row], file: "sqlite3.Connection") -> None:
        with file:
            file.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", rows)
            self._written += len(rows)
            if self._written >= PRUNE_EVERY:
                self._written = 0
                oldest = file.execute(_OLDEST, (OBJECTS_MAX,)).fetchone()
                if oldest is not None:
                    file.execute("DELETE FROM objects WHERE at_s <= ?", oldest)

    async def _run(self, act: "Callable[[sqlite3.Connection], T]") -> T | None:
        """Run a statement in a thread; return None if the file cannot be used."""
        import sqlite3  # noqa: PLC0415 - few gateways keep objects

        async with self._turn:
            try:
                return await asyncio.to_thread(self._on_file, act)
            except (sqlite3.Error, OSError) as exc:
                log.warning("%s cannot be used, so objects are looked for: %s", self._path, exc)
                return None

    def _on_file(self, act: "Callable[[sqlite3.Connection], T]") -> T:
        import sqlite3  # noqa: PLC0415

        if self._file is None:
            assert self._path is not None
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = sqlite3.connect(self._path, timeout=BUSY_S, check_same_thread=False)
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = NORMAL")
            file.executescript(_SCHEMA)
            self._file = file
        return act(self._file)


def _found(name: str, file: "sqlite3.Connection") -> Owner | None:
    row = file.execute("SELECT backend, tenant FROM objects WHERE id = ?", (name,)).fetchone()
    return None if row is None else Owner(*row)
