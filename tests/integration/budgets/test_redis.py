"""Faults of Redis and of the connection to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from tests.support.redis_server import RedisServer, redis_server
from tollway.gameday.faults import Faults
from tollway.gameday.proxy import FaultProxy
from tollway.gateway.budgets.model import Budget, LeaseKey, Scope
from tollway.gateway.budgets.protocol import BatchReply, LeaseExchange, LedgerUnavailable
from tollway.gateway.budgets.stores.redis import RedisLedger

pytestmark = pytest.mark.integration

BUDGET = Budget("b", Scope(), 10**12)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    # With `everysec` a write is put off while the disk is busy, and a kill loses it.
    with redis_server(tmp_path / "redis", "--appendfsync", "always") as server:
        yield server


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisLedger]:
    ledger = RedisLedger(url)
    await ledger.open()
    await ledger.register([BUDGET])
    try:
        yield ledger
    finally:
        await ledger.close()


@contextlib.asynccontextmanager
async def raw(server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url, decode_responses=True) as client:
        yield client


def ask(seq: int, **figures: int) -> LeaseExchange:
    return LeaseExchange(LeaseKey("b", 0, None, "x"), seq, **figures)  # type: ignore[arg-type]


async def insist(ledger: RedisLedger, asked: LeaseExchange) -> BatchReply:
    """Repeat the exchange until it is answered, as LedgerSync does."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(LedgerUnavailable):
                return await ledger.exchange([asked])


def test_a_thousand_lost_replies_apply_nothing_twice(server: RedisServer) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", server.port)) as proxy:
            url = f"redis://127.0.0.1:{proxy.address[1]}/0?timeout_ms=2000"
            async with opened(url) as ledger:
                for seq in range(1, 1001):
                    await proxy.strike(Faults(swallow=1))
                    asked = ask(seq, need_nano=7, due_nano=7, settled_nano=seq)
                    answer = await insist(ledger, asked)
                    assert answer.replies[0].grant_nano == 7
                assert proxy.counts["swallowed"] == 1000
                position = answer.replies[0].position
                assert (position.spent_nano, position.leased_nano) == (1000, 7000 - 999)

    asyncio.run(main())


def test_scripts_that_were_flushed_are_loaded_again(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as ledger, raw(server) as client:
            await client.script_flush()
            answer = await ledger.exchange([ask(1, need_nano=5, due_nano=5)])
            assert answer.replies[0].grant_nano == 5

    asyncio.run(main())


def test_a_redis_that_hangs_costs_tens_of_milliseconds(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as ledger:
            server.pause()
            async with asyncio.timeout(5):  # not the ten retries that redis-py would make
                with pytest.raises(LedgerUnavailable):
                    await ledger.exchange([ask(1, need_nano=5, due_nano=5)])
            server.resume()
            answer = await insist(ledger, ask(1, need_nano=5, due_nano=5))
            assert answer.replies[0].position.leased_nano == 5

    asyncio.run(main())


def test_a_redis_killed_and_started_again_has_forgotten_nothing(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as ledger:
            before = await ledger.exchange([ask(1, need_nano=50, due_nano=50)])
            server.kill()
            with pytest.raises(LedgerUnavailable):
                await ledger.exchange([ask(2, settled_nano=20)])
            server.start()
            after = await insist(ledger, ask(2, settled_nano=20))
            assert after.ledger_id == before.ledger_id
            position = after.replies[0].position
            assert (position.spent_nano, position.leased_nano) == (20, 30)

    asyncio.run(main())


def test_an_emptied_redis_is_detected(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as ledger, raw(server) as client:
            before = await ledger.exchange([ask(1)])
            await client.flushall()
            with pytest.raises(KeyError):
                await ledger.exchange([ask(2)])
            after = await ledger.register([BUDGET])
            assert after.ledger_id != before.ledger_id

    asyncio.run(main())


def test_a_redis_that_is_full_or_read_only_grants_nothing(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as ledger, raw(server) as client:
            await client.config_set("maxmemory", "1")
            with pytest.raises(LedgerUnavailable):
                await ledger.exchange([ask(1, need_nano=5, due_nano=5)])
            await client.config_set("maxmemory", "0")
            await client.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(LedgerUnavailable):
                await ledger.exchange([ask(1, need_nano=5, due_nano=5)])
            await client.execute_command("REPLICAOF", "NO", "ONE")
            answer = await insist(ledger, ask(1, need_nano=5, due_nano=5))
            assert answer.replies[0].position.leased_nano == 5

    asyncio.run(main())


def test_nothing_is_granted_that_too_few_replicas_have_confirmed(server: RedisServer) -> None:
    async def main() -> None:
        ledger = RedisLedger(server.url + "?replicas=1")
        with pytest.raises(LedgerUnavailable):
            await ledger.open()
            await ledger.register([BUDGET])
        await ledger.close()

    asyncio.run(main())


def test_amounts_that_lua_could_not_count_are_refused(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as ledger:
            for amount in (2**53, 10**20):
                with pytest.raises(LedgerUnavailable):
                    await ledger.exchange([ask(1, need_nano=amount)])
            for odd in ("nan", "-1", "1e3", ""):
                with pytest.raises(LedgerUnavailable):
                    await ledger.exchange([ask(1, need_nano=odd)])  # type: ignore[arg-type]
            answer = await ledger.exchange([ask(1)])
            assert answer.replies[0].position.leased_nano == 0

    asyncio.run(main())


def test_all_keys_of_a_budget_are_in_one_slot_of_a_cluster(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as ledger, raw(server) as client:
            await ledger.register([Budget("odd {name}", Scope(), 1), Budget("b", Scope(), 2)])
            await ledger.exchange(
                [ask(1), LeaseExchange(LeaseKey("odd {name}", 3600, None, "y"), 1)]
            )
            slots: dict[str, set[int]] = {"b": set(), "odd": set()}
            async for key in client.scan_iter("tollway:{*"):
                slots["odd" if "odd" in key else "b"].add(key_slot(key.encode()))
            assert [len(found) for found in slots.values()] == [1, 1]

    asyncio.run(main())
