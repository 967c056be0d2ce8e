"""Writes that wait belong to one event loop, and do not keep it."""

import asyncio
import gc
import weakref

from tollway.backends.http.turn_writes import TurnWrites, turn_writes


def test_a_closed_loop_is_freed_when_another_has_writes() -> None:
    async def use() -> TurnWrites:
        return turn_writes(asyncio.get_running_loop())

    loop = asyncio.SelectorEventLoop()
    known = weakref.ref(loop)
    loop.run_until_complete(use())
    loop.close()
    del loop
    asyncio.run(use())
    gc.collect()
    assert known() is None


def test_a_loop_has_one_queue() -> None:
    async def both() -> bool:
        loop = asyncio.get_running_loop()
        return turn_writes(loop) is turn_writes(loop)

    assert asyncio.run(both())
