"""Exact hits: a request whose head and body came before, answered in the callback that brings it.

Theory of operation. Most of what a hit costs is not the cache: the request is parsed, its key is
computed, its rows are built and its reply is put together, each time with the same result. So the
first request that repeats a draw (see `repeated`) leaves a `Hit` with the judgement of its head,
under its body: the parsed request and its key. The next request with that head and that body takes
both from there. The kept answer is still an arm: it is drawn with the probabilities of the latest
draw for its entry, counted, charged and journalled by the same sinks, and it is not given unless
all that `Memo.holds` asks for holds. What is not a plain repetition takes the usual way: an entry
that is about to expire, a draw that is too old, a policy that has learned.

A request that does not draw the kept answer takes the usual way too, and is told so (`lost`): a
second draw would make fresh answers rarer than is logged.
"""

from collections import OrderedDict
from collections.abc import Callable
from random import Random

from tollway.gateway.caching.memory import MemoryCache
from tollway.gateway.listener.client import Client
from tollway.gateway.routing.cached.arm import CachedAnswer, arm_of
from tollway.gateway.routing.cached.repeated import Memo, Repeats
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.record import record

HITS_MAX = 8192
OBJECTS_BYTES = 3 << 10  # of a hit beside its body: measured with tracemalloc
PARSED_X = 4  # a parsed document takes about four times its text


@record
class Hit:
    """A request that may come again: how it was parsed, and the key of its answer."""

    inference: InferenceRequest
    key: bytes

    @property
    def size_bytes(self) -> int:
        """The memory that it takes."""
        return OBJECTS_BYTES + (1 + PARSED_X) * len(self.inference.call.body)


class ExactHits:
    """The hits of one process."""

    # The mutable state is the hits: under their heads, and by tenant, the oldest first.

    def __init__(
        self,
        memory: MemoryCache,
        repeats: Repeats,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
        bytes_max: int,
    ) -> None:
        """`clock` is that of the deadlines, `wall` the time of day; `rng` draws."""
        self._memory = memory
        self._repeats = repeats
        self.clock = clock
        self.wall = wall
        self.rng = rng
        self._bytes_max = bytes_max
        self._of: dict[str, OrderedDict[tuple[int, bytes], tuple[dict[bytes, Hit], int]]] = {}
        self.count = self.size_bytes = 0

    def answer(self, hit: Hit, client: Client, received_s: float) -> RequestState | bool:
        """Return the finished state of a request whose kept answer was drawn.

        True if it has drawn a fresh answer; False if it must be drawn for in the usual way.
        """
        template = hit.inference
        entry = self._memory.get(hit.key)
        memo: Memo | None = None if entry is None else entry.memo
        if entry is None or memo is None:
            return False
        plan, wall_s, now_s = template.route.cache, self.wall(), self.clock()
        assert plan is not None
        if not entry.is_surely_fresh(wall_s, plan.early) or not memo.stands(template, now_s):
            return False
        if self.rng.random() >= memo.share:
            return True
        plan.counts.lookups["hit"] += 1
        inference = InferenceRequest(
            template.route,
            template.tenant,
            template.call,
            received_s,
            received_s + template.deadline_s,
            caller=template.caller,
            client=client,
            accepts=template.accepts,
            cache_result="hit",
            cached=CachedAnswer(
                arm_of(entry, template.route),
                entry.backend,
                entry.age_s(wall_s),
                entry.cost_nano,
                "hit",
            ),
            feedback=template.feedback,
        )
        plan.counts.saved_nano += memo.saved_nano
        return self._repeats.answer(inference, entry, memo, now_s)

    def remember(self, inference: InferenceRequest, key: bytes) -> None:
        """Keep what was found out of a request, under its head."""
        head = inference.head
        assert head is not None
        body = inference.call.body
        hits = head.hits
        if hits is None:
            hits = head.hits = {}
        if body in hits:
            return
        template = InferenceRequest(
            inference.route,
            inference.tenant,
            inference.call,
            0.0,
            inference.deadline_s - inference.received_s,
            caller=inference.caller,
            accepts=inference.accepts,
            feedback=inference.feedback,
        )
        hit = hits[body] = Hit(template, key)
        size = hit.size_bytes
        order = self._of.setdefault(inference.tenant, OrderedDict())
        order[id(hits), body] = hits, size
        self.count += 1
        self.size_bytes += size
        while self.count > HITS_MAX or self.size_bytes > self._bytes_max:
            self._evict()

    def clear(self) -> None:
        """Forget all hits: their routes are no more."""
        for order in self._of.values():
            for hits, _ in order.values():
                hits.clear()
        self._of.clear()
        self.count = self.size_bytes = 0

    def _evict(self) -> None:
        """Drop the oldest hit of the tenant that has the most."""
        tenant = max(self._of, key=lambda one: len(self._of[one]))
        (_, body), (hits, size) = self._of[tenant].popitem(last=False)
        if not self._of[tenant]:
            del self._of[tenant]
        del hits[body]
        self.count -= 1
        self.size_bytes -= size
