"""Looks up the values of one group's entities: memory, then the warm tier, then the source.

Theory of operation. A request asks `peek`, which answers from memory. If it cannot, `want` joins
the entity's flight, or begins one: however many requests ask for an entity, one look-up is under
way. Flights that begin in one turn of the event loop, or while `concurrency` look-ups are busy, are
asked for together. A request waits for its flights as long as its route allows; a flight that comes
later still fills the tiers for the next request. So the tiers answer

    fresh        memory, the warm tier or the source had the values
    stale        the source did not answer; values that have expired serve for `stale_s` more
    absent       the source does not know the entity: its defaults, remembered for `negative_s`
    late         the time is over: defaults
    unavailable  the source does not answer, its breaker is open, or too much is under way: defaults

and no answer of a source can fail a request. A flight that was under way when its entity was
written or invalidated answers those who wait, and is not stored.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from random import Random

from tollway.gateway.features.online import records
from tollway.gateway.features.online.breaker import SourceBreaker
from tollway.gateway.features.online.busy_hours import BusyHours
from tollway.gateway.features.online.counts import COLD, WARM, LookupCounts
from tollway.gateway.features.online.entities import plain
from tollway.gateway.features.online.memory import Entry, MemoryTier
from tollway.gateway.features.online.model import (
    Digest,
    FeatureGroup,
    Source,
    SourceError,
    WarmTier,
)

FLIGHTS_MAX = 4096  # of a group: 2 MB, and 16 full batches of work for its source
TENANT_FLIGHTS_MAX = 1024  # so that one tenant's unknown keys leave room for others
SAME_S = 0.001  # two readings of one clock that differ by less are of one look-up
WARM_TIMEOUT_S = 0.1  # a healthy Redis answers in 0.5 ms, and 256 keys in 5 ms
STORE_TIMEOUT_S = 1.0  # nobody waits for what is stored
BARRED_S = 60.0  # beyond the time that a look-up takes: what it found may be stored late


class Flight(asyncio.Future["Entry | None"]):
    """The look-up of one entity; its result is None if no tier could answer.

    `is_outdated`: the entity has been written meanwhile, so what is found may not be stored.
    """

    def __init__(self, key: str, digest: str, tenant: str) -> None:
        super().__init__()
        self.key = key
        self.digest = digest
        self.tenant = tenant
        self.is_outdated = False


class FeatureLookup:
    """The look-ups of one group."""

    # The mutable state: the memory tier, the flights by key and by pseudonym, how many each tenant
    # has, those that wait to be sent, how many look-ups are busy, the breakers, the entries that
    # were warmed and not yet asked for, and the pseudonyms that each warm-up may still store.

    def __init__(
        self,
        group: FeatureGroup,
        source: Source,
        *,
        digest: Digest,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
        warm: WarmTier | None = None,
    ) -> None:
        """`clock` is the event loop's; `wall` dates the records of the warm tier."""
        self.group = group
        self.source = source
        self.memory = MemoryTier(group)
        self.breaker = SourceBreaker()
        self.warm_breaker = SourceBreaker()
        self.counts = LookupCounts()
        self.hours = BusyHours()
        self.warmed: dict[str, Entry] = {}
        self.warm = warm
        self._digest = digest
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._flights: dict[str, Flight] = {}
        self._by_digest: dict[str, Flight] = {}
        self._of_tenant: Counter[str] = Counter()
        self._waiting: deque[Flight] = deque()
        self._busy = 0
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._warming: list[set[str]] = []

    def revise(self, group: FeatureGroup) -> None:
        """Go on with other times and ranges; the features are the same."""
        self.group = group

    # ------------------------------------------------------------------ requests

    def peek(self, key: str, now_s: float) -> Entry | None:
        """Return what memory has of an entity, unless it has expired (1 us)."""
        entry = self.memory.get(key)
        if entry is None or now_s >= entry.expires_s:
            return None
        if now_s >= entry.early_s and self._renews(key, entry, now_s):
            self.counts.early += 1
            self._begin(key, "")
        return entry

    def _renews(self, key: str, entry: Entry, now_s: float) -> bool:
        """Return whether this request renews an entry that has not expired."""
        if key in self._flights or len(self._flights) >= FLIGHTS_MAX:
            return False
        draw = 1.0 - self._rng.random()
        return entry.is_early(now_s, self.group.beta, draw) and self.breaker.allows(now_s)

    def want(self, key: str, tenant: str, now_s: float) -> Entry | Flight | None:
        """Return an entity's flight, begun if need be; an entry that is there; or None.

        None: nothing may begin, because the source does not answer or too much is under way.
        """
        flight = self._flights.get(key)
        if flight is not None:
            return flight
        if self.warmed:
            entry = self.warmed.pop(self._digest(self.group.name, key), None)
            if entry is not None and now_s < entry.expires_s:
                self.memory.put(key, entry)
                return entry
        if not self.breaker.allows(now_s) and not self._warm_answers(now_s):
            return None
        if len(self._flights) >= FLIGHTS_MAX or self._of_tenant[tenant] >= TENANT_FLIGHTS_MAX:
            self.counts.crowded += 1
            return None
        return self._begin(key, tenant)

    def note_asked(self, digest: str) -> None:
        """Note an entity that was asked for, to be loaded before the same hour of a later week."""
        self.hours.see(digest, self._wall())

    def stale(self, key: str, now_s: float) -> Entry | None:
        """Return what may serve although it has expired."""
        entry = self.memory.get(key)
        group = self.group
        if entry is None or entry.values is None:
            return None
        return entry if now_s < entry.read_s + group.ttl_s + group.stale_s else None

    def now_s(self) -> float:
        """Return the time on the event loop's clock."""
        return self._clock()

    def digest(self, key: str) -> str:
        """Return the pseudonym of an entity."""
        return self._digest(self.group.name, key)

    @property
    def in_flight(self) -> int:
        """How many entities are being looked up."""
        return len(self._flights)

    # ------------------------------------------------------------------ flights

    def _warm_answers(self, now_s: float) -> bool:
        return self.warm is not None and self.warm_breaker.allows(now_s)

    def _begin(self, key: str, tenant: str) -> Flight:
        flight = Flight(key, self.digest(key), tenant)
        self._flights[key] = flight
        self._by_digest[flight.digest] = flight
        self._of_tenant[tenant] += 1
        self._waiting.append(flight)
        if not self._scheduled and self._busy < self.group.concurrency:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send)
        return flight

    def _send(self) -> None:
        """Begin look-ups of what waits, as many as may be busy at once."""
        self._scheduled = False
        most = self.group.batch_max
        while self._waiting and self._busy < self.group.concurrency:
            batch = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            self._busy += 1
            task = asyncio.create_task(self._look_up(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _look_up(self, batch: Sequence[Flight]) -> None:
        """End some flights, whatever happens."""
        try:
            left = await self._from_warm(batch)
            if left:
                await self._from_source(left)
        finally:
            for flight in batch:
                self._land(flight, None)
            self._busy -= 1
            if self._waiting:
                self._send()

    def _land(self, flight: Flight, entry: Entry | None) -> bool:
        """End a flight, if it has not ended; return whether what it found may be stored."""
        # An entity whose flight has ended may have another by now, in a later batch.
        if self._flights.get(flight.key) is not flight:
            return False
        del self._flights[flight.key], self._by_digest[flight.digest]
        tenant = flight.tenant
        self._of_tenant[tenant] -= 1
        if not self._of_tenant[tenant]:
            del self._of_tenant[tenant]
        if entry is not None and not flight.is_outdated:
            self.memory.put(flight.key, entry)
        if not flight.done():
            flight.set_result(entry)
        return not flight.is_outdated

    async def _from_warm(self, batch: Sequence[Flight]) -> list[Flight]:
        """Land what the warm tier has; return the other flights."""
        now_s = self._clock()
        if self.warm is None or not self.warm_breaker.allows(now_s):
            return list(batch)
        self.warm_breaker.begin()
        places = [records.key(self.group, flight.digest) for flight in batch]
        try:
            async with asyncio.timeout(WARM_TIMEOUT_S):
                found = await self.warm.get(self.group.version, places)
        except (SourceError, TimeoutError):
            self.warm_breaker.failed(self._clock())
            return list(batch)
        except BaseException:
            self.warm_breaker.failed(self._clock())
            raise
        self.warm_breaker.succeeded()
        began_s, now_s, wall_s = now_s, self._clock(), self._wall()
        left = []
        for flight, record in zip(batch, found, strict=True):
            entry = None
            if record is not None:
                entry = records.unpacked(self.group, flight.digest, record, now_s, wall_s)
            if entry is None or now_s >= entry.expires_s or self._has(flight, entry):
                left.append(flight)
                continue
            self.counts.answers[WARM] += 1
            self.counts.seconds[WARM].append(now_s - began_s)
            self._land(flight, entry)
        return left

    def _has(self, flight: Flight, entry: Entry) -> bool:
        """Return whether memory has an entry as new: it is then to be renewed from the source."""
        mine = self.memory.get(flight.key)
        return mine is not None and entry.read_s <= mine.read_s + SAME_S

    async def _from_source(self, batch: Sequence[Flight]) -> None:
        """Land what the source says."""
        began_s = self._clock()
        if not self.breaker.allows(began_s):
            return
        self.breaker.begin()
        self.counts.queries += 1
        by_digest = self.source.by_digest
        asked = [flight.digest if by_digest else flight.key for flight in batch]
        limit_s = self.group.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                found = await self.source.fetch(asked, began_s + limit_s)
        except (SourceError, TimeoutError):
            self.counts.failures += 1
            self.breaker.failed(self._clock())
            return
        except BaseException:
            self.breaker.failed(self._clock())
            raise
        self.breaker.succeeded()
        took_s = self._clock() - began_s
        fresh = []
        for flight, name in zip(batch, asked, strict=True):
            given = found.get(name)
            values = None if given is None else self.group.values(given)
            entry = Entry(self.group, flight.digest, values, began_s, took_s)
            self.counts.answers[COLD] += 1
            self.counts.seconds[COLD].append(took_s)
            if self._land(flight, entry):
                fresh.append(entry)
        await self._store(fresh)

    async def _store(self, entries: Sequence[Entry]) -> None:
        """Store what was found in the warm tier, if it answers."""
        now_s = self._clock()
        if self.warm is None or not entries or not self.warm_breaker.allows(now_s):
            return
        self.warm_breaker.begin()
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self.warm.put(self.group.version, self._rows(entries))
        except (SourceError, TimeoutError):
            self.warm_breaker.failed(self._clock())
        else:
            self.warm_breaker.succeeded()

    def _rows(self, entries: Sequence[Entry]) -> list[tuple[str, bytes, float]]:
        now_s, wall_s, group = self._clock(), self._wall(), self.group
        return [
            (
                records.key(group, entry.digest),
                records.packed(entry, now_s, wall_s),
                group.negative_s if entry.values is None else group.ttl_s + group.stale_s,
            )
            for entry in entries
        ]

    # ------------------------------------------------------------------ changes

    def forget(self, digest: str) -> bool:
        """Drop an entity from memory, and do not store what is being looked up of it."""
        self.counts.invalidated += 1
        self.warmed.pop(digest, None)
        for digests in self._warming:
            digests.discard(digest)
        flight = self._by_digest.get(digest)
        if flight is not None:
            flight.is_outdated = True
        return self.memory.erase(digest)

    def distrust(self) -> None:
        """Let all that is in memory or under way serve only if the source does not answer."""
        self.memory.expire(self._clock())
        self.warmed.clear()
        for digests in self._warming:
            digests.clear()
        for flight in self._flights.values():
            flight.is_outdated = True

    async def bar(self, digest: str) -> None:
        """Keep older look-ups of an entity from storing it in the warm tier. Raises SourceError."""
        if self.warm is not None:
            row = records.key(self.group, digest), records.barring(self._wall())
            kept_s = BARRED_S + self.group.timeout_s
            await self.warm.put(self.group.version, [(*row, kept_s)])

    def written(self, key: str, entry: Entry) -> None:
        """Store values that were just written."""
        self.forget(entry.digest)
        self.memory.put(key, entry)

    async def share(self, entry: Entry) -> None:
        """Store an entry in the warm tier. Raises SourceError: others would read an old record."""
        if self.warm is not None:
            await self.warm.put(self.group.version, self._rows([entry]))

    async def warm_ahead(self, wall_s: float) -> int:
        """Look up the entities of the hour ahead that memory lacks; return how many there are."""
        now_s, lacking = self._clock(), []
        self.warmed = {one: entry for one, entry in self.warmed.items() if now_s < entry.expires_s}
        for digest in self.hours.ahead(wall_s):
            key = self.memory.key_of(digest)
            if key is None:
                if digest not in self.warmed:
                    lacking.append(digest)
            elif self.peek(key, now_s) is None:
                self.want(key, "", now_s)
        return self.in_flight + (await self.warm_up(lacking) if lacking else 0)

    async def warm_up(self, digests: Sequence[str]) -> int:
        """Load entities by pseudonym from the warm tier, or a source that is asked by it.

        Return how many were found. They enter memory when they are first asked for.
        """
        kept = set(digests)
        self._warming.append(kept)
        try:
            found = await self._found(digests)
        finally:
            self._warming = [one for one in self._warming if one is not kept]
        found = {one: entry for one, entry in found.items() if one in kept}
        self.warmed.update(found)
        return len(found)

    async def _found(self, digests: Sequence[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        now_s, wall_s = self._clock(), self._wall()
        if self.warm is not None:
            async with asyncio.timeout(self.group.timeout_s):
                stored = await self.warm.get(
                    self.group.version, [records.key(self.group, one) for one in digests]
                )
            for digest, record in zip(digests, stored, strict=True):
                entry = record and records.unpacked(self.group, digest, record, now_s, wall_s)
                if entry and now_s < entry.expires_s and entry.values is not None:
                    found[digest] = entry
        left = [one for one in digests if one not in found]
        if self.source.by_digest or self._digest is plain:
            for at in range(0, len(left), self.group.batch_max):
                await self._warm_from_source(left[at : at + self.group.batch_max], found)
        return found

    async def _warm_from_source(self, digests: Sequence[str], found: dict[str, Entry]) -> None:
        began_s = self._clock()
        async with asyncio.timeout(self.group.timeout_s):
            given = await self.source.fetch(digests, began_s + self.group.timeout_s)
        took_s = self._clock() - began_s
        for digest, values in given.items():
            found[digest] = Entry(self.group, digest, self.group.values(values), began_s, took_s)

    async def aclose(self) -> None:
        """End all look-ups and close the source."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.source.aclose()
