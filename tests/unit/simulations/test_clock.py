"""Virtual time: timers fire in order, and production code runs on its event loop."""

import asyncio
from typing import Any

import pytest

from tollway.simulations.world.clock import Until, VirtualLoop


def loop() -> VirtualLoop:
    return VirtualLoop()  # type: ignore[abstract]


def test_timers_fire_in_order_of_time_and_then_of_request() -> None:
    virtual, seen = loop(), []
    for at_s, name in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
        virtual.at(at_s, seen.append, name)
    virtual.run(asyncio.sleep(3.0))
    assert seen == ["a", "b", "c"]
    assert virtual.time() == 3.0


def test_a_strand_waits_for_times_and_for_futures() -> None:
    virtual = loop()
    ended: list[tuple[Any, Any, float]] = []

    async def strand() -> str:
        await Until(2.0)
        await asyncio.sleep(1.5)
        return "done"

    virtual.strand(strand(), lambda value, error: ended.append((value, error, virtual.now_s)))
    virtual.run(asyncio.sleep(10.0))
    assert ended == [("done", None, 3.5)]


def test_an_exception_in_a_strand_is_raised_by_the_run() -> None:
    virtual = loop()
    ended: list[Any] = []

    async def strand() -> None:
        await Until(1.0)
        raise ValueError("no")

    virtual.strand(strand(), lambda value, error: ended.append(error))
    virtual.run(asyncio.sleep(2.0))
    assert [str(error) for error in ended] == ["no"]


def test_tasks_timeouts_locks_and_threads_work_in_it() -> None:
    async def main() -> tuple[float, str]:
        lock, event = asyncio.Lock(), asyncio.Event()

        async def later() -> None:
            async with lock:
                await asyncio.sleep(60.0)
            event.set()

        task = asyncio.create_task(later())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await event.wait()
        await asyncio.gather(task, event.wait())
        return asyncio.get_running_loop().time(), await asyncio.to_thread(lambda: "thread")

    assert loop().run(main()) == (60.0, "thread")


def test_a_cancelled_timer_does_not_fire() -> None:
    virtual, seen = loop(), []
    virtual.call_later(1.0, seen.append, "no").cancel()
    virtual.run(asyncio.sleep(2.0))
    assert seen == []


def test_an_error_in_a_callback_ends_the_simulation() -> None:
    virtual = loop()
    virtual.call_later(1.0, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        virtual.run(asyncio.sleep(2.0))


def test_a_deadlock_is_reported() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="deadlock"):
        loop().run(main())
