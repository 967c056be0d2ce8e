"""Of all processes with one second tier, one asks; a holder that dies holds nobody for long."""

import asyncio
from dataclasses import dataclass, field

from tests.support.kept_answers import entry
from tollway.gateway.caching.entry import Entry, packed
from tollway.gateway.caching.flights import NOTHING
from tollway.gateway.caching.remote import CacheUnavailable, RemoteCache
from tollway.gateway.caching.shared_flights import LEAD, LIFE_S, OVER_S, SharedFlights


@dataclass
class Store:
    """A store whose time is told; sleeping passes it."""

    now_s: float = 100.0
    away: bool = False
    values: dict[bytes, bytes] = field(default_factory=dict)
    records: dict[bytes, tuple[bytes, float]] = field(default_factory=dict)
    asleep: int = 0

    def _record(self, key: bytes) -> bytes | None:
        if self.away:
            raise CacheUnavailable("away")
        found = self.records.get(key)
        return found[0] if found is not None and self.now_s < found[1] else None

    async def get(self, key: bytes) -> bytes | None:
        self._record(key)
        return self.values.get(key)

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        self.values[key] = value

    async def claim(self, key: bytes, token: bytes, life_s: float) -> bytes | None:
        found = self._record(key)
        if found is None:
            self.records[key] = token, self.now_s + life_s
        return found

    async def renew(self, key: bytes, token: bytes, life_s: float) -> bool:
        mine = self._record(key) == token
        if mine:
            self.records[key] = token, self.now_s + life_s
        return mine

    async def end(self, key: bytes, token: bytes, result: bytes, life_s: float) -> None:
        if self._record(key) == token:
            self.records[key] = result, self.now_s + life_s

    async def close(self) -> None:
        return

    async def sleep(self, seconds: float) -> None:
        self.asleep += 1
        await asyncio.sleep(0)
        self.now_s += seconds

    async def hang(self, seconds: float) -> None:
        """Sleep for good: what a process that was killed does."""
        await asyncio.Event().wait()


def process(store: Store, *, killed: bool = False) -> SharedFlights:
    def clock() -> float:
        return store.now_s

    remote = RemoteCache(store, entry_bytes_max=1 << 20, clock=clock)
    sleep = store.hang if killed else store.sleep
    return SharedFlights(store, remote, clock=clock, sleep=sleep)


def any_of_them(entry: Entry) -> bool:
    return True


def test_the_first_leads_and_the_others_get_its_answer() -> None:
    async def main() -> None:
        store = Store()
        one, other = process(store, killed=True), process(store)
        assert await one.join(b"k", 200.0, any_of_them) == LEAD
        waits = asyncio.create_task(other.join(b"k", 200.0, any_of_them))
        await asyncio.sleep(0)
        store.values[b"k"] = packed(entry(b"answer"))
        await one.end(b"k", is_kept=True)
        got = await waits
        assert isinstance(got, Entry) and got.body == b"answer"
        late = await other.join(b"k", 200.0, any_of_them)
        assert isinstance(late, Entry)  # it looked before the answer was there
        store.now_s += OVER_S
        assert await other.join(b"k", 200.0, any_of_them) == LEAD
        await other.close()

    asyncio.run(main())


def test_after_a_holder_that_was_killed_another_leads_within_a_life() -> None:
    async def main() -> None:
        store = Store()
        dead, other, third = process(store, killed=True), process(store), process(store)
        assert await dead.join(b"k", 200.0, any_of_them) == LEAD
        began_s = store.now_s
        assert await other.join(b"k", 200.0, any_of_them) == LEAD
        assert LIFE_S <= store.now_s - began_s <= LIFE_S + 0.2
        await dead.end(b"k", is_kept=False)  # it was only paused: its record is not its own
        store.values[b"k"] = packed(entry(b"answer"))
        assert isinstance(await third.join(b"k", 200.0, any_of_them), Entry)
        await other.close()

    asyncio.run(main())


def test_a_renewal_that_fails_once_ends_no_flight() -> None:
    async def main() -> None:
        store = Store()
        one, other = process(store), process(store)
        renew, failed = store.renew, []

        async def slow_once(key: bytes, token: bytes, life_s: float) -> bool:
            if not failed:
                failed.append(key)
                raise CacheUnavailable("slow")
            return await renew(key, token, life_s)

        store.renew = slow_once  # type: ignore[method-assign]
        assert await one.join(b"k", 200.0, any_of_them) == LEAD
        assert await other.join(b"k", store.now_s + 10.0 * LIFE_S, any_of_them) == NOTHING
        assert failed == [b"k"] and not other._led
        await one.close()

    asyncio.run(main())


