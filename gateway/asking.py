"""Asks a backend once, and again where it refuses a field that the gateway added.

The client never sent that field, so a 400 or 422 that names it is no answer for the client. A
refused call is free: nothing ran. So the same call is repeated once without the field, within the
same attempt: no retry is taken from the route's budget, and only the second reply is judged.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from backends.dialect import REFUSED, named
from backends.rules import Whole
from backends.types import Addition, Call, DeadlineExceeded, Reply, is_unsent
from gateway.decoding import readable
from gateway.route import NO_PAYLOAD, Backend, Inference

T = TypeVar("T")


async def asked(
    inference: Inference,
    backend: Backend,
    deadline_s: float,
    begun_by_s: float | None,
    clock: Callable[[], float],
) -> tuple[Call, Reply]:
    """Return the call that was made, or made last, and its reply. Raises BackendError.

    `begun_by_s`: until when the reply must begin, if that is limited.
    """
    call = addressed(inference, backend, deadline_s, clock)
    sending = backend.transport.send(call, deadline_s)
    came = await (sending if begun_by_s is None else within(begun_by_s - clock(), sending))
    reply = readable(came, inference.accepts)
    if reply.status not in REFUSED:
        return call, reply
    # Not only what is still added: another call may have been refused while this one was under way.
    added = backend.protocol.added(call.payload or NO_PAYLOAD)
    if not added:
        return call, reply
    body = await reply.read(inference.route.reply_bytes_max)
    refused = named(added, body)
    if not refused:
        return call, Reply(reply.status, reply.headers, Whole(body))
    call = addressed(inference, backend, deadline_s, clock, without=refused)
    sending = backend.transport.send(call, deadline_s)
    came = await (sending if begun_by_s is None else within(begun_by_s - clock(), sending))
    reply = readable(came, inference.accepts)
    if reply.status < 400:  # else the request had another fault, and nothing is known
        backend.dialect.learn(backend.name, refused)
    return call, reply


async def within(seconds: float | None, begun: Awaitable[T]) -> T:
    """Wait for a reply to begin (3 us); DeadlineExceeded where that takes longer, if limited."""
    if seconds is None:
        return await begun
    try:
        async with asyncio.timeout(seconds):
            return await begun
    except TimeoutError as exc:
        ran = not is_unsent(exc.__cause__ or exc.__context__)
        raise DeadlineExceeded("its reply did not begin in time", ran=ran) from None


def addressed(
    inference: Inference,
    backend: Backend,
    deadline_s: float,
    clock: Callable[[], float],
    without: Sequence[Addition] = (),
) -> Call:
    """Return the call that a backend gets, with what it is told of its trace and its deadline."""
    call = backend.address(inference.call, without)
    call.caller = inference.caller
    if inference.passage is not None:
        call.headers = inference.passage.onto(call.headers)
    if inference.hurried:
        left_ms = max(1, int(1000 * (deadline_s - clock())))
        call.headers.append((b"x-tollway-deadline-ms", b"%d" % left_ms))
    return call
