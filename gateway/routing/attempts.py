"""Attempts: one call to one backend, under a deadline, with money reserved before it.

However a call ends, its reservation ends exactly once. It is settled for what the call cost, or may
have cost, if the call may have run; it is voided if the call did not run. A cancelled call is
settled too, because it may have run.
"""

import logging
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from tollway.backends.bodies.media import MediaReader
from tollway.backends.dialect import REFUSED
from tollway.backends.documents import EVENT_STREAM
from tollway.backends.errors import BackendError, FailedAtOnce, Overloaded, is_unsent
from tollway.backends.http.codings import Decoded
from tollway.backends.output import OutputLimit
from tollway.backends.ports import StreamReader
from tollway.backends.protocols.oip.body import json_of
from tollway.backends.sliced_json import LARGE_BYTES
from tollway.backends.types import SMALL_BYTES, Call, Headers, HttpReply, ModelAnswer
from tollway.gateway.budgets.model import Reservation
from tollway.gateway.estimation.cost_estimator import Quote
from tollway.gateway.routing.bodies.buffers import Buffers, RequestMemory
from tollway.gateway.routing.bodies.large_documents import LargeDocuments
from tollway.gateway.routing.fallback import leaving
from tollway.gateway.routing.field_rejections import UNCHANGED, Sent, addressed, asked_again, within
from tollway.gateway.routing.health import evidence
from tollway.gateway.routing.health.announced import MARK
from tollway.gateway.routing.metering import (
    HEDGE_LOST,
    LEFT,
    NO_ANSWER,
    OVERLOADED,
    PENDING,
    UNDER_WAY,
    AttemptOutcome,
    evaluate_reply,
    outcome_without_reply,
)
from tollway.gateway.routing.objects.background import BackgroundCalls
from tollway.gateway.routing.objects.references import Objects
from tollway.gateway.routing.plan import Target
from tollway.gateway.routing.replies.decoding import as_accepted, readable
from tollway.gateway.routing.replies.redaction import discreet, presentable
from tollway.gateway.routing.replies.stream_relay import CLOSE, StreamRelay, is_stream, refusal
from tollway.gateway.routing.replies.unlabelled import labelled
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import Attempt, RequestState
from tollway.gateway.routing.settlement import Settlement, unreadable

log = logging.getLogger(__name__)

CREATED = frozenset((200, 201, 202))
TOO_MANY = 429


@dataclass(slots=True, eq=False)
class Begun:
    """An attempt that has begun and not ended.

    `call`: what was sent, if it was sent by `send_now`. `sent`: the changes in it. `number`: of the
    call, for what its backend announces. `is_ended`: its reservation was ended by `finish_now`.
    """

    state: RequestState
    backend: Target
    hold: Reservation
    quote: Quote
    limit: OutputLimit | None  # the one that was sent last
    started_s: float
    deadline_s: float
    number: int
    fallback: bool
    audit: float
    hedge_s: float | None
    sent: Sent
    call: Call | None = None
    is_ended: bool = False

    @property
    def sent_call(self) -> Call:
        """What was sent."""
        assert self.call is not None
        return self.call

    def attempt(
        self,
        outcome: AttemptOutcome,
        ended_s: float,
        status: int,
        kept: tuple[Headers, bytes],
        relay: StreamRelay | None = None,
    ) -> Attempt:
        """Return the attempt as it ended; `kept`: what of the reply may go to the client."""
        backend, limit, (headers, body) = self.backend, self.limit, kept
        return Attempt(
            backend.name,
            self.quote,
            self.started_s,
            ended_s - self.started_s,
            outcome if backend.credential is None else discreet(backend, outcome),
            status,
            headers,
            body,
            self.fallback,
            self.hold.held_by_budget(),
            self.audit,
            relay,
            self.hedge_s,
            0 if limit is None else limit.tokens,
        )


class InTransit(Protocol):
    """A call that was sent, as a transport's `send_now` returns it. Its reply is taken once."""

    exchange: Any

    def take(self) -> HttpReply | None:
        """Return the reply if it has come whole; else None."""

    def receive(self) -> Awaitable[HttpReply]:
        """Return the reply once its head has arrived; BackendError as of `Transport.send`."""

    def cancel(self) -> Awaitable[HttpReply]:
        """End the call as if the coroutine that waits for its reply had been cancelled."""


