"""A call to the second tier ends in time, also while it waits for its turn."""

import asyncio
from typing import Any

import pytest

from tollway.gateway.caching.redis_store import RedisStore
from tollway.gateway.caching.remote import CacheUnavailable


def test_the_wait_for_a_turn_is_bounded() -> None:
    async def main() -> None:
        store = RedisStore("redis://127.0.0.1:1?timeout_ms=1")
        turn: Any = asyncio.Semaphore(0)  # nobody gives a turn back
        store._in_turn = turn
        with pytest.raises(CacheUnavailable):
            await store.get(b"k")
        with pytest.raises(CacheUnavailable):
            await store.put(b"k", b"v", 1.0)
        await store.close()

    asyncio.run(main())
