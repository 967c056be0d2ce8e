"""The driver of routes with a cache: looks for a kept answer, and keeps new ones.

    key -> memory -> second tier -> fresh?  the arm `cache:BACKEND` is offered beside the backends
                                    stale?  the same, and a fresh answer is fetched meanwhile
                                    none?   the first request with the key asks; others wait for it

The policy draws the arm as any other, and its attempt is reserved, settled, journalled and counted
as any other's, at $0. A request that has waited for the answer of another is offered only that
answer. If the first request fails, or its answer may not be kept, those that waited ask for
themselves; if its client disconnects, one of them takes its place.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

from tollway.backends.types import Headers
from tollway.eager import as_task, uncancel
from tollway.gateway.caching.directives import ANY, Demand, demand, kept, lifetime_s
from tollway.gateway.caching.entry import DEAD, FRESH, STALE, Entry
from tollway.gateway.caching.flights import LEFT, NOTHING, End, Flight, Flights
from tollway.gateway.caching.keys import Keys
from tollway.gateway.caching.memory import MemoryCache
from tollway.gateway.caching.plan import UNCACHED, CachePlan
from tollway.gateway.caching.remote import RemoteCache
from tollway.gateway.caching.shared_flights import LEAD, SharedFlights
from tollway.gateway.routing import refusals
from tollway.gateway.routing.cached.arm import (
    ECHOES,
    CachedAnswer,
    arm_of,
    echoes_plainly,
    id_of,
)
from tollway.gateway.routing.cached.downstream import told_downstream, unconditional
from tollway.gateway.routing.cached.exact_hits import ExactHits
from tollway.gateway.routing.cached.keeping import accepted_quality, may_keep
from tollway.gateway.routing.cached.recording import Recording, RecordingMemory
from tollway.gateway.routing.cached.repeated import Memo, Repeats, memo_of
from tollway.gateway.routing.cached.saving import saved_nano
from tollway.gateway.routing.driver import Driver
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.policies.types import Context

log = logging.getLogger(__name__)

REFRESHES_MAX = 64  # at once: each holds a request's body
REFRESHES_OF_TENANT = 8


class CachingDriver:
    """Answers requests of routes with a cache."""

    # The mutable state is that of its parts, and the refreshes, fetches and writes under way.

    def __init__(
        self,
        driver: Driver,
        memory: MemoryCache,
        remote: RemoteCache | None,
        repeats: Repeats,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
        shared: SharedFlights | None = None,
    ) -> None:
        """`clock` is that of the deadlines, `wall` the time of day; `rng` draws early expiries.

        `shared`: the flights of all processes with the same second tier.
        """
        self.shared = shared
        self._driver = driver
        self.memory = memory
        self.remote = remote
        self._repeats = repeats
        self.clock = clock
        self.wall = wall
        self.rng = rng
        self.keys = Keys()
        self.hits = ExactHits(
            memory,
            repeats,
            clock=self._now_s,
            wall=self._wall_s,
            rng=rng,
            bytes_max=memory.bytes_max // 8,
        )
        self.flights = Flights()
        self._recordings = RecordingMemory(memory.bytes_max // 4)
        self._refreshes: set[asyncio.Task[None]] = set()
        self._refreshing: Counter[str] = Counter()
        self._fetching: dict[bytes, asyncio.Task[Entry | None]] = {}
        self._writes: dict[asyncio.Task[None], bytes] = {}

    def _now_s(self) -> float:
        return self.clock()  # a test may set another one

    def _wall_s(self) -> float:
        return self.wall()

    @property
    def is_quiet(self) -> bool:
        """Whether no answer is being fetched in the background or written to the second tier."""
        return not (self._refreshes or self._writes)

    async def answer(self, inference: InferenceRequest) -> RequestState:
        """Return the finished request state, as `Driver.answer` does."""
        plan = inference.route.cache
        assert plan is not None
        call = inference.call
        online = inference.route.online
        if online is not None:  # first: the values may be part of what a backend is sent
            await self._driver.join(inference, online)
        wanted = demand(call.headers, inference.cache_mode)
        key = self.keys.of(plan, call, inference.tenant)
        if wanted.only_cached and (key is None or not wanted.looks):
            plan.counts.lookups[UNCACHED if key is None else "bypass"] += 1
            raise refusals.not_cached(inference.route.name)
        if key is None:
            return await self._plain(plan, inference, UNCACHED)
        tags: Headers = []
        if plan.client_s is not None and call.method == b"GET":
            call.headers, tags = unconditional(call.headers)
        state = await self._answer(plan, key, inference, wanted)
        if plan.client_s is not None and call.method == b"GET" and state.held is not None:
            told_downstream(state, plan, tags, self.wall())
        return state

    async def _plain(
        self, plan: CachePlan, inference: InferenceRequest, result: str
    ) -> RequestState:
        """Answer a request without looking for a kept answer."""
        plan.counts.lookups[result] += 1
        inference.cache_result = result
        return await self._driver.answer(inference)

    async def _answer(
        self, plan: CachePlan, key: bytes, inference: InferenceRequest, wanted: Demand
    ) -> RequestState:
        if not wanted.looks:
            state = await self._plain(plan, inference, "bypass")
            if wanted.keeps:
                self._keep(plan, key, state, None)
            return state
        entry = self.memory.get(key)
        now_s = self.wall()
        age = DEAD if entry is None else entry.state(now_s, plan.early, self.rng)
        if age == DEAD and self.remote is not None and not self.remote.rests:
            await as_task()
            entry = await self._fetched(key)
            age = DEAD if entry is None else entry.state(now_s, plan.early, self.rng)
        if entry is not None and entry.backend not in inference.route.backends:
            entry = None  # of a version that a rollout has removed
        if entry is not None and age != DEAD and self._suits(entry, wanted, now_s):
            only = wanted.only_cached
            found = "stale" if age == STALE else "hit"
            state = await self._give(plan, key, inference, entry, found, only=only)
            if inference.head is not None and wanted is ANY and entry.memo is not None:
                self.hits.remember(inference, key)
            if age != FRESH and not only and inference.cache_result != "fresh":
                self._refresh(plan, key, inference, entry)
            return state
        if wanted.only_cached:
            plan.counts.lookups["miss"] += 1
            raise refusals.not_cached(inference.route.name)
        return await self._join(plan, key, inference, wanted)

    @staticmethod
    def _suits(entry: Entry, wanted: Demand, now_s: float) -> bool:
        return wanted is ANY or wanted.age_s_max is None or entry.age_s(now_s) <= wanted.age_s_max

    async def _fetched(self, key: bytes) -> Entry | None:
        """Return an entry of the second tier, and keep it in memory.

        Requests that look for the same one at the same time ask the second tier once.
        """
        fetching = self._fetching.get(key)
        if fetching is None:
            fetching = self._fetching[key] = asyncio.create_task(self._fetch(key))
            fetching.add_done_callback(lambda _: self._fetching.pop(key))
        return await asyncio.shield(fetching)

    async def _fetch(self, key: bytes) -> Entry | None:
        assert self.remote is not None
        entry = await self.remote.get(key)
        if entry is None:
            return self.memory.get(key)  # another request may have brought it meanwhile
        mine = self.memory.get(key)
        if mine is not None and mine.expires_s >= entry.expires_s:
            return mine  # the same, or one that was not written because the second tier rested
        self.memory.put(key, entry)
        return entry

    # -- giving a kept answer

    async def _give(
        self,
        plan: CachePlan,
        key: bytes,
        inference: InferenceRequest,
        entry: Entry,
        found: str,
        *,
        only: bool = False,
    ) -> RequestState:
        """Answer a request whose answer is there: the policy chooses whether to give it."""
        plan.counts.lookups[found] += 1
        inference.cache_result = found
        inference.cached = cached = CachedAnswer(
            arm_of(entry, inference.route),
            entry.backend,
            entry.age_s(self.wall()),
            entry.cost_nano,
            found,
            only,
        )
        memo: Memo | None = entry.memo
        now_s = self.clock()
        if inference.lost and not only:
            inference.cached = cached = replace(cached, lost=True)
        elif not only and memo is not None and memo.holds(inference, now_s):
            if self.rng.random() < memo.share:
                state = self._repeats.answer(inference, entry, memo, now_s)
                plan.counts.saved_nano += memo.saved_nano
                return state
            # The policy must not draw a second time: a fresh answer would be rarer than is logged.
            inference.cached = cached = replace(cached, lost=True)
        state = await self._driver.answer(inference)
        if not only:
            entry.memo = memo_of(state, now_s)
        held = state.held
        if held is not None and held.backend != cached.arm.name:
            inference.cache_result = "fresh"
            self._keep(plan, key, state, None)
            return state
        plan.counts.saved_nano += saved_nano(state)
        return state

    # -- getting a new one

    async def _join(
        self, plan: CachePlan, key: bytes, inference: InferenceRequest, wanted: Demand
    ) -> RequestState:
        """Wait for the request with this key that is under way; lead if there is none."""
        since_s = self.wall()
        while plan.join_s and (flight := self.flights.get(key)) is not None:
            await as_task()
            within_s = min(plan.join_s, inference.deadline_s - self.clock())
            try:
                end = await flight.wait(max(0.0, within_s))
            except asyncio.CancelledError:
                if not inference.left:
                    raise
                uncancel()
                return RequestState(inference, Context(()))  # nobody is left to answer
            if isinstance(end, Entry):
                if end.made_s < since_s and not self._suits(end, wanted, self.wall()):
                    continue  # the first took an older one of another process
                only = inference.floor is None  # which the answer may not reach
                return await self._give(plan, key, inference, end, "joined", only=only)
            if end == NOTHING:
                state = await self._plain(plan, inference, "miss")
                self._keep(plan, key, state, None)
                return state
        return await self._lead(plan, key, inference, wanted)

    async def _lead(
        self, plan: CachePlan, key: bytes, inference: InferenceRequest, wanted: Demand
    ) -> RequestState:
        """Ask for a new answer, which others with this key wait for."""
        flight = self.flights.begin(key) if self.flights.get(key) is None else None
        end: End | None = NOTHING
        leads = False
        try:
            if flight is not None and self.shared is not None and plan.join_s:
                await as_task()
                within_s = min(plan.join_s, inference.deadline_s - self.clock())
                got = await self._elsewhere(self.shared, key, inference, wanted, max(0.0, within_s))
                leads = got == LEAD
                if isinstance(got, Entry):
                    end = got
                    only = inference.floor is None
                    return await self._give(plan, key, inference, got, "joined", only=only)
                if inference.left:
                    end = LEFT
                    return RequestState(inference, Context(()))  # nobody is left to answer
            state = await self._plain(plan, inference, "miss")
            end = LEFT if state.held is None else self._keep(plan, key, state, flight)
            return state
        except asyncio.CancelledError:
            end = LEFT
            raise
        finally:
            if leads:
                self._end_shared(key, end)
            if flight is not None and end is not None:
                self.flights.end(key, flight, end)

    async def _elsewhere(
        self,
        shared: SharedFlights,
        key: bytes,
        inference: InferenceRequest,
        wanted: Demand,
        within_s: float,
        *,
        old: Entry | None = None,
    ) -> Entry | str:
        """Return what other processes have got, LEAD or NOTHING; see `shared_flights`.

        `old`: the answer that is there, which what they have got must outlive.
        """
        since_s = self.wall()

        def suits(entry: Entry) -> bool:
            now_s = self.wall()
            return (
                entry.backend in inference.route.backends
                and entry.state(now_s, 0.0, self.rng) == FRESH
                and (old is None or entry.expires_s > old.expires_s)
                and (entry.made_s >= since_s or self._suits(entry, wanted, now_s))
            )

        try:
            got = await shared.join(key, self.clock() + within_s, suits)
        except asyncio.CancelledError:
            if not inference.left:
                raise
            uncancel()
            return NOTHING
        if isinstance(got, Entry):
            self.memory.put(key, got)
        return got

    def _end_shared(self, key: bytes, end: End | None) -> None:
        """Tell other processes how a flight ended, once its answer is in the second tier."""
        shared = self.shared
        assert shared is not None
        before = [task for task, of in self._writes.items() if of == key]

        async def told() -> None:
            await asyncio.gather(*before, return_exceptions=True)
            is_kept = isinstance(end, Entry) and self.remote is not None and self.remote.takes(end)
            await shared.end(key, is_kept=is_kept, left=end == LEFT)

        self._write(asyncio.get_running_loop().create_task(told()), key)

    def _refresh(
        self, plan: CachePlan, key: bytes, inference: InferenceRequest, entry: Entry
    ) -> None:
        """Fetch a new answer in the background, unless that is under way or done."""
        tenant = inference.tenant
        if self.memory.get(key) not in (entry, None):
            return
        if self.flights.get(key) is not None or len(self._refreshes) >= REFRESHES_MAX:
            return
        if self._refreshing[tenant] >= REFRESHES_OF_TENANT:
            return
        flight = self.flights.begin(key)
        now_s = self.clock()
        own = replace(
            inference,
            received_s=now_s,
            deadline_s=now_s + inference.route.timeout_s,
            cost_nano_max=None,
            client_deadline=False,
            client=None,
            trace=None,
            memory=None,
            cached=None,
            cache_result="refresh",
            feedback=None,
        )
        task = asyncio.create_task(self._refreshed(plan, key, own, entry, flight))
        self._refreshing[tenant] += 1
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    async def _refreshed(
        self,
        plan: CachePlan,
        key: bytes,
        inference: InferenceRequest,
        old: Entry,
        flight: Flight,
    ) -> None:
        end: End | None = NOTHING
        leads = False
        try:
            got = await self._refreshed_elsewhere(plan, key, inference, old)
            leads = got == LEAD
            if isinstance(got, Entry):
                end = got
                return
            plan.counts.refreshes += 1
            state = await self._driver.answer(inference)
            end = self._keep(plan, key, state, flight)
            held = state.held
            if held is not None and held.relay is not None:
                error = "the stream was not read to its end"
                try:
                    while await held.relay.read():
                        pass
                    error = ""
                finally:
                    await held.relay.close(error)
        except refusals.RequestRefused:
            pass  # the answer that is there stays until it dies
        except Exception:
            log.exception("an answer of route %s could not be refreshed", inference.route.name)
        finally:
            self._refreshing[inference.tenant] -= 1
            if not self._refreshing[inference.tenant]:
                del self._refreshing[inference.tenant]
            if leads:
                self._end_shared(key, flight.ended if end is None else end)
            if end is not None:
                self.flights.end(key, flight, end)
            if inference.memory is not None:
                inference.memory.close()

    async def _refreshed_elsewhere(
        self, plan: CachePlan, key: bytes, inference: InferenceRequest, old: Entry
    ) -> Entry | str:
        """Return a fresh answer of another process that outlives `old`, LEAD, or NOTHING.

        Until `old` expires the second tier has it too, still fresh: that replaces nothing.
        """
        if self.remote is not None and not self.remote.rests:
            entry = await self._fetched(key)
            if entry is not None and entry.expires_s > max(old.expires_s, self.wall()):
                return entry
        if self.shared is None or not plan.join_s:
            return NOTHING
        return await self._elsewhere(self.shared, key, inference, ANY, plan.join_s, old=old)

    # -- keeping

    def _keep(
        self, plan: CachePlan, key: bytes, state: RequestState, flight: Flight | None
    ) -> End | None:
        """Keep a request's answer; return how its flight ends, None if a stream will end it."""
        held = state.held
        if held is None or not may_keep(state, held):
            plan.counts.stores["refused"] += 1
            return NOTHING
        if held.relay is None:
            return self._stored(plan, key, state, [held.body], streamed=False)
        recording = Recording(self._recordings, bytes_max=plan.entry_bytes_max)
        # A stream passes at the pace of its client, for whom no other request should wait.
        watched = state.inference.cache_result != "refresh"

        def ended(well: bool) -> None:
            end: End = NOTHING
            try:
                ending = state.held
                if well and ending is not None and may_keep(state, ending, ended=True):
                    end = self._stored(plan, key, state, recording.parts(), streamed=True)
            finally:
                if flight is not None and not watched:
                    self.flights.end(key, flight, end)

        recording.begin(held.relay, ended)
        return NOTHING if watched else None

    def _stored(
        self,
        plan: CachePlan,
        key: bytes,
        state: RequestState,
        parts: list[bytes],
        *,
        streamed: bool,
    ) -> End:
        """Keep an answer in all tiers, if its header fields and its size allow it."""
        held = state.held
        assert held is not None
        known = plan.headers
        ttl_s = lifetime_s(held.headers, plan.ttl_s, known)
        size = sum(map(len, parts))
        if plan.protocol == ECHOES and not echoes_plainly(state.inference.call, held.headers):
            ttl_s = 0.0
        if not ttl_s or not size or (streamed and not parts):
            plan.counts.stores["refused"] += 1
            return NOTHING
        if size > plan.entry_bytes_max:
            plan.counts.stores["too_large"] += 1
            return NOTHING
        now_s = self.wall()
        entry = Entry(
            kept(held.headers),
            parts[0] if len(parts) == 1 else b"".join(parts),
            tuple(map(len, parts)) if streamed else (),
            held.backend,
            held.outcome.cost_nano,
            now_s,
            held.latency_s,
            now_s + ttl_s,
            now_s + ttl_s + plan.stale_s,
            state.inference.tenant,
            id_of(state.inference.call) if plan.protocol == ECHOES else None,
            accepted_quality(state),
        )
        self.memory.put(key, entry)
        plan.counts.stores["stored"] += 1
        remote = self.remote
        if remote is not None and not remote.rests and len(self._writes) < REFRESHES_MAX:
            task = asyncio.get_running_loop().create_task(remote.put(key, entry, now_s))
            self._write(task, key)
        return entry

    def _write(self, task: asyncio.Task[None], key: bytes) -> None:
        """Note a write to the second tier that is under way."""
        self._writes[task] = key
        task.add_done_callback(self._writes.pop)

    async def close(self) -> None:
        """Stop the refreshes, wait for the writes, and close the second tier."""
        for task in self._refreshes:
            task.cancel()
        while pending := [*self._refreshes, *self._fetching.values(), *self._writes]:
            await asyncio.gather(*pending, return_exceptions=True)
        if self.shared is not None:
            await self.shared.close()
        if self.remote is not None:
            await self.remote.close()