class Attempts:
    """Makes the attempts of requests."""

    def __init__(
        self,
        settlement: Settlement,
        objects: Objects,
        background: BackgroundCalls,
        *,
        buffers: Buffers,
        documents: LargeDocuments,
        clock: Callable[[], float],
    ) -> None:
        """`buffers` limits the memory that unfinished events of streams may take.

        `documents` reads large replies.
        `clock` is monotonic and is the clock of the deadlines.
        """
        self.settlement = settlement
        self._objects = objects
        self._background = background
        self._buffers = buffers
        self._documents = documents
        self._clock = clock

    async def make(
        self,
        state: RequestState,
        backend: Target,
        hold: Reservation,
        *,
        fallback: bool = False,
        audit: float = 0.0,
        hedge_s: float | None = None,
    ) -> Attempt:
        """Make one attempt and end its reservation, whatever happens."""
        attempt = self.begin(state, backend, hold, fallback=fallback, audit=audit, hedge_s=hedge_s)
        return await self.finish(attempt)

    def begin(
        self,
        state: RequestState,
        backend: Target,
        hold: Reservation,
        *,
        fallback: bool = False,
        audit: float = 0.0,
        hedge_s: float | None = None,
    ) -> "Begun":
        """Begin an attempt; `finish` must follow, or `finish_now` until that returns one."""
        quote, limit = (
            limited_quote(state, backend, hold)
            if state.bounds
            else (state.quotes[backend.name], None)
        )
        started_s = self._clock()
        backend = backend.with_key(started_s) if backend.keyed else backend
        deadline_s, most_s = _leaving_time(state, backend, started_s), started_s + backend.timeout_s
        deadline_s = most_s if most_s < deadline_s else deadline_s
        number = backend.probe(started_s, state.inference.caller)
        return Begun(
            state,
            backend,
            hold,
            quote,
            limit,
            started_s,
            deadline_s,
            number,
            fallback,
            audit,
            hedge_s,
            UNCHANGED if limit is None else Sent(limit=limit),
        )

    def send_now(self, begun: "Begun") -> InTransit | None:
        """Send the call of an attempt if nothing must be waited for but a whole reply.

        None if it was not sent. May raise, as `Transport.send` does.
        """
        backend, inference = begun.backend, begun.state.inference
        transport: Any = backend.transport
        try:
            send_now = transport.send_now
        except AttributeError:  # most of the others are no HTTP/1.1 to one address
            return None
        if (
            backend.first_byte_s is not None
            or backend.protocol.follow(inference.call.payload) is not None
        ):
            return None
        begun.call = addressed(inference, backend, begun.deadline_s, self._clock, begun.sent)
        sent: InTransit | None = send_now(begun.call, begun.deadline_s)
        return sent

    def finish_now(self, begun: "Begun", reply: HttpReply) -> Attempt | None:
        """Finish an attempt whose reply has come whole, and end its reservation.

        None if more is to be waited for: `finish` must follow.
        """
        state, backend, body, call = begun.state, begun.backend, reply.whole, begun.call
        inference = state.inference
        assert call is not None and body is not None
        if (
            reply.status in REFUSED
            or (size := len(body)) > SMALL_BYTES
            or size > inference.route.reply_bytes_max
            or call.payload.creates
        ):
            return None
        for name, _ in reply.headers:
            if name == b"content-encoding":
                return None
        if backend.announced is not None:
            self._note(reply, inference, backend, begun)
        ended_s = self._clock()
        outcome = evaluate_reply(
            backend,
            call,
            reply,
            body,
            quote=begun.quote,
            latency_s=ended_s - begun.started_s,
        )
        headers = reply.headers
        if not backend.is_transparent:
            headers, body = presentable(inference, backend, outcome, reply, body)
        attempt = begun.attempt(outcome, ended_s, reply.status, (headers, body))
        begun.is_ended = True
        self._finish(state, backend, begun.hold, attempt, None, now_s=ended_s, pending="")
        return attempt

    async def finish(self, begun: "Begun", sending: Awaitable[HttpReply] | None = None) -> Attempt:
        """Make an attempt that has begun; `sending` brings its reply if it was sent already."""
        state, backend, hold, quote = begun.state, begun.backend, begun.hold, begun.quote
        started_s, deadline_s, sent = begun.started_s, begun.deadline_s, begun.sent
        inference, ended_s = state.inference, 0.0
        health, status, body, pending = None, 0, b"", ""
        kept: tuple[Headers, bytes] = ([], b"")
        relay: StreamRelay | None = None
        try:
            follower = backend.protocol.follow(inference.call.payload)
            due_s = backend.first_byte_s if follower is None else backend.due_s(streamed=True)
            begun_by_s = None if due_s is None else started_s + due_s
            if sending is None:
                begun.call = addressed(inference, backend, deadline_s, self._clock, sent)
                sending = backend.transport.send(begun.call, deadline_s)
            reply = await (
                sending if begun_by_s is None else within(begun_by_s - self._clock(), sending)
            )
            self._note(reply, inference, backend, begun)
            # What has to be edited cannot be passed on in the coding that it came in.
            reply = readable(reply, b"" if backend.protocol.hides else inference.accepts)
            call = begun.sent_call
            if reply.status in REFUSED:
                call, reply, begun.limit = await asked_again(
                    inference,
                    backend,
                    call,
                    reply,
                    sent,
                    deadline_s=deadline_s,
                    begun_by_s=begun_by_s,
                    clock=self._clock,
                )
            if follower is not None:
                left_s = None if begun_by_s is None else begun_by_s - self._clock()
                reply, follower = await _streamed(reply, follower, left_s)
                if not (follower is None or begun.audit or _is_read_whole(inference, follower)):
                    relay, reply, outcome = await self._begin_stream(begun, reply, follower, left_s)
            if relay is None:
                body = await self._read(inference, reply, follower)
                outcome = evaluate_reply(
                    backend,
                    call,
                    reply,
                    body,
                    quote=quote,
                    latency_s=(ended_s := self._clock()) - started_s,
                )
                if call.payload.creates and reply.status in CREATED:
                    outcome, pending = self._created(state, backend, hold, outcome, body)
                if follower is not None:
                    health, body = _read_whole(reply, follower, outcome, body)
            status = reply.status
            kept = (
                (reply.headers, body)
                if backend.is_transparent and type(reply.stream) is not Decoded
                else presentable(inference, backend, outcome, *as_accepted(reply, body))
            )
        except BackendError as exc:
            outcome, health = failed(
                exc, quote, hold, fair=_is_fair(inference, backend, started_s, deadline_s)
            )
        except Exception as exc:  # a bug of ours in reading the reply must not fail the request
            log.exception("the reply of backend %s could not be read", backend.name)
            outcome, health = unreadable(exc, quote, hold), evidence.UNKNOWN
        except BaseException as exc:  # cancelled
            outcome = cancelled(exc, state, quote, hold)
            raise
        finally:  # a cancelled task settles too: its call may have run
            ended_s = ended_s or self._clock()
            attempt = begun.attempt(outcome, ended_s, status, kept, relay)
            self._finish(state, backend, hold, attempt, health, now_s=ended_s, pending=pending)
        return attempt

    def _note(
        self, reply: HttpReply, inference: InferenceRequest, backend: Target, begun: Begun
    ) -> None:
        """Note what a reply says of the rate limits of our key."""
        announced = backend.announced
        if announced is None:
            return
        for name, _ in reply.headers:
            if MARK in name or reply.status == TOO_MANY:  # spelled out: no call for the others
                if backend.credential is not None or not inference.route.forward_headers:
                    announced.heard(begun.number, reply, begun.quote.usage, self._clock())
                return

    async def _read(
        self, inference: InferenceRequest, reply: HttpReply, follower: StreamReader | None
    ) -> bytes:
        """Return the body of a reply, within the memory of its tenant; read what is large."""
        hold = partial(self._hold, inference)
        body = await reply.read(inference.route.reply_bytes_max, hold)
        if len(body) <= LARGE_BYTES:
            return body
        if not is_stream(reply):
            text = json_of(reply.headers, body)
            reply.document = await self._documents.read(inference.tenant, text)
        if follower is not None and not follower.is_media and is_stream(reply, follower.media_type):
            work = _followed(follower, body)
            reply.followed = follower, await self._documents.run(inference.tenant, work)
        return body

    def _hold(self, inference: InferenceRequest, more: int) -> None:
        """Hold more bytes until the end of a request. Raises BufferFull."""
        if inference.memory is None:
            inference.memory = RequestMemory(self._buffers, inference.tenant)
        inference.memory.add(more)

    def _created(
        self,
        state: RequestState,
        backend: Target,
        hold: Reservation,
        outcome: AttemptOutcome,
        body: bytes,
    ) -> tuple[AttemptOutcome, str]:
        """Remember the object that a reply names; return the outcome, and the id if work goes on.

        An audit, which no client follows, is charged at once.
        """
        inference = state.inference
        created = backend.protocol.created(inference.call.payload, body)
        if created is None:
            return outcome, ""
        self._objects.created(created.name, backend.name, inference.tenant)
        if not (created.is_pending and state.draws):
            return outcome, ""
        quote, _ = limited_quote(state, backend, hold)
        return self._background.outcome(inference, outcome, quote, hold), created.name

    def _finish(
        self,
        state: RequestState,
        backend: Target,
        hold: Reservation,
        attempt: Attempt,
        health: str | None,
        *,
        now_s: float,
        pending: str,
    ) -> None:
        """Add an attempt to its request and settle it; what is in progress settles at its end."""
        state.attempts.append(attempt)
        state.now_s = now_s
        if attempt.outcome.provenance != PENDING:
            self.settlement.settle(state, backend, hold, attempt, health, now_s=now_s)
            return
        state.streamed = True
        if attempt.relay is None:
            self._background.begin(state, backend, hold, pending)
        else:
            relay = attempt.relay
            relay.on_end = partial(self._end_stream, state, backend, hold=hold, relay=relay)

    def _end_stream(
        self,
        state: RequestState,
        backend: Target,
        error: str,
        abandoned: str,
        *,
        hold: Reservation,
        relay: StreamRelay,
    ) -> None:
        """Settle a stream that has ended, unless its work goes on without it."""
        payload = state.inference.call.payload
        name = relay.follower.object_id
        if payload.creates and name:
            self._objects.created(name, backend.name, state.inference.tenant)
        cut = error or abandoned
        is_last = relay is state.attempts[-1].relay
        if cut and name and payload.defers and is_last and self._background.has_room(0):
            self._background.begin(state, backend, hold, name)
        else:
            self.settlement.settle_stream(
                state, backend, hold, relay, error=error, abandoned=abandoned
            )

    async def _begin_stream(
        self, begun: Begun, reply: HttpReply, follower: StreamReader, left_s: float | None
    ) -> tuple[StreamRelay | None, HttpReply, AttemptOutcome]:
        """Return the relay of a stream that has begun, the reply, and the outcome so far.

        It has begun with its first event; for a cascade that may escalate, with its beginning. If
        it has reported an error by then, and no text came before that, return None instead of the
        relay, and the error reply that it stands for.
        """
        state, backend = begun.state, begun.backend
        inference, outcome = state.inference, UNDER_WAY
        relay = StreamRelay(
            reply,
            follower,
            self._buffers.open(inference.tenant),
            in_turns=partial(self._documents.run, inference.tenant),
            clock=self._clock,
            drain_s=backend.drain_s,
        )
        try:
            await within(left_s, relay.begin())
            if inference.call.payload.creates and follower.object_id:
                # Now, and not when it ends: a client may cancel what still streams.
                self._objects.created(follower.object_id, backend.name, inference.tenant)
            outcome = await _under_way(state, relay, begun.quote)
        except FailedAtOnce as failure:
            return None, refusal(reply, failure), outcome
        return relay, reply, outcome


