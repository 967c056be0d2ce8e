"""A Python function as a source: `package.module:function`, called with a list of keys.

It returns a mapping from keys to mappings of values. It may be a coroutine function; a plain one
runs in a thread.
"""

import asyncio
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tollway.gateway.features.online.model import Found, SourceError

THREADS = 4  # as many as a group has look-ups under way

Function = Callable[[list[str]], Any]


def load(name: str) -> Function:
    """Return the function of a name; ValueError if there is none."""
    module, colon, attribute = name.partition(":")
    if not (colon and module and attribute):
        raise ValueError(f"{name!r} is no function; write it like package.module:function")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise ValueError(f"{name} cannot be imported: {exc}") from exc
    if not callable(found):
        raise ValueError(f"{name} cannot be called")
    function: Function = found
    return function


class FunctionSource:
    """One group's values from a function."""

    by_digest = False
    is_writable = False

    def __init__(self, function: Function) -> None:
        self._function = function
        # Its own: one that hangs may not use up the threads that the rest of the gateway works in.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="features")
        self._waits = inspect.iscoroutinefunction(function)

    async def fetch(self, keys: Sequence[str], deadline_s: float) -> Found:
        """Return what the function returns. Raises SourceError or TimeoutError."""
        try:
            if self._waits:
                found = await self._function(list(keys))
            else:
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(self._threads, self._function, list(keys))
        except Exception as exc:  # the function is not ours, and may raise anything
            raise SourceError(f"the function raised {type(exc).__name__}: {exc}") from exc
        if not isinstance(found, Mapping):
            raise SourceError(f"the function returned {type(found).__name__}, not a mapping")
        return {key: values for key in keys if isinstance(values := found.get(key), Mapping)}

    async def put(self, key: str, values: Mapping[str, Any]) -> None:
        """Refuse: a function has no place to write to."""
        raise SourceError("a function has no place to write to")

    async def erase(self, key: str) -> int:
        """Refuse, for the same reason."""
        raise SourceError("a function has no place to write to")

    def gauges(self) -> Mapping[str, float]:
        """Return nothing."""
        return {}

    async def aclose(self) -> None:
        """Let go of the threads; a function that runs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
