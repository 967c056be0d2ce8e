"""Repeats a call if the backend rejects a field that the gateway added.

The client never sent that field, so a 400 or 422 that names it is no answer for the client. A
rejected call is free, because nothing ran. So the call is repeated without the field, or with
another output limit, within the same attempt. No retry is taken from the route's retry budget, and
only the last reply is evaluated.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tollway.backends.dialect import REFUSED, named
from tollway.backends.errors import DeadlineExceeded, is_unsent
from tollway.backends.output import OutputLimit, other_field, smaller
from tollway.backends.rules.backend import WholeRequestRules
from tollway.backends.types import Addition, Call, HttpReply
from tollway.eager import as_task
from tollway.gateway.caching.plan import UNCACHED
from tollway.gateway.routing.plan import Target
from tollway.gateway.routing.replies.decoding import readable
from tollway.gateway.routing.request import InferenceRequest

T = TypeVar("T")


REPEATS = 3  # one each for the limit's name, the limit's size, and an added field


async def asked_again(
    inference: InferenceRequest,
    backend: Target,
    call: Call,
    reply: HttpReply,
    sent: "Sent",
    *,
    deadline_s: float,
    begun_by_s: float | None,
    clock: Callable[[], float],
) -> tuple[Call, HttpReply, OutputLimit | None]:
    """Return the last call made, its reply, and its output limit.

    `reply` is the first rejection (a status in REFUSED) of `call`; `sent` describes what the
    gateway put into it. `begun_by_s`: the time by which a reply must begin, if that is limited.
    Raises BackendError.
    """
    limit = sent.limit
    repeats = 0
    while True:
        if repeats:
            call = addressed(inference, backend, deadline_s, clock, sent)
            sending = backend.transport.send(call, deadline_s)
            came = await (sending if begun_by_s is None else within(begun_by_s - clock(), sending))
            reply = readable(came, b"" if backend.protocol.hides else inference.accepts)
            if reply.status < 400:  # else it had another fault, and nothing is learned
                _learn(backend, sent, limit, inference.tenant)
        if reply.status not in REFUSED or repeats == REPEATS:
            return call, reply, sent.limit
        # Not only the fields still added: another call may have been rejected while this one was
        # in progress.
        added = backend.protocol.added(call.payload)
        inserted = sent.limit is not None and sent.limit.is_inserted
        if not (added or inserted):
            return call, reply, sent.limit
        body = await reply.read(inference.route.reply_bytes_max)
        other = _changed(sent, added, body)
        if other is None:
            return call, HttpReply(reply.status, reply.headers, WholeRequestRules(body)), sent.limit
        sent = other
        repeats += 1


@dataclass(frozen=True, slots=True)
class Sent:
    """The gateway's changes to a request: its added fields except `without`, and a limit.

    `is_model_wide`: whether the limit was rejected for the model rather than for this prompt.
    `is_renamed`: whether another field name was tried.
    """

    without: tuple[Addition, ...] = ()
    limit: OutputLimit | None = None
    is_model_wide: bool = True
    is_renamed: bool = False


UNCHANGED = Sent()


def _changed(sent: Sent, added: Sequence[Addition], refusal: bytes) -> Sent | None:
    """Return what to send instead if a rejection names a field of ours; else None."""
    limit = sent.limit
    if limit is not None and (tokens := smaller(limit, refusal)):
        is_model_wide = b"context" not in refusal
        return replace(sent, limit=replace(limit, tokens=tokens), is_model_wide=is_model_wide)
    refused = [one for one in named(added, refusal) if one not in sent.without]
    if refused:
        return replace(sent, without=(*sent.without, *refused))
    field = "" if limit is None or sent.is_renamed else other_field(limit, refusal)
    if limit is None or not field:
        return None
    return replace(sent, limit=replace(limit, field=field), is_renamed=True)


def _learn(backend: Target, sent: Sent, first: OutputLimit | None, tenant: str) -> None:
    """Remember what a backend accepted after it had rejected something else."""
    if sent.without:
        backend.dialect.learn(backend.name, sent.without)
    if sent.limit is None or first is None:
        return
    if sent.limit.field != first.field:
        backend.dialect.learn_field(backend.name, sent.limit.field)
    if sent.limit.tokens < first.tokens and sent.is_model_wide:
        backend.dialect.learn_most(backend.name, sent.limit.tokens, tenant)


async def within(seconds: float | None, begun: Awaitable[T]) -> T:
    """Wait for a reply to begin (3 us); DeadlineExceeded after `seconds`, if not None."""
    if seconds is None:
        return await begun
    await as_task()
    try:
        async with asyncio.timeout(seconds):
            return await begun
    except TimeoutError as exc:
        ran = not is_unsent(exc.__cause__ or exc.__context__)
        raise DeadlineExceeded("its reply did not begin in time", ran=ran) from None


def addressed(
    inference: InferenceRequest,
    backend: Target,
    deadline_s: float,
    clock: Callable[[], float],
    sent: Sent = UNCHANGED,
) -> Call:
    """Return the call for a backend, with its trace context and its deadline."""
    cache, call = inference.route.cache, inference.call
    if cache is not None and cache.onward is not None and inference.cache_result != UNCACHED:
        kept = [pair for pair in call.headers if pair[0] in cache.onward]
        call = Call(call.method, call.target, kept, call.body, call.payload)
    call = backend.address(call, sent.without, sent.limit)
    call.caller, call.tenant = inference.caller, inference.tenant
    if inference.trace is not None:
        call.headers = inference.trace.onto(call.headers)
    if inference.client_deadline:
        left_ms = max(1, int(1000 * (deadline_s - clock())))
        call.headers.append((b"x-tollway-deadline-ms", b"%d" % left_ms))
    return call
