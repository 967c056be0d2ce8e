"""Virtual time: an event loop whose clock jumps to the next scheduled event.

Theory of operation. A heap holds scheduled calls, by (time, order of scheduling). `run` takes the
earliest, sets the clock to its time and calls it. So a day passes as fast as its events are
handled, and the same schedule runs in the same order. The loop implements as much of asyncio as
production code uses (timers, futures, tasks; executor calls run at once, inline), so reservations
and locks run in it unchanged.

A request is not a task, because a task switch costs more than a simulated server. It is a strand:
a coroutine driven by hand. A strand waits for a time by awaiting `until(...)`, which costs one push
and one pop; a strand that waits for a future (reservations asking the ledger) is resumed by it.
"""

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class Until:
    """Awaited by a strand: resumes it at a given time."""

    __slots__ = ("at_s",)

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def __await__(self) -> Generator["Until", None, None]:
        yield self


class VirtualLoop(asyncio.AbstractEventLoop):
    """An event loop in virtual time, in seconds from 0."""

    # The mutable state is the clock, the scheduled calls, and whether it runs.

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._ready: deque[asyncio.Handle] = deque()
        self._count = 0
        self._running = False
        self._failure: BaseException | None = None

    # -- what a simulation uses

    def at(self, at_s: float, call: Callable[[Any], object], value: Any = None) -> None:
        """Schedule `call(value)` at a time; a time in the past means at once."""
        self._count += 1
        heapq.heappush(self._due, (at_s, self._count, call, value))

    def strand(
        self, coroutine: Coroutine[Any, Any, T], ended: Callable[[T | None, Exception | None], None]
    ) -> None:
        """Drive a coroutine; `ended` gets its result or exception as soon as it ends."""
        self._advance((coroutine, ended))

    def _advance(self, strand: tuple[Coroutine[Any, Any, Any], Callable[..., None]]) -> None:
        coroutine, ended = strand
        try:
            waits_for = coroutine.send(None)
        except StopIteration as stop:
            ended(stop.value, None)
            return
        except Exception as exc:
            ended(None, exc)
            return
        if type(waits_for) is Until:
            self.at(waits_for.at_s, self._advance, strand)
        elif waits_for is None:  # a bare yield, as of sleep(0)
            self.at(self.now_s, self._advance, strand)
        else:
            waits_for._asyncio_future_blocking = False
            waits_for.add_done_callback(lambda _: self._advance(strand))

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine as a task to its end; calls still scheduled then do not run."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        self._running = True
        try:
            task = self.create_task(main)
            self._state(task)
            result: T = task.result()
            return result
        finally:
            self._running = False
            events._set_running_loop(before)

    def _state(self, task: "asyncio.Task[Any]") -> None:
        due, ready, pop = self._due, self._ready, heapq.heappop
        while True:
            if ready:  # only ready callbacks advance a task
                self._run_ready()
                if task.done():
                    return
            if not due:
                raise RuntimeError("deadlock: all strands wait and no call is scheduled")
            at_s, _, call, value = pop(due)
            self.now_s = max(self.now_s, at_s)
            call(value)
            if self._failure is not None:
                raise self._failure

    def _run_ready(self) -> None:
        ready = self._ready
        while ready:
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    # -- what production code asks of an event loop

    def time(self) -> float:
        """Return the virtual time."""
        return self.now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Schedule a call before time advances."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a call after a delay."""
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a call at a time."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.at(when, _fire, handle)
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **more: Any) -> "asyncio.Task[Any]":
        """Run a coroutine as a task."""
        return asyncio.Task(coro, loop=self, name=more.get("name"), context=more.get("context"))

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Call the function inline: threads would make runs differ."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future

    def is_running(self) -> bool:
        """Return whether the loop is running."""
        return self._running

    def is_closed(self) -> bool:
        """Return False: the loop needs no closing."""
        return False

    def get_debug(self) -> bool:
        """Return False: there is no debug mode."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Stop the simulation: a simulation ignores no error."""
        self._failure = context.get("exception") or RuntimeError(context.get("message"))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is skipped when it is due."""


def _fire(handle: asyncio.TimerHandle) -> None:
    if not handle.cancelled():
        handle._run()