def failed(
    exc: BackendError, quote: Quote, hold: Reservation, *, fair: bool
) -> tuple[AttemptOutcome, str]:
    """Return the outcome of a call without a reply, and the evidence about backend health."""
    if isinstance(exc, Overloaded):
        return outcome_without_reply(quote, OVERLOADED, ran=False), evidence.UNKNOWN
    why = str(exc) or type(exc).__name__
    outcome = outcome_without_reply(quote, why, ran=exc.ran, hold_nano=hold.hard_nano)
    return outcome, evidence.of_failure(exc, fair=fair)


def cancelled(
    exc: BaseException, state: RequestState, quote: Quote, hold: Reservation
) -> AttemptOutcome:
    """Return the outcome of a cancelled call.

    The client disconnected, another call was faster, or the gateway is stopping.
    """
    why = HEDGE_LOST if state.hedge_lost else LEFT if state.inference.left else "cancelled"
    return outcome_without_reply(
        quote,
        why,
        ran=not is_unsent(exc),
        hold_nano=hold.hard_nano,
        abandoned=CLOSE if why == LEFT else "",
    )


def _is_read_whole(inference: InferenceRequest, follower: StreamReader) -> bool:
    """Whether a cascade decides on the whole of a stream rather than on its beginning."""
    route = inference.route
    return route.cascade and (not route.hold_bytes or follower.is_media)


