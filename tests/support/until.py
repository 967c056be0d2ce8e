"""Waits for a condition, for a bounded time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

WITHIN_S = 30.0
"""Far more than anything here takes on a busy machine, and far less than a test may take."""
EVERY_S = 0.005


async def until(
    ready: Callable[[], T | Awaitable[T]], *, within_s: float = WITHIN_S, every_s: float = EVERY_S
) -> T:
    """Return the value of `ready` once it is true; AssertionError if it never is.

    `ready` may be a coroutine function; one that hangs is cancelled at the end of the time.
    """
    found: T | None = None
    try:
        async with asyncio.timeout(within_s):
            while True:
                said = ready()
                found = await said if inspect.isawaitable(said) else said
                if found:
                    return found
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(f"not true within {within_s} s: {_what(ready)} is {found!r}") from None


def until_now(ready: Callable[[], T], *, within_s: float = WITHIN_S, every_s: float = EVERY_S) -> T:
    """As `until`, for tests without an event loop."""
    end_s = time.monotonic() + within_s
    while not (found := ready()):
        if time.monotonic() > end_s:
            raise AssertionError(f"not true within {within_s} s: {_what(ready)} is {found!r}")
        time.sleep(every_s)
    return found


async def still(value: Callable[[], T], *, for_s: float = 0.3) -> T:
    """Return a value once it has not changed for a while: that no more comes, only time can show.

    Of its caller it asks that the value cannot change for ever.
    """
    async with asyncio.timeout(WITHIN_S):
        while True:
            seen = value()
            await asyncio.sleep(for_s)
            if value() == seen:
                return seen


def _what(ready: Callable[[], object]) -> str:
    code = getattr(ready, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(ready)
