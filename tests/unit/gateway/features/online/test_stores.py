"""All groups of a gateway: writes through the tiers, announcements, erasure, warming."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

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
from tollway.gateway.features.online import records
from tollway.gateway.features.online.memory import Entry
from tollway.gateway.features.online.model import SourceError
from tollway.gateway.features.online.stores import FeatureStores, NotWritable

ANN = {"spend": 12.5, "tier": "gold", "note": "likes tea"}


@asynccontextmanager
async def gateway(source: Any, warm: MemoryWarmTier | None = None) -> AsyncIterator[FeatureStores]:
    stores = FeatureStores(warm)
    stores.revise({"user": lookup(source, warm=warm)})
    await stores.open()
    await asyncio.sleep(0)
    try:
        yield stores
    finally:
        await stores.aclose()


async def spend(stores: FeatureStores) -> Any:
    return (await joined(route(stores.lookups["user"]), call())).parts[0].values[0]


def test_a_write_reaches_all_tiers_and_all_gateways() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN}), MemoryWarmTier()
        async with gateway(source, warm) as a, gateway(source, warm) as b:
            assert [await spend(a), await spend(b)] == [12.5, 12.5]
            await a.put("user", "ann", {"spend": 99})
            assert source.known["ann"] == {"spend": 99}
            asked = len(source.asked)
            assert [await spend(a), await spend(b)] == [99.0, 99.0]
            assert len(source.asked) == asked  # the other gateway finds it in the warm tier

    virtual.run(main())


def test_an_erased_entity_is_nowhere() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN}), MemoryWarmTier()
        async with gateway(source, warm) as a, gateway(source, warm) as b:
            await spend(a), await spend(b)
            assert await a.erase("user", "ann") == {"source": 1, "redis": 1, "memory": 1}
            key = records.key(USER, a.lookups["user"].digest("ann"))
            assert b"gold" not in warm.records[key]["v1"]
            assert [await spend(a), await spend(b)] == [USER.defaults[0]] * 2

    virtual.run(main())


def test_a_look_up_under_way_elsewhere_does_not_bring_back_what_was_erased() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN}, delay_s=0.5), MemoryWarmTier()
        async with gateway(source, warm) as a, gateway(source, warm) as b:
            warm.listeners.clear()  # it does not hear of it, so it stores what it finds
            await spend(b)  # late: the look-up goes on
            await a.erase("user", "ann")
            await asyncio.sleep(1)
            assert b.lookups["user"].memory.get("ann")
            (record,) = warm.records[records.key(USER, a.lookups["user"].digest("ann"))].values()
            assert b"gold" not in record
            assert await spend(a) == USER.defaults[0]

    virtual.run(main())


def test_an_erased_entity_is_in_no_busy_hour_of_any_gateway() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN}), MemoryWarmTier()
        async with gateway(source, warm) as a, gateway(source, warm) as b:
            digest = a.lookups["user"].digest("ann")
            for one in (a, b):
                one.lookups["user"].note_asked(digest)
            await a.invalidate("user", "ann")
            assert digest.encode() in a.save() and digest.encode() in b.save()
            await a.erase("user", "ann")
            assert digest.encode() not in a.save() + b.save()

    virtual.run(main())


def test_after_a_gap_in_announcements_nothing_warmed_or_under_way_is_stored() -> None:
    async def main() -> None:
        source = ScriptedSource({"ann": ANN, "bob": ANN}, delay_s=0.5)
        async with gateway(source) as stores:
            one = stores.lookups["user"]
            one.warmed["x"] = Entry(USER, "x", None, one.now_s())
            await spend(stores)
            stores._missed()
            await asyncio.sleep(1)
            assert not one.warmed
            assert one.memory.get("ann") is None

    virtual.run(main())


def test_a_write_that_the_warm_tier_cannot_store_is_reported() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN}), MemoryWarmTier()
        async with gateway(source, warm) as stores:
            warm.broken = True
            with pytest.raises(SourceError):
                await stores.put("user", "ann", {"spend": 1})

    virtual.run(main())


def test_only_declared_values_of_their_type_are_written() -> None:
    async def main() -> None:
        async with gateway(ScriptedSource()) as stores:
            for values in ({"other": 1}, {"spend": "much"}, {"tier": 1.5}):
                with pytest.raises(ValueError, match=r"declared|must be"):
                    await stores.put("user", "ann", values)
        async with gateway(ScriptedSource(is_writable=False)) as stores:
            with pytest.raises(NotWritable):
                await stores.put("user", "ann", {"spend": 1})

    virtual.run(main())


def test_after_a_gap_in_announcements_memory_serves_only_if_nothing_else_answers() -> None:
    async def main() -> None:
        source = ScriptedSource({"ann": ANN})
        async with gateway(source) as stores:
            await spend(stores)
            source.known["ann"] = {"spend": 5}
            stores._missed()
            assert await spend(stores) == 5.0
            stores._missed()
            source.broken = True
            found = (await joined(route(stores.lookups["user"]), call())).parts[0]
            assert (found.mark, found.values[0]) == ("stale", 5.0)

    virtual.run(main())


def test_an_announcement_that_is_no_announcement_is_ignored() -> None:
    async def main() -> None:
        async with gateway(ScriptedSource({"ann": ANN})) as stores:
            await spend(stores)
            for message in (b"", b"[]", b'["x", "nobody", "y"]', b"\xff", b"7"):
                stores._heard(message)
            assert len(stores.lookups["user"].memory) == 1

    virtual.run(main())


def test_a_source_that_cannot_be_warmed_from_does_not_keep_a_gateway_from_starting() -> None:
    async def main() -> None:
        source = ScriptedSource({}, by_digest=True)
        source.broken = True
        stores = FeatureStores()
        stores.revise({"user": lookup(source)})
        assert await stores.warm_up({"user": ["a"], "gone": ["b"]}) == 0
        await stores.aclose()
        assert source.closed

    virtual.run(main())


def test_an_entity_is_shown_with_its_age() -> None:
    async def main() -> None:
        async with gateway(ScriptedSource({"ann": ANN})) as stores:
            await spend(stores)
            await asyncio.sleep(3)
            shown = await stores.show("user", "ann")
            assert (shown["values"], shown["age_s"], shown["version"]) == (ANN, 3.0, "v1")
            assert (await stores.show("user", "bob"))["values"] is None

    virtual.run(main())


def test_changes_of_an_entity_reach_the_version_that_is_tried() -> None:
    async def main() -> None:
        warm = MemoryWarmTier()
        usual, tried = ScriptedSource({"ann": ANN}), ScriptedSource({"ann": ANN})
        stores = FeatureStores(warm)
        group = replace(USER, version="v2")
        next_one = lookup(tried, group, warm=warm)
        stores.revise({"user": lookup(usual, warm=warm), "user@v2": next_one})
        await stores.open()
        await asyncio.sleep(0)
        await joined(route(next_one), call())
        assert next_one.memory.get("ann") is not None
        tried.known["ann"] = {**ANN, "spend": 1.0}
        await stores.invalidate("user", "ann")
        assert (await joined(route(next_one), call())).parts[0].values[0] == 1.0
        erased = await stores.erase("user", "ann")
        assert erased["source"] == 2 and next_one.memory.get("ann") is None
        assert "ann" not in usual.known and "ann" not in tried.known
        await stores.aclose()

    virtual.run(main())


@pytest.mark.parametrize("broken", ["usual", "tried", "both"])
def test_an_erasure_that_one_source_refuses_reaches_all_other_tiers(broken: str) -> None:
    async def main() -> None:
        warm = MemoryWarmTier()
        sources = {"usual": ScriptedSource({"ann": ANN}), "tried": ScriptedSource({"ann": ANN})}

        async def down(key: str) -> int:
            raise SourceError("it is down")

        def group() -> FeatureStores:
            own = lookup(sources["usual"], warm=warm)
            tried = lookup(sources["tried"], replace(USER, version="v2"), warm=warm)
            stores = FeatureStores(warm)
            stores.revise({"user": own, "user@v2": tried})
            return stores

        gateways = [group(), group()]
        for stores in gateways:
            await stores.open()
            await asyncio.sleep(0)
            for one in stores.lookups.values():
                await joined(route(one), call())
        for name, source in sources.items():
            if broken in (name, "both"):
                source.erase = down  # type: ignore[method-assign]
        with pytest.raises(SourceError, match="it is down"):
            await gateways[0].erase("user", "ann")
        for name, source in sources.items():
            assert ("ann" in source.known) == (broken in (name, "both"))
        for stores in gateways:
            for one in stores.lookups.values():
                assert one.memory.get("ann") is None
        key = records.key(USER, gateways[0].lookups["user"].digest("ann"))
        assert set(warm.records[key]) == {"v1", "v2"}  # both are barred
        assert not any(b"gold" in record for record in warm.records[key].values())
        for stores in gateways:
            await stores.aclose()

    virtual.run(main())


def test_an_erasure_leaves_nothing_in_memory_when_the_warm_tier_is_broken() -> None:
    async def main() -> None:
        source, warm = ScriptedSource({"ann": ANN}), MemoryWarmTier()
        async with gateway(source, warm) as stores:
            await spend(stores)
            warm.broken = True
            with pytest.raises(SourceError):
                await stores.erase("user", "ann")
            assert "ann" not in source.known
            assert stores.lookups["user"].memory.get("ann") is None

    virtual.run(main())
