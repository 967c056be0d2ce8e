"""Look-ups: one flight an entity, batches, early renewal, stale values, and what may go wrong."""

import asyncio
from dataclasses import replace
from random import Random

import pytest

from tests.support import virtual
from tests.support.feature_sources import (
    USER,
    MemoryWarmTier,
    ScriptedSource,
    call,
    joined,
    lookup,
    route,
)
from tollway.gateway.features.online import lookup as lookups
from tollway.gateway.features.online.breaker import CLOSED, FAILURES, OPEN
from tollway.gateway.features.online.lookup import FeatureLookup
from tollway.gateway.features.online.model import (
    ABSENT,
    FRESH,
    LATE,
    STALE,
    UNAVAILABLE,
)

ANN = {"spend": 12.5, "tier": "gold", "note": "likes tea"}


async def mark(one: FeatureLookup, user: str = "ann", limit_s: float = 0.01) -> str:
    return (await joined(route(one, limit_s=limit_s), call(user))).parts[0].mark


def test_ten_thousand_requests_at_one_expiry_ask_the_source_once() -> None:
    async def main() -> None:
        source = ScriptedSource({"ann": ANN}, delay_s=0.005)
        one = lookup(source)
        await mark(one)
        await asyncio.sleep(USER.ttl_s)
        joins = [mark(one) for _ in range(10_000)]
        assert set(await asyncio.gather(*joins)) == {FRESH}
        assert len(source.asked) == 2

    virtual.run(main())


def test_entities_wanted_in_one_turn_are_asked_for_together() -> None:
    async def main() -> None:
        source = ScriptedSource({f"u{n}": {"spend": n} for n in range(600)}, delay_s=0.001)
        one = lookup(source, replace(USER, batch_max=256))
        await asyncio.gather(*(mark(one, f"u{n}") for n in range(600)))
        assert [len(keys) for keys in source.asked] == [256, 256, 88]

    virtual.run(main())


def test_keys_that_wait_for_a_busy_source_make_one_batch() -> None:
    async def main() -> None:
        source = ScriptedSource({f"u{n}": {} for n in range(9)}, delay_s=0.005)
        one = lookup(source, replace(USER, concurrency=1))
        tasks = []
        for n in range(9):
            tasks.append(asyncio.create_task(mark(one, f"u{n}", limit_s=1.0)))
            await asyncio.sleep(0.0001)
        assert set(await asyncio.gather(*tasks)) == {FRESH}
        assert [len(keys) for keys in source.asked] == [1, 8]

    virtual.run(main())


def test_values_that_come_late_are_defaults_now_and_serve_the_next_request() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        one = lookup(ScriptedSource({"ann": ANN}, delay_s=0.2))
        began_s = loop.time()
        late = await joined(route(one, limit_s=0.01), call())
        assert loop.time() - began_s == pytest.approx(0.01)
        assert (late.parts[0].mark, late.parts[0].values) == (LATE, (0.0, "free", ""))
        await asyncio.sleep(0.2)
        assert await mark(one) == FRESH

    virtual.run(main())


def test_the_deadline_of_the_request_ends_the_wait_before_the_limit_of_the_route() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        one = lookup(ScriptedSource({"ann": ANN}, delay_s=0.2))
        late = await joined(route(one, limit_s=5.0), call(), loop.time() + 0.003)
        assert late.parts[0].mark == LATE
        assert loop.time() == pytest.approx(0.003)

    virtual.run(main())


def test_an_entity_that_the_source_does_not_know_is_not_asked_for_again_at_once() -> None:
    async def main() -> None:
        source = ScriptedSource({}, delay_s=0.001)
        one = lookup(source)
        assert [await mark(one, "nobody") for _ in range(5)] == [ABSENT] * 5
        assert len(source.asked) == 1
        source.known["nobody"] = ANN
        await asyncio.sleep(USER.negative_s)
        assert await mark(one, "nobody") == FRESH

    virtual.run(main())


def test_unknown_entities_do_not_push_known_ones_out_of_memory() -> None:
    async def main() -> None:
        source = ScriptedSource({"ann": ANN})
        one = lookup(source, replace(USER, entries_max=10))
        await mark(one)
        for n in range(100):
            await mark(one, f"made-up-{n}")
        asked = len(source.asked)
        assert await mark(one) == FRESH
        assert len(source.asked) == asked

    virtual.run(main())


def test_a_broken_source_serves_stale_values_and_is_asked_less_and_less() -> None:
    async def main() -> None:
        source = ScriptedSource({"ann": ANN}, delay_s=0.001)
        one = lookup(source)
        await mark(one)
        source.broken = True
        await asyncio.sleep(USER.ttl_s)
        marks = []
        for _ in range(100):
            part = (await joined(route(one), call())).parts[0]
            marks.append(part.mark)
            assert part.values[0] == 12.5
            assert part.age_s >= USER.ttl_s
            await asyncio.sleep(0.05)
        assert set(marks) == {STALE}
        assert len(source.asked) <= 1 + FAILURES + 4  # five seconds of rests of 0.5, 1, 2 and 4
        assert one.breaker.state(asyncio.get_running_loop().time()) == OPEN

    virtual.run(main())


def test_a_source_that_answers_again_is_found_out_by_one_look_up() -> None:
    async def main() -> None:
        source = ScriptedSource({"ann": ANN, "bob": ANN}, delay_s=0.001)
        source.broken = True
        one = lookup(source)
        assert [await mark(one) for _ in range(5)] == [UNAVAILABLE] * 5
        source.broken = False
        await asyncio.sleep(1.0)
        source.delay_s = 0.02
        trial = asyncio.create_task(mark(one, limit_s=1.0))
        await asyncio.sleep(0.01)
        assert await mark(one, "bob") == UNAVAILABLE  # while the trial is under way
        assert await trial == FRESH
        assert one.breaker.state(asyncio.get_running_loop().time()) == CLOSED
        assert await mark(one, "bob", limit_s=1.0) == FRESH

    virtual.run(main())


