"""Announcements that are lost: nothing in memory is trusted once the listener is back."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client

from tests.support.redis_server import RedisServer, redis_server
from tests.support.until import until
from tollway.gateway.features.sources import redis as tier
from tollway.gateway.features.sources.redis import CHANNEL, RedisTier

pytestmark = pytest.mark.integration


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis", "--appendonly", "no") as server:
        yield server


class Listener:
    """Counts what a listener hears and what it may have missed."""

    def __init__(self, redis: RedisServer) -> None:
        self.tier = RedisTier(redis.url)
        self.heard: list[bytes] = []
        self.missed = 0
        self.task = asyncio.create_task(self.tier.listen(self.heard.append, self.miss))

    def miss(self) -> None:
        self.missed += 1

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.tier.aclose()


def test_a_connection_that_is_cut_counts_as_a_gap(redis: RedisServer) -> None:
    async def main() -> None:
        one = Listener(redis)
        await until(lambda: one.missed == 1)
        await one.tier.announce(b"a")
        await until(lambda: one.heard == [b"a"])
        with Client(port=redis.port) as client:
            for number, each in enumerate(client.client_list(_type="pubsub"), 2):
                client.client_kill_filter(_id=each["id"])
                await until(lambda number=number: one.missed == number)
        await one.tier.announce(b"b")
        await until(lambda: one.heard == [b"a", b"b"])
        await one.close()

    asyncio.run(main())


def test_a_redis_that_says_nothing_is_left_and_counts_as_a_gap(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tier, "PING_S", 0.05)
    monkeypatch.setattr(tier, "SILENT_S", 0.5)
    monkeypatch.setattr(tier, "AGAIN_S", 0.05)

    silent: list[BaseException] = []
    heard = tier._heard

    async def noted(*args: Any) -> None:
        try:
            await heard(*args)
        except TimeoutError as exc:
            silent.append(exc)
            raise

    monkeypatch.setattr(tier, "_heard", noted)

    async def main() -> None:
        one = Listener(redis)
        await until(lambda: one.missed)
        redis.pause()
        try:
            await until(lambda: silent)
            monkeypatch.setattr(tier, "SILENT_S", 100.0)  # it answers again, slowly if busy
        finally:
            redis.resume()
        await until(lambda: one.missed >= 2)

        async def is_heard() -> bool:
            """Say it until it is heard: a busy machine may be taken for a silent Redis again."""
            await one.tier.announce(b"a")
            return b"a" in one.heard

        await until(is_heard)
        await one.close()

    asyncio.run(main())


def test_what_is_announced_as_soon_as_a_gap_is_told_is_heard(redis: RedisServer) -> None:
    async def main() -> None:
        sender = RedisTier(redis.url)
        for _ in range(20):
            one = Listener(redis)
            await until(lambda one=one: one.missed == 1)
            assert (await sender._redis.pubsub_numsub(CHANNEL))[0][1] >= 1
            await one.close()
        await sender.aclose()

    asyncio.run(main())
