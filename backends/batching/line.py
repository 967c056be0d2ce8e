"""The calls that wait to be joined, and how they get their replies."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tollway.backends.batching.parts import Part
from tollway.backends.types import Headers, HttpReply, Usage


@dataclass(slots=True, eq=False)
class Member:
    """A call that waits for its reply; `task` is what works on it once it has been sent."""

    part: Part
    deadline_s: float
    arrived_s: float
    future: "asyncio.Future[HttpReply]"
    line: "Line"
    tenant: str
    task: "asyncio.Task[None] | None" = None
    batch: "list[Member] | None" = None
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class Line:
    """Calls that can be joined, in order of arrival; those that left are skipped."""

    members: deque[Member] = field(default_factory=deque)
    rows: int = 0
    timer: asyncio.TimerHandle | None = None

    def first(self) -> Member | None:
        """Return the call that has waited longest."""
        while self.members and not waits(self.members[0]):
            self.members.popleft()
        return self.members[0] if self.members else None


class _Whole:
    """A body that is there."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        """Do nothing: no connection is held."""


def waits(member: Member) -> bool:
    """Whether a call has not been sent yet."""
    return member.batch is None


def is_open(member: Member) -> bool:
    """Whether a call still wants its reply."""
    return not member.future.done()


def is_good(member: Member) -> bool:
    """Whether a call was answered, or left before: that is no fault of its request."""
    future = member.future
    if not future.done() or future.cancelled():
        return True
    return future.exception() is None and future.result().status < 400


def give(
    member: Member,
    reply: HttpReply,
    headers: Headers,
    body: bytes,
    usage: Usage,
    *,
    is_echo: bool = False,
) -> None:
    """Answer a call with what is its part of a reply, unless it has ended."""
    if is_open(member):
        member.future.set_result(
            HttpReply(reply.status, headers, _Whole(body), body, usage=usage, is_echo=is_echo)
        )


def fail(member: Member, failure: Exception) -> None:
    """End a call with a failure, unless it has ended."""
    if is_open(member):
        member.future.set_exception(failure)
        member.future.exception()  # its call may have left: then nobody asks