def test_a_source_that_hangs_counts_as_broken() -> None:
    async def main() -> None:
        source = ScriptedSource({"ann": ANN}, delay_s=1e6)
        one = lookup(source, replace(USER, timeout_s=0.1))
        for _ in range(FAILURES):
            assert await mark(one) == LATE
            await asyncio.sleep(0.2)
        assert await mark(one) == UNAVAILABLE
        await one.aclose()

    virtual.run(main())


def test_values_in_demand_are_renewed_before_they_expire_by_one_request() -> None:
    async def main() -> None:
        source = ScriptedSource({"ann": ANN}, delay_s=0.03)
        one = lookup(source, rng=Random(3))
        await mark(one, limit_s=1.0)
        marks = []
        for _ in range(20 * 130):  # 20 a second, past two expiries
            marks.append(await mark(one))
            await asyncio.sleep(0.05)
        assert set(marks) == {FRESH}  # nobody has waited for a look-up
        assert len(source.asked) == 3
        assert one.counts.early == 2

    virtual.run(main())


def test_a_write_while_a_look_up_is_under_way_is_not_undone_by_it() -> None:
    async def main() -> None:
        source = ScriptedSource({"ann": ANN}, delay_s=0.1)
        one = lookup(source)
        before = asyncio.create_task(joined(route(one, limit_s=1.0), call()))
        await asyncio.sleep(0.05)
        one.forget(one.digest("ann"))
        source.known["ann"] = {"spend": 99}
        assert (await before).parts[0].values[0] == 12.5  # it asked before the write
        assert (await joined(route(one, limit_s=1.0), call())).parts[0].values[0] == 99.0

    virtual.run(main())


def test_a_second_flight_of_an_entity_is_not_ended_by_the_batch_of_the_first() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN, "bob": ANN}, delay_s=0.1), MemoryWarmTier()
        await mark(lookup(source, warm=warm), limit_s=1.0)  # now the warm tier has ann
        one = lookup(source, replace(USER, concurrency=4), warm)
        slow = asyncio.create_task(mark(one, "bob", limit_s=1.0))
        assert await mark(one) == FRESH  # in one batch with bob, from the warm tier
        await warm.erase(list(warm.records))
        one.forget(one.digest("ann"))
        again = asyncio.create_task(mark(one, limit_s=1.0))
        await asyncio.sleep(0.05)
        assert [await slow, await again] == [FRESH, FRESH]

    virtual.run(main())


def test_one_tenants_unknown_keys_leave_look_ups_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookups, "TENANT_FLIGHTS_MAX", 3)

    async def main() -> None:
        one = lookup(ScriptedSource({"ann": ANN}, delay_s=0.005))
        many = route(one)
        flood = [joined(many, call(f"x{n}", "flooder")) for n in range(10)]
        marks = [found.parts[0].mark for found in await asyncio.gather(*flood)]
        assert marks == [ABSENT] * 3 + [UNAVAILABLE] * 7
        assert one.counts.crowded == 7
        assert (await joined(many, call("ann", "other"))).parts[0].mark == FRESH
        assert one.in_flight == 0

    virtual.run(main())


def test_a_second_gateway_finds_values_in_the_warm_tier() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN}), MemoryWarmTier()
        first, second = lookup(source, warm=warm), lookup(source, warm=warm)
        await mark(first)
        await asyncio.sleep(10)
        part = (await joined(route(second), call())).parts[0]
        assert (part.mark, part.values) == (FRESH, (12.5, "gold", "likes tea"))
        assert part.age_s == pytest.approx(10, abs=0.01)
        assert len(source.asked) == 1
        await asyncio.sleep(51)  # both expire together, because the age goes along
        await mark(second)
        assert len(source.asked) == 2

    virtual.run(main())


def test_a_broken_warm_tier_is_passed_over() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN}), MemoryWarmTier()
        warm.broken = True
        one = lookup(source, warm=warm)
        assert await mark(one) == FRESH

    virtual.run(main())


def test_versions_do_not_share_values() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN}), MemoryWarmTier()
        old, new = lookup(source, warm=warm), lookup(source, replace(USER, version="v2"), warm)
        await mark(old)
        await mark(new)
        assert len(source.asked) == 2
        [record] = warm.records.values()
        assert set(record) == {"v1", "v2"}

    virtual.run(main())


def test_warming_loads_entities_by_pseudonym() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN}), MemoryWarmTier()
        await mark(lookup(source, warm=warm))
        started = lookup(source, warm=warm)
        assert await started.warm_up([started.digest("ann"), "unknown"]) == 1
        found = route(started).join(call(), asyncio.get_running_loop().time())
        assert not hasattr(found, "parts") or found.parts[0].mark == FRESH
        assert await mark(started) == FRESH
        assert len(source.asked) == 1

    virtual.run(main())


def test_nothing_is_left_of_look_ups_that_have_ended() -> None:
    async def main() -> None:
        source = ScriptedSource({}, delay_s=0.001)
        one = lookup(source)
        for n in range(50):
            await mark(one, f"x{n}")
        source.broken = True
        for n in range(50):
            await mark(one, f"y{n}")
        assert one.in_flight == 0
        assert not (one._flights or one._by_digest or one._of_tenant or one._waiting)
        assert not one._busy

    virtual.run(main())
