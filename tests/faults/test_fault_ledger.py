"""Faults of Redis and of the network to it: requests are answered, money counts once."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.stand import CHEAP_NANO, position, standing
from tests.support.harness import Upstream, run, serving
from tests.support.redis_server import redis_server, sentinels, wait_for_another
from tests.support.until import until
from tollway.gameday.faults import parse
from tollway.gameday.proxy import FaultProxy

pytestmark = pytest.mark.integration

CALLS = 1000
CLIENTS = 8


def test_a_gateway_cut_off_from_redis_spends_its_lease_and_the_others_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        backend = Upstream(delay_s=0.005)
        limit_usd = str(CALLS * CHEAP_NANO / 1e9)
        with redis_server(tmp_path / "redis") as redis:
            near = redis.url
            async with serving(backend) as url, FaultProxy(("127.0.0.1", redis.port)) as proxy:
                far = f"redis://127.0.0.1:{proxy.address[1]}/0"
                async with (
                    standing(tmp_path / "a", url, url, ledger=far, limit_usd=limit_usd) as cut_off,
                    standing(tmp_path / "b", url, url, ledger=near, limit_usd=limit_usd) as other,
                ):
                    async with cut_off.load(CLIENTS), other.load(2, pause_s=0.01):
                        await cut_off.sees(200, 50)
                        async with proxy.struck(parse("drop")):
                            await cut_off.sees(503, 20)
                            other.statuses.clear()
                            await other.sees(200, 20)
                            assert set(other.statuses) == {200}
                        await cut_off.sees(200, 20)
                        # Until the budget is gone for both.
                        await asyncio.gather(cut_off.sees(402, 20), other.sees(402, 20))
                    assert {*cut_off.statuses, *other.statuses} == {200, 402, 503}
                    for stand in (cut_off, other):
                        await stand.leaves_open(CLIENTS)  # connections to the backend
                        await stand.stop()
                    spent = await position(near)
                    assert spent.leased_nano == spent.unaccounted_nano == 0
                    assert spent.spent_nano == backend.calls * CHEAP_NANO == CALLS * CHEAP_NANO
                    assert cut_off.journal_nano + other.journal_nano == spent.spent_nano

    run(main)


def test_a_redis_that_is_killed_stopped_or_loses_replies_costs_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        backend = Upstream(delay_s=0.005)
        with redis_server(tmp_path / "redis") as redis:
            async with serving(backend) as url, FaultProxy(("127.0.0.1", redis.port)) as proxy:
                far = f"redis://127.0.0.1:{proxy.address[1]}/0"
                async with standing(tmp_path / "a", url, url, ledger=far) as stand:
                    async with stand.load(CLIENTS):
                        await stand.sees(200, 50)
                        redis.kill()
                        await stand.sees(503, 20)
                        redis.start()
                        await stand.sees(200, 50)
                        redis.pause()
                        await stand.sees(503, 20)
                        redis.resume()
                        await stand.sees(200, 50)
                        for words in ("swallow=20", "cut=20", "reset"):
                            before = proxy.counts.total()
                            async with proxy.struck(parse(words)):
                                await until(lambda: proxy.counts.total() > before + 1)  # noqa: B023
                            await stand.sees(200, 50)
                        async with proxy.struck(parse("slice=1,rate=20kB")):
                            await stand.sees(200, 50)
                    assert set(stand.statuses) == {200, 503}
                    await stand.leaves_open(CLIENTS)
                    await stand.stop()
                    spent = await position(redis.url)
                    assert spent.leased_nano == spent.unaccounted_nano == 0
                    assert spent.spent_nano == backend.calls * CHEAP_NANO == stand.journal_nano

    run(main)


def test_when_redis_fails_over_spending_goes_on_at_the_new_primary(tmp_path: Path) -> None:
    async def main() -> None:
        backend = Upstream(delay_s=0.005)
        with redis_server(tmp_path / "redis", "--repl-diskless-sync-delay", "0") as redis:
            with sentinels(tmp_path, redis) as ledger:
                async with serving(backend) as url:
                    async with standing(tmp_path / "a", url, url, ledger=ledger) as stand:
                        async with stand.load(CLIENTS):
                            await stand.sees(200, 50)
                            redis.kill()
                            await asyncio.to_thread(wait_for_another, ledger, redis.port)
                            await stand.sees(200, 500)
                        assert set(stand.statuses) <= {200, 503}
                        await stand.leaves_open(CLIENTS + 2)  # and to the other Sentinels
                        await stand.stop()
                        spent = await position(ledger)
                        assert spent.leased_nano == spent.unaccounted_nano == 0
                        assert spent.spent_nano == backend.calls * CHEAP_NANO
                        assert spent.spent_nano == stand.journal_nano

    run(main)
