"""A coroutine begins without a task, and cannot tell when it becomes one."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tollway.eager import Eager, Reply, Until, as_task, running, uncancel


def run(scene: Callable[["Stage"], Awaitable[None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await scene(Stage(loop))

    asyncio.run(main())


class Stage:
    """Starts coroutines as a callback of the loop does, and notes what ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ended: list[Eager] = []

    async def start(self, coroutine: Coroutine[Any, Any, None]) -> Eager:
        one = Eager(coroutine, self.loop, self.ended.append)
        await self.call(one.step)
        return one

    async def call(self, callback: Callable[[], object]) -> None:
        """Call outside any task."""
        called = self.loop.create_future()

        def outside() -> None:
            callback()
            called.set_result(None)

        self.loop.call_soon(outside)
        await called


def test_what_waits_for_a_reply_goes_on_in_the_callback_that_brings_it() -> None:
    async def scene(stage: Stage) -> None:
        reply, seen = Reply(), list[object]()

        async def serve() -> None:
            seen.append("begun")
            await reply
            seen.append(asyncio.current_task())

        await stage.start(serve())
        assert (seen, stage.ended) == (["begun"], [])
        await stage.call(reply.bring)
        assert (seen, len(stage.ended)) == (["begun", None], 1)

    run(scene)


def test_a_reply_that_is_there_is_not_waited_for() -> None:
    async def scene(stage: Stage) -> None:
        reply = Reply()
        reply.bring()

        async def serve() -> None:
            await reply
            await reply

        await stage.start(serve())
        assert len(stage.ended) == 1

    run(scene)


def test_waiting_for_anything_else_makes_a_task() -> None:
    async def scene(stage: Stage) -> None:
        first, second, seen = Reply(), Reply(), list[object]()

        async def serve() -> None:
            await first
            assert await asyncio.sleep(0.001, "slept") == "slept"
            async with asyncio.timeout(60):
                await second  # inside a task it is a future
            try:
                async with asyncio.timeout(0):
                    await Reply()
            except TimeoutError:
                seen.append(asyncio.current_task() is not None)

        await stage.start(serve())
        await stage.call(first.bring)
        await asyncio.sleep(0.05)
        await stage.call(second.bring)
        await asyncio.sleep(0.05)
        assert (seen, len(stage.ended)) == ([True], 1)

    run(scene)


def test_a_task_is_there_where_it_is_asked_for() -> None:
    async def scene(stage: Stage) -> None:
        seen: list[bool] = []

        async def serve() -> None:
            seen.append(asyncio.current_task() is None)
            await as_task()
            seen.append(asyncio.current_task() is None)
            await as_task()
            async with asyncio.timeout(60):
                await asyncio.sleep(0)
            seen.append(True)

        await stage.start(serve())
        await asyncio.sleep(0.01)
        assert seen == [True, False, True]

    run(scene)


@pytest.mark.parametrize("waits", ["for a reply", "as a task"])
@pytest.mark.parametrize("caught", [False, True])
def test_it_is_cancelled_where_it_waits(waits: str, caught: bool) -> None:
    async def scene(stage: Stage) -> None:
        seen: list[str] = []

        async def serve() -> None:
            try:
                await (Reply() if waits == "for a reply" else asyncio.sleep(60))
            except asyncio.CancelledError:
                seen.append("cancelled")
                if not caught:
                    raise
                await asyncio.sleep(0)
                seen.append("went on")

        one = await stage.start(serve())
        await stage.call(one.cancel)
        await asyncio.sleep(0.01)
        assert seen == ["cancelled", "went on"][: 1 + caught]
        assert len(stage.ended) == 1
        one.cancel()  # too late: nothing happens

    run(scene)


def test_a_reply_that_comes_after_the_cancellation_is_ignored() -> None:
    async def scene(stage: Stage) -> None:
        reply = Reply()

        async def serve() -> None:
            await reply

        one = await stage.start(serve())
        await stage.call(one.cancel)
        await stage.call(one.cancel)
        await stage.call(reply.bring)
        assert len(stage.ended) == 1

    run(scene)


def test_an_error_is_raised_to_the_callback_and_ends_it() -> None:
    async def scene(stage: Stage) -> None:
        async def serve() -> None:
            raise ValueError("a bug")

        def start() -> None:
            with pytest.raises(ValueError, match="a bug"):
                Eager(serve(), stage.loop, stage.ended.append).step()

        await stage.call(start)
        assert len(stage.ended) == 1

    run(scene)


def test_what_a_task_continues_does_not_take_that_task_for_its_own() -> None:
    async def scene(stage: Stage) -> None:
        reply, seen = Reply(), list[object]()

        async def serve() -> None:
            await reply
            await as_task()
            seen.append(asyncio.current_task())

        await stage.start(serve())
        reply.bring()  # within the task of this test
        assert seen == []
        while not seen:
            await asyncio.sleep(0)
        assert seen[0] not in {None, asyncio.current_task()}

    run(scene)


def test_a_time_ends_what_has_no_task_and_what_has_become_one() -> None:
    async def scene(stage: Stage) -> None:
        seen = list[object]()

        async def serve(first: float) -> None:
            try:
                async with Until(stage.loop.time() + 0.02):
                    if first:
                        await asyncio.sleep(0)  # becomes a task
                    await Reply()
            except TimeoutError:
                task = asyncio.current_task()
                seen.append(None if task is None else task.cancelling())

        for has_task in (0.0, 1.0):
            await stage.start(serve(has_task))
        async with asyncio.timeout(10):
            while len(stage.ended) < 2:
                await asyncio.sleep(0.005)
        assert seen == [None, 0]

    run(scene)


def test_what_ends_in_time_is_not_cancelled() -> None:
    async def scene(stage: Stage) -> None:
        reply, seen = Reply(), list[object]()

        async def serve() -> None:
            async with Until(stage.loop.time() + 0.02):
                await reply
            await asyncio.sleep(0.05)
            seen.append("ended")

        await stage.start(serve())
        reply.bring()
        async with asyncio.timeout(10):
            while not stage.ended:
                await asyncio.sleep(0.005)
        assert seen == ["ended"]

    run(scene)


def test_what_is_cancelled_while_it_runs_ends_where_it_waits_next() -> None:
    async def scene(stage: Stage) -> None:
        seen = list[object]()

        async def serve() -> None:
            running().cancel()
            seen.append("goes on")
            try:
                await Reply()
            except asyncio.CancelledError:
                seen.append("cancelled")
                uncancel()
            await as_task()
            seen.append("a task")

        await stage.start(serve())
        async with asyncio.timeout(10):
            while not stage.ended:
                await asyncio.sleep(0)
        assert seen == ["goes on", "cancelled", "a task"]

    run(scene)


@pytest.mark.parametrize("awaits", ["a task", "a future", "a sleep"])
def test_what_is_cancelled_before_its_task_has_begun_ends_where_it_waits(awaits: str) -> None:
    async def scene(stage: Stage) -> None:
        seen, future = list[str](), stage.loop.create_future()

        async def serve() -> None:
            try:
                if awaits == "a task":
                    await as_task()
                elif awaits == "a future":
                    await future
                else:
                    await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
            finally:
                await asyncio.sleep(0)
                seen.append("closed")

        one = Eager(serve(), stage.loop, stage.ended.append)

        def step_and_cancel() -> None:
            one.step()
            one.cancel()

        await stage.call(step_and_cancel)
        async with asyncio.timeout(10):
            while not stage.ended:
                await asyncio.sleep(0)
        assert seen == ["cancelled", "closed"]
        assert future.cancelled() == (awaits == "a future")

    run(scene)