def test_all_ask_for_themselves_if_nothing_may_be_kept_or_the_time_is_over() -> None:
    async def main() -> None:
        store = Store()
        one, other = process(store, killed=True), process(store)
        assert await one.join(b"k", 200.0, any_of_them) == LEAD
        assert await other.join(b"k", store.now_s + 0.5, any_of_them) == NOTHING
        await one.end(b"k", is_kept=False)
        slept = store.asleep
        assert await other.join(b"k", 200.0, any_of_them) == NOTHING
        assert store.asleep == slept

    asyncio.run(main())


def test_if_the_client_of_the_first_leaves_another_process_leads_at_once() -> None:
    async def main() -> None:
        store = Store()
        one, other = process(store, killed=True), process(store)
        assert await one.join(b"k", 200.0, any_of_them) == LEAD
        await one.end(b"k", is_kept=False, left=True)
        began_s = store.now_s
        assert await other.join(b"k", 200.0, any_of_them) == LEAD
        assert store.now_s - began_s <= 0.01
        await other.close()

    asyncio.run(main())


def test_a_store_that_is_away_costs_no_request_anything() -> None:
    async def main() -> None:
        store = Store(away=True)
        one = process(store)
        assert await one.join(b"k", 200.0, any_of_them) == NOTHING
        store.away = False
        assert await one.join(b"k", 200.0, any_of_them) == LEAD
        store.away = True
        await one.end(b"k", is_kept=True)

    asyncio.run(main())


def test_an_answer_that_has_expired_since_is_asked_for_again_by_one() -> None:
    async def main() -> None:
        store = Store()
        one, other, third = process(store, killed=True), process(store), process(store)
        assert await one.join(b"k", 200.0, any_of_them) == LEAD
        await one.end(b"k", is_kept=True)  # and nothing is there
        assert await other.join(b"k", 200.0, any_of_them) == LEAD
        assert await third.join(b"k", store.now_s + 0.5, any_of_them) == NOTHING
        await other.close()

    asyncio.run(main())


def test_a_wait_that_is_cancelled_leads_nothing() -> None:
    async def main() -> None:
        store = Store()
        one, other = process(store, killed=True), process(store)
        assert await one.join(b"k", 200.0, any_of_them) == LEAD
        hangs = asyncio.Event()

        async def get(key: bytes) -> bytes | None:
            if store._record(key) != first:
                hangs.set()
                await asyncio.Event().wait()
            return None

        first = store._record(b"k")
        store.get = get  # type: ignore[method-assign]
        waits = asyncio.create_task(other.join(b"k", 200.0, any_of_them))
        await hangs.wait()  # it leads, and looks for the answer once more
        assert other._led
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        assert not other._led

    asyncio.run(main())


def test_who_looks_too_late_finds_the_answer_instead_of_asking_again() -> None:
    async def main() -> None:
        store = Store()
        one, other = process(store, killed=True), process(store)
        assert await one.join(b"k", 200.0, any_of_them) == LEAD
        claim = store.claim

        async def late(key: bytes, token: bytes, life_s: float) -> bytes | None:
            found = await claim(key, token, life_s)
            if found is not None and b"k" not in store.values:
                await one.end(b"k", is_kept=True)
                store.values[b"k"] = packed(entry(b"answer"))
                store.now_s += OVER_S  # the loop was busy
            return found

        store.claim = late  # type: ignore[method-assign]
        got = await other.join(b"k", 200.0, any_of_them)
        assert isinstance(got, Entry) and got.body == b"answer"
        assert not other._led

    asyncio.run(main())


def test_an_answer_that_does_not_suit_is_waited_past() -> None:
    async def main() -> None:
        store = Store()
        store.values[b"k"] = packed(entry(b"old"))
        one, other = process(store, killed=True), process(store)

        def is_new(found: Entry) -> bool:
            return found.body == b"new"

        assert await one.join(b"k", 200.0, is_new) == LEAD
        waits = asyncio.create_task(other.join(b"k", 200.0, is_new))
        for _ in range(4):
            await asyncio.sleep(0)
        assert not waits.done()
        store.values[b"k"] = packed(entry(b"new"))
        assert isinstance(await waits, Entry)

    asyncio.run(main())
