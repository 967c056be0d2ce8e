"""What a process tells others of its flights, and what it takes of theirs."""

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.kept_answers import entry
from tollway.gateway.caching.directives import ANY, Demand
from tollway.gateway.caching.entry import Entry
from tollway.gateway.caching.memory import MemoryCache
from tollway.gateway.caching.plan import CachePlan
from tollway.gateway.caching.shared_flights import LEAD
from tollway.gateway.routing.cached.caching_driver import CachingDriver

PLAN = CachePlan(version=b"1", protocol="openai", ttl_s=60.0, stale_s=60.0, early=0.0)
NOW_S = 1000.0


class Relay:
    """A stream of two parts, which ends well or is cut."""

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.follower = SimpleNamespace(error="")
        self.parts = [b"one", b"two"] if whole else [b"one"]
        self.tap: Any = None
        self.on_end: Any = lambda error, abandoned: None

    async def read(self) -> bytes:
        part = self.parts.pop(0) if self.parts else b""
        self.tap(part)
        if not part:
            self.on_end("" if self.whole else "cut", "")
        return part

    async def close(self, error: str) -> None:
        return


class Shared:
    """The flights of all processes: this one leads them; how they end is noted."""

    def __init__(self) -> None:
        self.ended: list[bool] = []

    async def join(self, *args: Any) -> str:
        return LEAD

    async def end(self, key: bytes, *, is_kept: bool, left: bool = False) -> None:
        self.ended.append(is_kept)

    async def close(self) -> None:
        return


class Remote:
    """A second tier with one answer at most."""

    rests = False

    def __init__(self) -> None:
        self.kept: Entry | None = None

    async def get(self, key: bytes) -> Entry | None:
        return self.kept

    async def put(self, key: bytes, entry: Entry, now_s: float) -> None:
        return

    def takes(self, entry: Entry) -> bool:
        return True

    async def close(self) -> None:
        return


def caching(answer: Any, shared: Any) -> CachingDriver:
    return CachingDriver(
        SimpleNamespace(answer=answer),  # type: ignore[arg-type]
        MemoryCache(bytes_max=1 << 20, entries_max=10),
        Remote(),  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
        clock=lambda: NOW_S,
        wall=lambda: NOW_S,
        rng=Random(0),
        shared=shared,
    )


def asking() -> Any:
    route = SimpleNamespace(cascade=False, backends={"gpu": None}, name="r")
    return SimpleNamespace(
        route=route,
        tenant="t",
        memory=None,
        cache_result="refresh",
        deadline_s=NOW_S + 60.0,
        floor=None,
        left=False,
    )


@pytest.mark.parametrize("whole", [True, False])
def test_a_refreshed_stream_is_told_to_others_once_it_has_ended(whole: bool) -> None:
    async def main() -> None:
        inference, shared = asking(), Shared()
        outcome = SimpleNamespace(error="", no_answer="", usage=None, cost_nano=5)
        held = SimpleNamespace(
            outcome=outcome,
            status=200,
            output_limit=0,
            relay=Relay(whole=whole),
            backend="gpu",
            headers=[(b"content-type", b"text/event-stream")],
            latency_s=1.0,
        )

        async def answer(_: Any) -> Any:
            return SimpleNamespace(held=held, inference=inference)

        driver = caching(answer, shared)
        driver._refreshing["t"] += 1
        old = entry(b"old", made_s=NOW_S - 60.0)
        await driver._refreshed(PLAN, b"k", inference, old, driver.flights.begin(b"k"))
        await driver.close()
        assert shared.ended == [whole]
        assert len(driver.memory) == whole
        assert len(driver.flights) == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("wanted", "suits"),
    [(ANY, True), (Demand(age_s_max=5.0), False), (Demand(age_s_max=9.0), True)],
)
def test_an_answer_of_another_process_is_as_young_as_the_client_wants(
    wanted: Demand, suits: bool
) -> None:
    async def main() -> None:
        found: list[bool] = []
        old = entry(b"old", made_s=NOW_S - 8.0)
        new = entry(b"new", made_s=NOW_S)

        async def join(key: bytes, until_s: float, judge: Any) -> str:
            found.extend([judge(old), judge(new)])
            return LEAD

        driver = caching(None, SimpleNamespace(join=join))
        assert await driver._elsewhere(driver.shared, b"k", asking(), wanted, 1.0) == LEAD  # type: ignore[arg-type]
        assert found == [suits, True]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("expires_s", "is_newer"), [(1000.5, False), (1001.0, False), (1060.0, True)]
)
def test_a_refresh_takes_only_an_answer_that_outlives_the_one_that_is_there(
    expires_s: float, is_newer: bool
) -> None:
    async def main() -> None:
        judged: list[bool] = []
        old, found = entry(b"old", expires_s=1001.0), entry(b"found", expires_s=expires_s)

        async def join(key: bytes, until_s: float, judge: Any) -> str:
            judged.append(judge(found))
            return LEAD

        driver = caching(None, SimpleNamespace(join=join))
        driver.remote.kept = found  # type: ignore[union-attr]
        driver.memory.put(b"k", old)
        got = await driver._refreshed_elsewhere(PLAN, b"k", asking(), old)
        assert got is found if is_newer else got == LEAD
        assert judged == ([] if is_newer else [False])
        assert driver.memory.get(b"k") is (found if is_newer else old)

    asyncio.run(main())


@pytest.mark.parametrize("age_s_max", [5.0, 9.0])
def test_who_waits_for_an_answer_that_is_too_old_for_it_asks_for_itself(
    age_s_max: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of those that wait takes any answer of another process, which another may not."""

    async def main() -> None:
        driver = caching(None, None)

        async def lead(*_: Any) -> str:
            return "leads"

        async def give(*_: Any, **__: Any) -> str:
            return "given"

        monkeypatch.setattr(driver, "_lead", lead)
        monkeypatch.setattr(driver, "_give", give)
        flight = driver.flights.begin(b"k")
        wanted = Demand(age_s_max=age_s_max)
        waits = asyncio.create_task(driver._join(PLAN, b"k", asking(), wanted))
        while not flight.waiting:
            await asyncio.sleep(0)
        driver.flights.end(b"k", flight, entry(b"old", made_s=NOW_S - 8.0))
        got: Any = await waits
        assert got == ("given" if age_s_max == 9.0 else "leads")

    asyncio.run(main())
