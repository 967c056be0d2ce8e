"""Busy hours: the entities that the same hour of an earlier week asked for."""

import asyncio

import pytest

from tests.support import virtual
from tests.support.feature_sources import ScriptedSource, call, joined, lookup, route
from tollway.gateway.features.online.busy_hours import (
    AHEAD_S,
    HOUR_S,
    HOURS,
    KEPT,
    SEEN_MAX,
    BusyHours,
)
from tollway.gateway.features.online.stores import FeatureStores

WEEK_S = HOURS * HOUR_S


def test_the_entities_of_an_hour_come_back_a_week_later_shortly_before_it() -> None:
    hours = BusyHours()
    for digest, count in (("a", 2), ("b", 5), ("c", 1)):
        for _ in range(count):
            hours.see(digest, 10 * HOUR_S + 5)
    hours.see("x", 11 * HOUR_S)
    soon_s = WEEK_S + 10 * HOUR_S - AHEAD_S
    assert hours.ahead(soon_s) == ["b", "a", "c"]
    assert hours.ahead(soon_s - 1.0) == []
    again = BusyHours()
    again.load(hours.save())
    assert again.ahead(soon_s) == ["b", "a", "c"]


def test_an_hours_entities_fade_from_week_to_week() -> None:
    hours = BusyHours()
    for _ in range(4):
        hours.see("a", 0.0)
    hours.see("b", WEEK_S)
    hours.see("b", WEEK_S + 1)
    hours.see("b", WEEK_S + 2)
    assert hours.ahead(2 * WEEK_S - 1.0) == ["b", "a"]


def test_made_up_keys_take_no_more_than_their_bound() -> None:
    hours = BusyHours()
    for n in range(3 * SEEN_MAX):
        hours.see("often", 0.0)
        hours.see(f"x{n}", 0.0)
    hours.see("y", HOUR_S)
    ahead = hours.ahead(WEEK_S - 1.0)
    assert (ahead[0], len(ahead)) == ("often", KEPT)


def test_a_damaged_state_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        BusyHours().load(b"{")


def test_entities_of_the_hour_ahead_are_looked_up_before_they_are_asked_for() -> None:
    async def main() -> None:
        source = ScriptedSource({"ann": {"spend": 1.0}})
        one = lookup(source)
        stores = FeatureStores()
        stores.revise({"user": one})
        await joined(route(one), call())
        one.hours.see(one.digest("ann"), 10 * HOUR_S)
        await asyncio.sleep(one.group.ttl_s)
        assert await stores.warm_ahead(WEEK_S + 10 * HOUR_S - 60.0) == 1
        await asyncio.sleep(0.1)
        asked = len(source.asked)
        assert (await joined(route(one), call())).parts[0].mark == "fresh"
        assert len(source.asked) == asked == 2
        await stores.aclose()

    virtual.run(main())
