"""SQLite: what one look-up's cancelling does to another's query."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from tollway.gateway.features.sources.sqlite import SqliteSource

ROWS = """WITH RECURSIVE n(x) AS (SELECT hold() UNION ALL SELECT x + 1 FROM n WHERE x < 9999)
SELECT count(*) FROM n"""


def test_a_look_up_that_waits_and_is_cancelled_leaves_the_running_query_alone(
    tmp_path: Path,
) -> None:
    running, go = threading.Event(), threading.Event()

    def hold() -> int:
        running.set()
        go.wait(30)
        return 0

    def long(db: sqlite3.Connection) -> int:
        db.create_function("hold", 0, hold)
        count: int = db.execute(ROWS).fetchone()[0]
        return count

    async def main() -> None:
        source = SqliteSource(tmp_path / "features.db", "user")
        first = asyncio.create_task(source._run(long))
        assert await asyncio.to_thread(running.wait, 30)
        second = asyncio.create_task(source.fetch(["x"], 0.0))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go.set()
        assert await first == 10_000
        await source.aclose()

    asyncio.run(main())
