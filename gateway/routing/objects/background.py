"""Background calls: their reply says only that work has begun; its usage is known at the end.

The money that was reserved stays reserved until a retrieval shows the end, whoever asks for it: the
client through this process, or the gateway itself, which looks after 5 s and then ever less often,
because a client may retrieve through another worker, or never. Work whose end is not seen (it was
deleted, the gateway stops, it takes longer than a day, too much is pending) is charged what it may
have cost: the whole reservation of a hard budget, else the quote.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tollway.backends.errors import BackendError
from tollway.backends.rules.backend import WholeRequestRules
from tollway.backends.types import Call, Headers, HttpReply
from tollway.gateway.budgets.model import Reservation
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.routing.metering import (
    UNDER_WAY,
    USAGE,
    AttemptOutcome,
    evaluate_reply,
    outcome_without_reply,
)
from tollway.gateway.routing.plan import Target
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.settlement import Settlement

log = logging.getLogger(__name__)

PENDING_MAX, PENDING_BYTES_MAX = 4_096, 64 << 20  # in one process: each keeps its request
FIRST_S, LONGEST_S = 5.0, 60.0  # between two looks
GIVE_UP_S = 86_400.0
AT_ONCE = 8  # looks in progress
LOOK_S = 30.0  # time for one of them
CLOSING_S = 5.0  # for all of them when the gateway stops
REPLY_BYTES_MAX = 16 << 20

OK = 200
GONE = frozenset((404, 410))
_OF_A_BODY = frozenset((b"content-type", b"content-encoding"))


@dataclass(slots=True)
class Pending:
    """A background call: its request, its reservation, and when to look for its end."""

    state: RequestState
    backend: Target
    hold: Reservation
    call: Call
    next_s: float
    wait_s: float = FIRST_S

    @property
    def attempt(self) -> Attempt:
        """The attempt that began it."""
        return self.state.attempts[-1]


Key = tuple[str, str]
"""The backend, and the id that its reply gave."""


class BackgroundCalls:
    """The background calls of one process."""

    # The mutable state is the calls whose end has not been seen, and the bytes of their requests.

    def __init__(self, settlement: Settlement, *, clock: Callable[[], float]) -> None:
        """`clock` is that of the deadlines."""
        self._settlement = settlement
        self._clock = clock
        self._pending: dict[Key, Pending] = {}
        self._bytes = 0

    @property
    def count(self) -> int:
        """The number of calls whose end has not been seen."""
        return len(self._pending)

    def has_room(self, body_bytes: int) -> bool:
        """Return whether one more call, with a request of this size, may be pending."""
        return len(self._pending) < PENDING_MAX and self._bytes + body_bytes <= PENDING_BYTES_MAX

    def outcome(
        self, inference: InferenceRequest, outcome: AttemptOutcome, quote: Quote, hold: Reservation
    ) -> AttemptOutcome:
        """Return the outcome of a reply that only says that work has begun.

        It is in progress, unless its cost is known already, or too much is pending: then it is
        charged at once, for what it may cost.
        """
        if outcome.provenance == USAGE:
            return outcome
        return UNDER_WAY if self.has_room(len(inference.call.body)) else unseen(quote, hold)

    def begin(self, state: RequestState, backend: Target, hold: Reservation, name: str) -> None:
        """Take over the last attempt of a request, whose reply says that `name` has begun."""
        made = state.inference.call
        path = made.target.partition(b"?")[0].rstrip(b"/")
        headers = [pair for pair in made.headers if pair[0] not in _OF_A_BODY]
        call = Call(b"GET", path + b"/" + name.encode(), headers)
        key = backend.name, name
        if key in self._pending:  # a server that gives an id twice
            self._end(self._take(key), None)
        self._bytes += len(made.body)
        self._pending[key] = Pending(state, backend, hold, call, self._clock() + FIRST_S)

    def retrieved(self, backend: str, name: str, reply: Attempt) -> None:
        """Settle a call if a reply about it shows its end; else do nothing."""
        key = backend, name
        if key in self._pending and reply.status == OK:
            self._read(key, reply.headers, reply.body)

    async def look(self) -> None:
        """Look for the ends of the calls that are due."""
        now_s = self._clock()
        due = [key for key, one in self._pending.items() if one.next_s <= now_s]
        for at in range(0, len(due), AT_ONCE):
            await asyncio.gather(*[self._look(key) for key in due[at : at + AT_ONCE]])

    async def close(self) -> None:
        """Look once more, and charge what has not ended."""
        for pending in self._pending.values():
            pending.next_s = self._clock()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await self.look()
        for key in list(self._pending):
            self._end(self._take(key), None)

    async def _look(self, key: Key) -> None:
        pending = self._pending.get(key)
        if pending is None:
            return
        now_s, target = self._clock(), pending.backend
        pending.wait_s = min(2.0 * pending.wait_s, LONGEST_S)
        pending.next_s = now_s + pending.wait_s
        status = 0
        try:
            reply = await target.transport.send(target.address(pending.call), now_s + LOOK_S)
            status, body = reply.status, await reply.read(REPLY_BYTES_MAX)
        except BackendError as exc:
            log.info("background call %s at backend %s: %s", key[1], key[0], exc)
        if self._pending.get(key) is not pending:
            return  # a client has retrieved it meanwhile
        if status == OK:
            self._read(key, reply.headers, body)
        elif status in GONE or now_s - pending.attempt.started_s > GIVE_UP_S:
            self._end(self._take(key), None)

    def _read(self, key: Key, headers: Headers, body: bytes) -> None:
        """Settle a call by a reply about it, if that shows its end."""
        pending = self._pending[key]
        made, attempt = pending.state.inference.call, pending.attempt
        created = pending.backend.protocol.created(made.payload, body)
        if created is None or created.is_pending or created.name != key[1]:
            return
        outcome = evaluate_reply(
            pending.backend,
            made,
            HttpReply(OK, headers, WholeRequestRules(body)),
            body,
            quote=attempt.quote,
            latency_s=self._clock() - attempt.started_s,
        )
        told = outcome.usage is not None or outcome.error or not outcome.cost_nano
        self._end(self._take(key), outcome if told else None)

    def _take(self, key: Key) -> Pending:
        pending = self._pending.pop(key)
        self._bytes -= len(pending.state.inference.call.body)
        return pending

    def _end(self, pending: Pending, outcome: AttemptOutcome | None) -> None:
        """Settle a call; without an outcome, for what it may have cost."""
        if outcome is None:
            outcome = unseen(pending.attempt.quote, pending.hold)
        self._settlement.settle_late(pending.state, pending.backend, pending.hold, outcome)


def unseen(quote: Quote, hold: Reservation) -> AttemptOutcome:
    """Return the outcome of a background call that nobody follows to its end."""
    return outcome_without_reply(quote, "", ran=True, hold_nano=hold.hard_nano)
