"""Answers in Redis: gateways share them, and no request fails when Redis does."""

import asyncio
import itertools
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.kept_answers import Highest
from tests.support.redis_server import RedisServer, redis_cluster, redis_server
from tests.support.until import until
from tollway.gateway.caching import shared_flights

pytestmark = pytest.mark.integration

CACHE = "cache = { ttl_s = 3600, stale_s = 600, early = 0, fresh_share = 0 }"


def tier(url: str, **more: str) -> str:
    return f'\n[cache]\nurl = "{url}"\n'


async def written(tollway: Running) -> None:
    await until(lambda: tollway.gateway.caching.is_quiet)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis", "--appendonly", "no") as server:
        yield server


def test_an_answer_of_one_gateway_is_given_by_another(redis: RedisServer, tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream(label=4)
        async with serving(cheap) as a, serving(Upstream()) as b:
            more = tier(redis.url + "?timeout_ms=5000")
            text = two_backends(a, b, route=CACHE, more=more)
            async with running(text, tmp_path / "1") as one, running(text, tmp_path / "2") as two:
                first = await one.infer(1.0)
                await written(one)
                again = await two.infer(1.0)
                third = await two.infer(1.0)
                remote = two.gateway.caching.remote
                assert remote is not None
                assert (remote.hits, remote.errors) == (1, 0)
        assert cheap.calls == 1
        assert first.content == again.content == third.content
        assert again.headers["x-tollway-cache"] == third.headers["x-tollway-cache"] == "hit"

    run(main)


def test_an_early_refresh_is_not_content_with_the_answer_that_expires(
    redis: RedisServer, tmp_path: Path
) -> None:
    async def main() -> None:
        cheap = Upstream()
        cache = "cache = { ttl_s = 60, early = 10, fresh_share = 0 }"
        now_s = 1_000_000.0
        async with serving(cheap) as a, serving(Upstream()) as b:
            more = tier(redis.url + "?timeout_ms=5000")
            text = two_backends(a, b, route=cache, more=more)
            async with running(text, tmp_path / "1") as one, running(text, tmp_path / "2") as two:
                for each in (one, two):
                    each.gateway.caching.wall = lambda: now_s
                    each.gateway.caching.rng = Highest()
                await one.infer(1.0)
                await written(one)
                await two.infer(1.0)
                for each in (one, two):
                    next(iter(each.gateway.caching.memory)).took_s = 1.0
                now_s += 30.0
                for each in (one, two):
                    reply = await each.infer(1.0)
                    await written(each)
                    assert reply.headers["x-tollway-cache"] == "hit"
                kept = [next(iter(each.gateway.caching.memory)) for each in (one, two)]
        assert cheap.calls == 2  # the second gateway takes what the first has fetched
        assert [entry.made_s for entry in kept] == [now_s, now_s]

    run(main)


def test_no_request_fails_when_redis_is_killed_and_it_is_used_again(
    redis: RedisServer, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            text = two_backends(a, b, route=CACHE, more=tier(redis.url + "?timeout_ms=5000"))
            async with running(text, tmp_path) as tollway:
                assert (await tollway.infer(0.0)).status_code == 200
                await written(tollway)
                remote = tollway.gateway.caching.remote
                assert remote is not None
                remote.clock = lambda: 0.0  # its rest does not end by itself
                redis.kill()
                values = [float(number % 20) for number in range(100)]
                replies = await asyncio.gather(*[tollway.infer(value) for value in values])
                assert {reply.status_code for reply in replies} == {200}
                assert remote.rests
                redis.start()
                remote.clock = itertools.count(10**9, 10).__next__  # every rest is over at once
                remote.hits = 0

                async def is_used_again() -> bool:
                    assert (await tollway.infer(100.0)).status_code == 200
                    await written(tollway)
                    tollway.gateway.caching.memory.clear()
                    return bool(remote.hits)

                await until(is_used_again)

    run(main)


def test_redis_that_does_not_answer_fails_no_request(redis: RedisServer, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            text = two_backends(a, b, route=CACHE, more=tier(redis.url + "?timeout_ms=50"))
            async with running(text, tmp_path) as tollway:
                redis.pause()
                try:
                    for value in range(10):
                        assert (await tollway.infer(float(value))).status_code == 200
                finally:
                    redis.resume()

    run(main)


def test_gateways_make_one_call_for_the_same_request(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_flights, "LIFE_S", 600.0)  # no holder's loop hangs for so long

    async def main() -> None:
        cheap = Upstream(hold=asyncio.Event())
        async with serving(cheap) as a, serving(Upstream()) as b:
            more = tier(redis.url + "?timeout_ms=60000")
            text = two_backends(a, b, route=CACHE, more=more)
            async with running(text, tmp_path / "1") as one, running(text, tmp_path / "2") as two:
                asked = [asyncio.create_task(gateway.infer(1.0)) for gateway in (one, two) * 100]
                flights = [gateway.gateway.caching.shared for gateway in (one, two)]
                await until(lambda: cheap.calls == 1)
                await until(lambda: sum(each.waited for each in flights if each) == 1)
                assert cheap.hold is not None
                cheap.hold.set()
                replies = await asyncio.gather(*asked)
                rows = one.journalled("decision") + two.journalled("decision")
                cached = [row for row in rows if row["arm"] == "cache:cheap"]
        assert cheap.calls == 1
        assert {reply.status_code for reply in replies} == {200}
        assert (len(rows), len(cached)) == (200, 199)
        assert all(row["propensity"] == 1.0 for row in cached if row["cached"]["found"] == "joined")

    run(main)


def test_no_gateway_gives_an_answer_that_is_older_than_the_client_takes(
    redis: RedisServer, tmp_path: Path
) -> None:
    async def main() -> None:
        cheap = Upstream()
        async with serving(cheap) as a, serving(Upstream()) as b:
            text = two_backends(a, b, route=CACHE, more=tier(redis.url + "?timeout_ms=5000"))
            async with running(text, tmp_path / "1") as one, running(text, tmp_path / "2") as two:
                await one.infer(1.0)
                await written(one)
                for gateway in (one, two):
                    gateway.gateway.caching.wall = lambda: time.time() + 1000.0
                young = {"cache-control": "max-age=900"}
                first = await one.infer(1.0, **young)
                await written(one)
                second = await two.infer(1.0, **young)
        assert cheap.calls == 2
        assert [reply.headers["x-tollway-cache"] for reply in (first, second)] == ["miss", "hit"]

    run(main)


HOLDER = """
import asyncio, sys, time
from tollway.gateway.caching import shared_flights
from tollway.gateway.caching.redis_store import RedisStore
from tollway.gateway.caching.remote import RemoteCache
from tollway.gateway.caching.shared_flights import SharedFlights

async def nap(seconds):
    await asyncio.sleep(0.1)

async def main():
    store = RedisStore(sys.argv[1] + "?timeout_ms=60000")
    remote = RemoteCache(store, entry_bytes_max=1000, clock=time.monotonic)
    shared = SharedFlights(store, remote, clock=time.monotonic, sleep=nap)
    key = bytes.fromhex(sys.argv[2])
    life_s, shared_flights.LIFE_S = shared_flights.LIFE_S, 600.0  # until others are seen to wait
    print(await shared.join(key, 0.0, lambda entry: True), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    shared_flights.LIFE_S = life_s
    await store.renew(key, shared._led[key][0], life_s)
    print("renewed", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_after_a_holder_that_is_killed_the_others_go_on_by_themselves(
    redis: RedisServer, tmp_path: Path
) -> None:
    async def main() -> None:
        cheap = Upstream()
        async with serving(cheap) as a, serving(Upstream()) as b:
            more = tier(redis.url + "?timeout_ms=5000")
            text = two_backends(a, b, route=CACHE, more=more)
            async with running(text, tmp_path) as one:
                keys: list[bytes] = []
                of = one.gateway.caching.keys.of

                def noted(*args: Any) -> bytes | None:
                    key = of(*args)
                    keys.append(key or b"")
                    return key

                one.gateway.caching.keys.of = noted  # type: ignore[method-assign]
                await one.infer(1.0, **{"cache-control": "no-store"})
                command = [sys.executable, "-c", HOLDER, redis.url, keys[0].hex()]
                holder = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
                try:
                    assert holder.stdin is not None and holder.stdout is not None
                    assert await holder.stdout.readline() == b"lead\n"
                    shared = one.gateway.caching.shared
                    assert shared is not None
                    asked = [asyncio.create_task(one.infer(1.0)) for _ in range(20)]
                    await until(lambda: shared.waited == 1)
                    assert cheap.calls == 1  # that of the first request, which looked nowhere
                    holder.stdin.write(b"\n")
                    assert await holder.stdout.readline() == b"renewed\n"
                finally:
                    holder.kill()
                    await holder.wait()
                replies = await asyncio.gather(*asked)
        assert {reply.status_code for reply in replies} == {200}
        assert cheap.calls == 2

    run(main)


def test_answers_are_spread_over_the_shards_of_a_cluster(tmp_path: Path) -> None:
    async def main(nodes: list[RedisServer]) -> None:
        cheap = Upstream()
        async with serving(cheap) as a, serving(Upstream()) as b:
            url = f"redis://127.0.0.1:{nodes[0].port}?cluster=1&timeout_ms=5000"
            ledger = url
            text = two_backends(a, b, route=CACHE, more=tier(url), ledger=ledger)
            async with running(text, tmp_path / "1") as one, running(text, tmp_path / "2") as two:
                for value in range(30):
                    assert (await one.infer(float(value))).status_code == 200
                await written(one)
                for value in range(30):
                    reply = await two.infer(float(value))
                    assert reply.headers["x-tollway-cache"] == "hit"
        assert cheap.calls == 30

    with redis_cluster(tmp_path / "cluster") as nodes:
        asyncio.run(main(nodes))
        assert all(node.keys("tollway:answer:*") for node in nodes)
