"""The second tier costs no request anything while it is away."""

import asyncio
from dataclasses import dataclass, field

from tests.support.kept_answers import entry
from tollway.gateway.caching.remote import (
    FAILURES_IN_A_ROW,
    REST_S,
    CacheUnavailable,
    RemoteCache,
)


@dataclass
class Store:
    """A store that can be away."""

    away: bool = False
    asked: int = 0
    values: dict[bytes, bytes] = field(default_factory=dict)

    async def get(self, key: bytes) -> bytes | None:
        self._ask()
        return self.values.get(key)

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        self._ask()
        self.values[key] = value

    def _ask(self) -> None:
        self.asked += 1
        if self.away:
            raise CacheUnavailable("away")

    async def close(self) -> None:
        return


def test_an_entry_comes_back_and_damaged_ones_are_none() -> None:
    async def main() -> None:
        store = Store()
        remote = RemoteCache(store, entry_bytes_max=100, clock=lambda: 0.0)
        await remote.put(b"k", entry(), 1000.0)
        found = await remote.get(b"k")
        assert found is not None and found.body == b"body"
        store.values[b"k"] = b"damaged"
        assert await remote.get(b"k") is None
        await remote.put(b"large", entry(b"x" * 101), 1000.0)
        assert b"large" not in store.values
        assert (remote.hits, remote.misses, remote.errors) == (1, 1, 0)

    asyncio.run(main())


def test_it_rests_after_failures_and_is_tried_again() -> None:
    async def main() -> None:
        now_s = 0.0
        store = Store(away=True)
        remote = RemoteCache(store, entry_bytes_max=100, clock=lambda: now_s)
        for _ in range(10):
            assert await remote.get(b"k") is None
        assert store.asked == FAILURES_IN_A_ROW
        now_s, store.away = REST_S, False
        await remote.put(b"k", entry(), 1000.0)
        assert await remote.get(b"k") is not None

    asyncio.run(main())
