"""A SQLite ledger says which format it has, and one of a newer version is left alone."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.budgets.stores.sqlite import FORMAT, SqliteLedger


def opened(path: Path) -> None:
    async def main() -> None:
        ledger = SqliteLedger(path, lambda: 1000.0)
        try:
            await ledger.open()
        finally:
            await ledger.close()

    asyncio.run(main())


def version(path: Path, write: int | None = None) -> int:
    with sqlite3.connect(path) as db:
        if write is not None:
            db.execute(f"PRAGMA user_version = {write}")
        (found,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(found)


def test_a_new_ledger_and_one_from_before_formats_get_the_present_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    opened(path)
    assert version(path) == FORMAT
    assert version(path, write=0) == 0
    opened(path)
    assert version(path) == FORMAT


def test_a_ledger_of_a_newer_format_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    opened(path)
    version(path, write=FORMAT + 1)
    with pytest.raises(LedgerUnavailable, match="start the newer version, or restore"):
        opened(path)
    assert version(path) == FORMAT + 1
