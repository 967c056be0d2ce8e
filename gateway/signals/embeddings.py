"""Embeds requests by a backend before they are routed, within a time limit.

A call is reserved in all matching budgets, charged, journalled and counted like any attempt, marked
as an audit of the signal `embedding`, because no client asked for it. A request is routed without
an embedding (zeros) if the backend fails or is too slow, if it is down, or if a budget refuses.
Embeddings are kept by tenant, so that none can tell what another has asked.

A backend's vector, of any length, is projected to 64 numbers by a fixed matrix of random signs,
which keeps distances (Achlioptas, Database-friendly random projections, J. Comput. Syst. Sci. 66,
2003).
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from hashlib import sha256
from random import Random

import numpy as np
import orjson
from numpy.typing import NDArray

from tollway.backends.errors import BadRequest
from tollway.backends.price import Price
from tollway.backends.types import Call
from tollway.gateway.budgets.model import BudgetRefusal
from tollway.gateway.routing.attempts import Attempts
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.request import Embedded, InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.routing.reserving import Reserving
from tollway.gateway.routing.router import quote
from tollway.gateway.routing.sinks.records import audit_row
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.journal_format import Row
from tollway.policies.types import EMBEDDING, Context

SIGNAL = "embedding"
CHARS_MAX = 8_192  # of a text: some 2,000 tokens, which every model takes
VECTOR_MAX = 8_192  # numbers of a backend's embedding
KEPT_MAX = 4_096  # embeddings, of all tenants: ten megabytes
SCALE = 2.0  # norm of an embedding, as of static models
NONE = Embedded((0.0,) * EMBEDDING)
_HEADERS = [(b"content-type", b"application/json"), (b"accept", b"application/json")]


class BackendEmbeddings:
    """Embeds the requests of one route."""

    # The mutable state is the embeddings that are kept, by tenant and digest of the text, the
    # latest last.

    def __init__(  # noqa: PLR0917 - who asks, whom, and at what price
        self,
        reserving: Reserving,
        attempts: Attempts,
        journal: Journal,
        plan: RoutePlan,
        backend: str,
        price: Callable[[], Price],
        *,
        timeout_s: float,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`plan`: the backend's own, by whose protocol it is called; `price`: the one in force."""
        self._reserving = reserving
        self._attempts = attempts
        self._journal = journal
        self._plan = plan
        self._backend = backend
        self._price = price
        self._timeout_s = timeout_s
        self._clock = clock
        self._wall = wall
        self._kept: dict[str, OrderedDict[bytes, tuple[float, ...]]] = {}
        self._count = 0

    async def of(self, inference: InferenceRequest) -> Embedded:
        """Return the embedding of a request's texts."""
        text = inference.route.features.text_of(inference.call, inference.joined)[:CHARS_MAX]
        if not text.strip():
            return NONE
        digest = sha256(text.encode("utf-8", "surrogatepass")).digest()
        kept = self._kept.get(inference.tenant)
        if kept is not None and digest in kept:
            kept.move_to_end(digest)
            return Embedded(kept[digest])
        own = self._state(inference, text)
        if own is None:
            return NONE
        numbers = None
        try:
            numbers = await self._asked(own)
        finally:
            if numbers is None and own.attempts:
                self._write(own)  # the client may have gone
        if numbers is None:
            return NONE
        self._keep(inference.tenant, digest, numbers)
        return Embedded(numbers, own)

    def _state(self, inference: InferenceRequest, text: str) -> RequestState | None:
        """Return the state of a call for a text; None if the backend may not be called now."""
        price, now_s = self._price(), self._clock()
        if price != self._plan.backends[self._backend].price:
            self._plan.reprice(self._backend, price)
        target = self._plan.backends[self._backend]
        slots = target.slots
        if not target.allows(now_s, inference.caller):
            return None
        if slots is not None and slots.busy >= slots.limit:
            return None
        document = {"model": target.model or "embedding", "input": text}
        body = orjson.dumps({**document, "encoding_format": "float"})
        call = Call(b"POST", b"/v1/embeddings", list(_HEADERS), body, tenant=inference.tenant)
        call.caller = inference.call.caller
        try:
            call.payload = self._plan.protocol.parse(call)
        except BadRequest:
            return None
        own = replace(
            inference,
            route=self._plan,
            call=call,
            received_s=now_s,
            deadline_s=min(inference.deadline_s, now_s + self._timeout_s),
            floor=None,
            cost_nano_max=None,
            trace=None,
            client=None,
            memory=None,
            joined=None,
            cached=None,
        )
        return RequestState(own, Context(()))

    async def _asked(self, own: RequestState) -> tuple[float, ...] | None:
        """Make the call; None if it could not be made, or failed."""
        target = self._plan.backends[self._backend]
        quote(own, target, own.inference.received_s)
        hold = await self._reserving.reserve(own, target)
        if isinstance(hold, BudgetRefusal):
            return None
        attempt = await self._attempts.make(own, target, hold, audit=1.0)
        if attempt.error or attempt.status != 200:
            return None
        return projected(attempt.body)

    def _keep(self, tenant: str, digest: bytes, numbers: tuple[float, ...]) -> None:
        kept = self._kept.setdefault(tenant, OrderedDict())
        self._count += digest not in kept
        kept[digest] = numbers
        if self._count > KEPT_MAX:
            most = max(self._kept, key=lambda one: len(self._kept[one]))
            self._kept[most].popitem(last=False)
            self._count -= 1
            if not self._kept[most]:
                del self._kept[most]

    def write(self, embedded: Embedded, decision: str) -> None:
        """Journal the call for a request, with its other rows if it has a `decision`."""
        if embedded.state is not None:
            embedded.state.id = decision
            self._write(embedded.state)

    def _write(self, own: RequestState) -> None:
        time_s = self._wall()
        if own.id:
            self._journal.append(*_rows(own, time_s))
            return
        own.id = self._journal.new_id()
        self._journal.record(own.id, partial(_rows, own, time_s))


def _rows(own: RequestState, time_s: float) -> list[Row]:
    return [{**audit_row(own, one, time_s), "signal": SIGNAL} for one in own.attempts]


def projected(body: bytes) -> tuple[float, ...] | None:
    """Return the 64 numbers of a reply of /v1/embeddings; None if it has no vector."""
    try:
        vector = orjson.loads(body)["data"][0]["embedding"]
        if not isinstance(vector, list) or not 0 < len(vector) <= VECTOR_MAX:
            return None
        array = np.asarray(vector, dtype=np.float64)
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
        return None
    if array.ndim != 1:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        short = _signs(len(array)) @ array
        norm = math.sqrt(float(short @ short))
    if not math.isfinite(norm) or norm == 0.0:
        return None
    return tuple((short * (SCALE / norm)).round(5).tolist())


@lru_cache(maxsize=4)
def _signs(size: int) -> NDArray[np.float64]:
    """Return the matrix of a size of vectors, the same in every process and on every machine."""
    bits = Random(size).getrandbits(EMBEDDING * size)
    count = EMBEDDING * size
    packed = np.frombuffer(bits.to_bytes((count + 7) // 8, "little"), dtype=np.uint8)
    signs = np.unpackbits(packed, count=count).reshape(EMBEDDING, size)
    return signs.astype(np.float64) * 2.0 - 1.0
