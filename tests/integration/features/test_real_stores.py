"""Gateways over a real PostgreSQL and a real Redis, which fail and come back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.postgres_server import PostgresServer, postgres_server
from tests.support.redis_server import RedisServer, redis_server
from tests.support.until import until
from tollway.gateway.features.sources.redis import CHANNEL

pytestmark = pytest.mark.integration

ROWS = [(1, 12.5, "gold"), (2, 3.0, "free")]
RECOVERS_S = 90.0  # a breaker rests for 5 s at most


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


async def filled(postgres: PostgresServer) -> None:
    await postgres.execute(
        "DROP TABLE IF EXISTS users",
        "CREATE TABLE users (id bigint PRIMARY KEY, spend double precision, tier text)",
        *(f"INSERT INTO users VALUES ({a}, {b}, '{c}')" for a, b, c in ROWS),
    )


@contextlib.asynccontextmanager
async def gateway(
    folder: Path,
    postgres: PostgresServer,
    redis: RedisServer | None = None,
    ttl_s: float = 0.2,
    patience_s: float = 5.0,
) -> AsyncIterator[Running]:
    more = f"""
[[features]]
name = "user"
entity = "$headers.x-user-id"
source = "{postgres.url}"
table = "users"
keys = "integer"
writable = true
values = [{{ name = "spend" }}, {{ name = "tier", type = "category", default = "none" }}]
ttl_s = {ttl_s}
timeout_s = {patience_s}
connect_timeout_s = 10
acquire_timeout_s = 10
pool_min = 2
pool_max = 4
"""
    if redis is not None:
        more += f'\n[feature_tiers]\nredis = "{redis.url}"\n'
    async with serving(Upstream()) as url:
        toml = two_backends(url, url, route='features = ["user"]\nfeatures_ms = 100', more=more)
        async with running(toml, folder) as one:
            yield one


async def asked(one: Running, user: int = 1) -> dict[str, Any]:
    """Send a request, which must succeed, and return the values that it got."""
    reply = await one.infer(x_user_id=str(user))
    assert reply.status_code == 200
    part: dict[str, Any] = one.journalled("decision")[-1]["features"]["user"]
    return part


async def until_mark(one: Running, *marks: str) -> dict[str, Any]:
    """Send requests, all of which must succeed, until one has values so marked."""

    async def found() -> dict[str, Any] | None:
        part = await asked(one)
        return part if part["mark"] in marks else None

    part = await until(found, within_s=RECOVERS_S, every_s=0.02)
    assert part is not None
    return part


def listeners(redis: RedisServer) -> int:
    """Return how many gateways listen for changes."""
    with Redis(port=redis.port) as client:
        return int(client.pubsub_numsub(CHANNEL)[0][1])


def test_no_request_fails_while_postgres_is_killed_hangs_and_comes_back(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    async def main() -> None:
        await filled(postgres)
        async with gateway(tmp_path, postgres) as one:
            assert (await until_mark(one, "fresh"))["values"] == {"spend": 12.5, "tier": "gold"}
            for fail, repair in (
                (postgres.stop, postgres.start),
                (postgres.pause, postgres.resume),
            ):
                fail()
                part = await until_mark(one, "stale")
                assert part["values"] == {"spend": 12.5, "tier": "gold"}
                assert part["age_s"] >= 0.2  # it is rounded
                for _ in range(10):
                    assert (await asked(one))["mark"] in ("stale", "fresh")
                assert (await asked(one, 7))["mark"] in ("unavailable", "late", "absent")
                await asyncio.to_thread(repair)
                await until_mark(one, "fresh")

    run(main)


def test_a_gateway_starts_and_serves_without_its_database(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    async def main() -> None:
        await filled(postgres)
        postgres.stop()
        try:
            async with gateway(tmp_path, postgres) as one:
                part = await until_mark(one, "unavailable", "late")
                assert part["values"] == {"spend": None, "tier": "none"}
                await asyncio.to_thread(postgres.start)
                await until_mark(one, "fresh")
        finally:
            if postgres.process is None or postgres.process.poll() is not None:
                postgres.start()

    run(main)


def test_a_write_at_one_gateway_is_seen_at_the_other(
    tmp_path: Path, postgres: PostgresServer, redis: RedisServer
) -> None:
    async def main() -> None:
        await filled(postgres)
        (tmp_path / "b").mkdir()
        async with (
            gateway(tmp_path, postgres, redis, ttl_s=3600, patience_s=30) as a,
            gateway(tmp_path / "b", postgres, redis, ttl_s=3600, patience_s=30) as b,
        ):
            for one in (a, b):
                await until_mark(one, "fresh")
            await until(lambda: listeners(redis) == 2)
            lookup = b.gateway.features.lookups["user"]
            heard = lookup.counts.invalidated
            path = f"{a.url}/_tollway/features/user/1"
            values = {"spend": 99.0, "tier": "silver"}
            assert (await a.client.put(path, json={"values": values})).status_code == 200
            await until(lambda: lookup.counts.invalidated > heard)
            assert (await until_mark(b, "fresh"))["values"] == values
            assert (await asked(a))["values"] == values
            erased = (await a.client.delete(path)).json()
            assert erased["tiers"] == {"source": 1, "redis": 1, "memory": 1}
            await until(lambda: lookup.counts.invalidated > heard + 1)
            assert (await until_mark(b, "absent"))["values"] == {"spend": None, "tier": "none"}

    run(main)


def test_redis_may_fail_and_what_it_announced_meanwhile_is_not_trusted(
    tmp_path: Path, postgres: PostgresServer, redis: RedisServer
) -> None:
    async def main() -> None:
        await filled(postgres)
        async with gateway(tmp_path, postgres, redis, ttl_s=3600) as one:
            await until(lambda: listeners(redis) == 1)
            # Entries from before it listened have expired.
            await until_mark(one, "fresh")
            redis.kill()
            assert (await asked(one))["mark"] == "fresh"  # from memory
            await until_mark(one, "fresh")
            await postgres.execute("UPDATE users SET tier = 'silver' WHERE id = 1")
            await asyncio.to_thread(redis.start)

            async def renewed() -> bool:
                tier: str = (await asked(one))["values"]["tier"]
                return tier == "silver"

            # A new Redis is empty (no appended file is read back in this test's time to live), or
            # it has the old record; the entity is then looked up again once that is dropped.
            path = f"{one.url}/_tollway/features/user/1/invalidate"

            async def dropped() -> bool:
                return (await one.client.post(path)).status_code == 200

            await until(dropped, within_s=RECOVERS_S)
            await until(renewed, within_s=RECOVERS_S, every_s=0.02)

    run(main)
