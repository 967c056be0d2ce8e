"""Conversions of messages. Those of large ones take seconds, and must not hold up the loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SMALL_BYTES = 32 << 10  # takes some milliseconds at most


async def aside(size: int, convert: Callable[[], T]) -> T:
    """Return what `convert` returns; for a message of many bytes, call it in a thread."""
    return convert() if size <= SMALL_BYTES else await asyncio.to_thread(convert)
