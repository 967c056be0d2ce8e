"""The contract of `ControlStore`, run over every implementation."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer, redis_server
from tests.support.until import until
from tollway.gateway.control_store.protocol import DOCUMENT_BYTES_MAX, ControlStore
from tollway.gateway.control_store.registry import open_control_store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), "--appendonly", "no") as server:
        yield server


FOLDERS = ("", "r", "r/a")


class Bench:
    """A store with a clock that the test turns, and a second client of the same data."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url, self.now_s = kind, url, 1000.0
        self.store = self._client()
        self.other = self.store if kind == "memory" else self._client()

    def _client(self) -> ControlStore:
        return open_control_store(self.url, clock=lambda: self.now_s)

    def run(self, test: Callable[["Bench"], Awaitable[None]]) -> None:
        async def main() -> None:
            await self.store.open()
            if self.other is not self.store:
                await self.other.open()
            for folder in FOLDERS:
                await self.store.delete(folder)
            try:
                await test(self)
            finally:
                await self.store.close()
                if self.other is not self.store:
                    await self.other.close()

        asyncio.run(main())


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.integration)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/ledger.db"}
    if request.param == "redis":
        urls["redis"] = f"{request.getfixturevalue('server').url}?timeout_ms=5000"
    return Bench(request.param, urls[request.param])


def test_a_document_is_replaced_only_by_those_who_know_its_revision(bench: Bench) -> None:
    async def test(bench: Bench) -> None:
        assert await bench.store.get("a") is None
        assert await bench.store.put("a", {"n": 1}, 0)
        assert not await bench.other.put("a", {"n": 2}, 0)
        assert await bench.other.get("a") == ({"n": 1}, 1)
        assert await bench.other.put("a", {"n": 2}, 1)
        assert not await bench.store.put("a", {"n": 3}, 1)
        assert await bench.store.get("a") == ({"n": 2}, 2)

    bench.run(test)


def test_a_document_that_is_not_there_has_no_revision_to_replace(bench: Bench) -> None:
    async def test(bench: Bench) -> None:
        assert not await bench.store.put("a", 1, 3)
        assert await bench.store.get("a") is None

    bench.run(test)


def test_a_write_replaces_whatever_is_there(bench: Bench) -> None:
    async def test(bench: Bench) -> None:
        await bench.store.write("a", [1])
        await bench.other.write("a", [2.5, None, "x"])
        assert await bench.store.get("a") == ([2.5, None, "x"], 2)

    bench.run(test)


def test_a_folder_is_listed_and_deleted_without_the_folders_in_it(bench: Bench) -> None:
    async def test(bench: Bench) -> None:
        for key in ("r/a/1", "r/a/2", "r/ab", "r/ab2/x", "s"):
            await bench.store.write(key, key)
        assert await bench.other.list("r/a") == {"r/a/1": "r/a/1", "r/a/2": "r/a/2"}
        assert await bench.other.list("r") == {"r/ab": "r/ab"}
        assert await bench.other.list("r/b") == {}
        await bench.other.delete("r/a")
        assert await bench.store.list("r/a") == {}
        assert list(await bench.store.list("")) == ["s"]
        assert await bench.store.get("r/ab") == ("r/ab", 1)
        await bench.store.delete("r/ab2")

    bench.run(test)


def test_a_document_that_was_removed_begins_again(bench: Bench) -> None:
    async def test(bench: Bench) -> None:
        await bench.store.write("r/a/1", 1)
        await bench.store.write("r/a/1", 2)
        await bench.other.remove("r/a/1")
        await bench.other.remove("r/a/1")
        assert await bench.store.get("r/a/1") is None
        assert await bench.store.put("r/a/1", 3, 0)

    bench.run(test)


def test_large_documents_come_back_and_too_large_ones_are_refused(bench: Bench) -> None:
    async def test(bench: Bench) -> None:
        large = ["x" * 1000] * 200
        await bench.store.write("r/a/1", large)
        assert await bench.other.get("r/a/1") == (large, 1)
        assert await bench.other.list("r/a") == {"r/a/1": large}
        with pytest.raises(ValueError, match="bytes, not at most"):
            await bench.store.write("r/a/1", ["x" * DOCUMENT_BYTES_MAX])
        assert await bench.other.get("r/a/1") == (large, 1)

    bench.run(test)


def test_a_lease_has_one_holder_until_it_expires(bench: Bench) -> None:
    async def test(bench: Bench) -> None:
        assert await bench.store.lease("l", "x", 0.2)
        assert await bench.store.lease("l", "x", 0.2)
        assert bench.kind == "redis" or not await bench.other.lease("l", "y", 60.0)
        bench.now_s += 0.3  # Redis has a clock of its own

        async def taken() -> bool:
            return await bench.other.lease("l", "y", 60.0)

        await until(taken)
        assert not await bench.store.lease("l", "x", 60.0)
        assert await bench.store.lease("m", "x", 60.0)

    bench.run(test)