async def _under_way(state: RequestState, relay: StreamRelay, quote: Quote) -> AttemptOutcome:
    """Return the outcome of a stream that has begun; a cascade reads its beginning first."""
    route = state.inference.route
    if not (route.cascade and _may_escalate(state, quote)):
        return UNDER_WAY
    await relay.hold(route.hold_bytes)
    return replace(UNDER_WAY, answer=_beginning(relay))


def _may_escalate(state: RequestState, quote: Quote) -> bool:
    """Whether a more expensive backend may follow: else there is nothing to decide."""
    closed = state.closed
    return any(
        other.expected_nano > quote.expected_nano
        for name, other in state.quotes.items()
        if name not in closed
    )


def _beginning(relay: StreamRelay) -> ModelAnswer:
    """Return the answer as far as a stream has come."""
    try:
        answer = relay.follower.answer()
    except Exception:  # no text has come yet, or there will be none
        answer = NO_ANSWER
    return replace(answer, is_partial=not relay.whole)


async def _streamed(
    reply: HttpReply, follower: StreamReader, left_s: float | None
) -> tuple[HttpReply, StreamReader | None]:
    """Return a reply, and its reader if it is the stream, or the file, that was requested."""
    if isinstance(follower, MediaReader):
        return reply, follower if follower.takes(reply) else None
    kind = follower.media_type
    if kind == EVENT_STREAM and not is_stream(reply):
        reply = await within(left_s, labelled(reply))
    return reply, follower if is_stream(reply, kind) else None


