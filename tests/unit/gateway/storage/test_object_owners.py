"""Who holds an object is known after a restart and to other workers, within bounds."""

import asyncio
import sqlite3
from itertools import count
from pathlib import Path

import pytest

from tollway.gateway.storage import object_owners
from tollway.gateway.storage.object_owners import ObjectOwners, Owner

A, B = Owner("a", "acme"), Owner("b", "")


def open_(path: Path | None) -> ObjectOwners:
    ticks = count(1)
    return ObjectOwners(path, wall=lambda: float(next(ticks)))


def test_what_is_written_is_found_by_another_worker_and_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "state/objects.sqlite"
        one, other = open_(path), open_(path)
        one.note("file-1", A)
        one.note("file-2", B)
        one.note("file-2", A)
        await one.close()
        assert [await other.find(name) for name in ("file-1", "file-2", "file-3")] == [A, A, None]
        await other.close()

    asyncio.run(main())


def test_the_file_forgets_the_oldest_and_memory_the_least_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_owners, "OBJECTS_MAX", 10)
    monkeypatch.setattr(object_owners, "PRUNE_EVERY", 5)
    monkeypatch.setattr(object_owners, "CACHED_MAX", 3)

    async def main() -> None:
        path = tmp_path / "objects.sqlite"
        owners = open_(path)
        for n in range(100):
            owners.note(f"id-{n}", A)
            if n % 5 == 4:
                await owners.find("missing")  # lets what waits be written
        await owners.close()
        with sqlite3.connect(path) as file:
            names = {name for (name,) in file.execute("SELECT id FROM objects")}
        file.close()
        assert len(names) <= 15
        assert "id-99" in names
        assert "id-0" not in names
        assert await open_(path).find("id-0") is None

    asyncio.run(main())


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_a_name_that_no_server_gives_is_not_kept(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        owners = open_(tmp_path / "objects.sqlite")
        owners.note(name, A)
        assert await owners.find(name) is None
        await owners.close()

    asyncio.run(main())


def test_a_file_that_cannot_be_used_leaves_what_is_in_memory(tmp_path: Path) -> None:
    async def main() -> None:
        for path in (None, tmp_path):  # a folder is no file
            owners = open_(path)
            owners.note("file-1", A)
            assert [await owners.find(name) for name in ("file-1", "file-2")] == [A, None]
            await owners.close()

    asyncio.run(main())


def test_a_damaged_file_is_no_reason_to_stop(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "objects.sqlite"
        path.write_bytes(b"not a database" * 100)
        owners = open_(path)
        owners.note("file-1", A)
        assert await owners.find("file-2") is None
        await owners.close()

    asyncio.run(main())
