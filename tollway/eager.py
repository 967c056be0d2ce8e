"""Coroutines that begin without a task, and become one if they wait for more than a reply.

Theory of operation. A task costs a wake-up through the event loop for each thing that it waits for.
A request that finds everything ready waits once, for the reply of a backend. So `Eager` steps its
coroutine at once, inside the callback that brought the request. If it waits for a `Reply`, the
callback that brings the reply continues it, and no task is ever made. If it waits for anything
else, a task takes over there, and the coroutine cannot tell the difference.

Some of asyncio's tools need a task from the start (`asyncio.timeout`, `current_task`). Code that
may run before there is one says `await as_task()` first; inside a task that does nothing.

Whether there is one is not asked of asyncio: before Python 3.12 that costs a system call, and a
coroutine continued from within a task would get that task.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any

_stepping: "Eager | None" = None  # what runs now, if that has no task


class Reply:
    """Something that one coroutine waits for and that one callback brings."""

    # The mutable state: whether it is there, and how to continue what waits for it (`resume`).
    __slots__ = ("_future", "done", "resume")

    def __init__(self) -> None:
        self.done = False
        self.resume: Callable[[], None] | None = None
        self._future: asyncio.Future[None] | None = None

    def bring(self) -> None:
        """Continue what waits for it: at once if that is no task."""
        if self.done:
            return
        self.done = True
        if self.resume is not None:
            self.resume()
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        if self.done:
            return
        if _stepping is not None:
            yield self
        else:
            self._future = asyncio.get_running_loop().create_future()
            yield from self._future


class Eager:
    """A coroutine that runs as far as it can at once. It can be cancelled as a task can."""

    # The mutable state: the task that took over, or the reply that is awaited without one; and
    # whether it was cancelled while it ran.
    __slots__ = ("_awaited", "_cancelled", "_coroutine", "_ended", "_loop", "_task")

    def __init__(
        self,
        running: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop,
        ended: Callable[["Eager"], None],
    ) -> None:
        """`ended` is called once; `running` must handle its own exceptions."""
        self._coroutine = running
        self._loop = loop
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        self._awaited: Reply | None = None
        self._cancelled = False

    def cancel(self, msg: object = None) -> None:
        """Raise CancelledError where the coroutine waits, in the loop's next iteration."""
        if self._task is not None:
            self._task.cancel(msg)
        elif self._awaited is not None:
            self._awaited.resume = None
            self._awaited = None
            self._loop.call_soon(self.step, asyncio.CancelledError())
        elif _stepping is self:
            self._cancelled = True

    def step(self, cancelled: asyncio.CancelledError | None = None) -> None:
        """Start the coroutine, or continue it, and run it as far as it can."""
        global _stepping  # noqa: PLW0603 - one event loop has one running coroutine
        self._awaited = None
        running = self._coroutine
        outer, _stepping = _stepping, self
        try:
            awaited = running.send(None) if cancelled is None else running.throw(cancelled)
        except (StopIteration, asyncio.CancelledError):
            self._ended(self)
            return
        except BaseException:
            self._ended(self)
            raise
        finally:
            _stepping = outer
        if type(awaited) is Reply:
            self._awaited = awaited
            awaited.resume = self.step
        else:
            taken = _taken_over(running, awaited)
            taken.send(None)
            self._task = self._loop.create_task(taken)
            self._task.add_done_callback(self._done)
        if self._cancelled:
            self._cancelled = False
            self.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._ended(self)


class Until:
    """`async with` whose body ends at a time of the loop's clock with a TimeoutError.

    As `asyncio.timeout_at`, but it needs no task.
    """

    # The mutable state is the timer, and whether it has cancelled the body.
    __slots__ = ("_alarm", "_fired", "_running", "_when_s")

    def __init__(self, when_s: float) -> None:
        self._when_s = when_s
        self._fired = False

    async def __aenter__(self) -> None:
        self._running = running()
        self._alarm = asyncio.get_running_loop().call_at(self._when_s, self._fire)

    def _fire(self) -> None:
        self._fired = True
        self._running.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *more: object) -> None:
        self._alarm.cancel()
        if self._fired and kind is asyncio.CancelledError:
            uncancel()
            raise TimeoutError


def running() -> "Eager | asyncio.Task[Any]":
    """Return what runs now: it can be cancelled."""
    task = _stepping or asyncio.current_task()
    assert task is not None
    return task


def uncancel() -> None:
    """Take back one cancellation of what runs now, which was caught."""
    if _stepping is None and (task := asyncio.current_task()) is not None:
        task.uncancel()


@coroutine
def as_task() -> Generator[None, None, None]:
    """Continue inside a task."""
    if _stepping is not None:
        yield


@coroutine
def _passed(awaited: Any) -> Generator[Any, Any, None]:
    """Wait for what a coroutine has yielded to its task."""
    yield awaited


async def _taken_over(running: Coroutine[Any, Any, None], awaited: Any) -> None:
    """Continue a coroutine that waits for `awaited`, inside a task.

    It must be stepped once before the task is made: a task that is cancelled before its first step
    would otherwise end without the coroutine, which would hold what it holds for ever.
    """
    raised: BaseException | None = None
    waits = awaited is not None
    try:
        await _passed(None)
    except BaseException as exc:
        raised = exc
        if hasattr(awaited, "cancel"):  # as a task does with what it waits for
            awaited.cancel()
    while True:
        if raised is None and waits:
            try:
                await _passed(awaited)
            except BaseException as exc:
                raised = exc
        try:
            awaited = running.send(None) if raised is None else running.throw(raised)
        except StopIteration:
            return
        raised, waits = None, True