def _followed(follower: StreamReader, body: bytes) -> Generator[None, None, bytes]:
    """Follow a whole stream; return what of it goes to the client."""
    out = yield from follower.feed_slices(body)
    return out + (yield from follower.close_slices())


def _read_whole(
    reply: HttpReply, follower: StreamReader, outcome: AttemptOutcome, body: bytes
) -> tuple[str | None, bytes]:
    """Return the health evidence of a fully read stream, and the bytes for the client.

    The evidence is None if it follows from the outcome.
    """
    if follower.is_media:
        return None, body
    if not is_stream(reply, follower.media_type):  # an error stood in its first event
        return evidence.of_event(reply.status, outcome.error), body
    if outcome.error:
        return None, body
    if reply.followed is not None:
        return None, reply.followed[1]
    return None, follower.feed(body) + follower.close()


def _is_fair(
    inference: InferenceRequest, backend: Target, started_s: float, deadline_s: float
) -> bool:
    """Whether an attempt that timed out had a fair share of the configured timeout."""
    route = inference.route
    chosen = (
        inference.client_deadline and inference.deadline_s < inference.received_s + route.timeout_s
    )
    if chosen and deadline_s < started_s + backend.timeout_s:
        return False  # the client's deadline
    allowed_s = min(backend.timeout_s, route.timeout_s)
    return deadline_s - started_s >= evidence.FAIR_SHARE * allowed_s


def limited_quote(
    state: RequestState, backend: Target, hold: Reservation
) -> tuple[Quote, OutputLimit | None]:
    """Return a quote capped at the reserved amount, and the output limit that enforces the cap."""
    quote, bound = state.quotes[backend.name], state.bounds.get(backend.name)
    if bound is None or hold.hard_nano is None:
        return quote, None
    return bound.quoted(quote, hold.hard_nano), bound.limit(hold.hard_nano)


def _leaving_time(state: RequestState, backend: Target, now_s: float) -> float:
    """Return the attempt deadline, reserving time for the remaining fallbacks.

    A stream may use all of the time: once it has begun, no fallback is possible.
    """
    inference = state.inference
    route, until_s = inference.route, inference.deadline_s
    chain, static_response = route.fallbacks.chain, route.fallbacks.static_response
    if not chain and static_response is None:
        return until_s
    if backend.protocol.streams(inference.call.payload):
        return until_s
    below = [
        route.backends[name]
        for name in chain
        if name in route.backends and name != backend.name and name not in state.closed
    ]
    if not below and static_response is None:
        return until_s
    wired = any(not step.is_local for step in below)
    return leaving(now_s, until_s, wired=wired)
