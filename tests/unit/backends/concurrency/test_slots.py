"""Slots are given in order of arrival; calls that would wait too long are refused at once."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tollway.backends.concurrency.limiter import AdaptiveLimit
from tollway.backends.concurrency.queue import ConcurrencyQueue
from tollway.backends.errors import ConnectFailed, DeadlineExceeded, Overloaded


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


def soon() -> float:
    return asyncio.get_running_loop().time() + 5.0


async def state() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_slot_goes_to_the_call_that_waited_longest() -> None:
    async def main() -> None:
        slots, order = ConcurrencyQueue(1), list[int]()
        await slots.enter(soon())

        async def call(number: int) -> None:
            await slots.enter(soon())
            order.append(number)
            slots.leave(0.01)

        calls = [asyncio.create_task(call(number)) for number in range(3)]
        await state()
        assert (slots.busy, slots.waiting) == (1, 3)
        slots.leave(0.01)
        await asyncio.gather(*calls)
        assert order == [0, 1, 2]
        assert (slots.busy, slots.waiting) == (0, 0)

    run(main)


def test_a_call_that_would_wait_too_long_is_refused_at_once_and_not_sent() -> None:
    async def main() -> None:
        slots = ConcurrencyQueue(2, patience_s=1.0)
        for _ in range(2):
            await slots.enter(soon())
        slots.leave(0.3)  # each slot is held for 0.3 s: a sixth of a second a place in the queue
        await slots.enter(soon())
        waiting = []
        while not slots.is_full():
            waiting.append(asyncio.create_task(slots.enter(soon())))
            await state()
        assert slots.waiting == 3  # half the patience
        with pytest.raises(Overloaded) as refused:
            await slots.enter(soon())
        assert refused.value.ran is False
        assert slots.refused == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (slots.busy, slots.waiting) == (2, 0)

    run(main)


def test_a_call_that_gets_no_slot_is_refused_after_its_wait_limit() -> None:
    async def main() -> None:
        slots = ConcurrencyQueue(1, patience_s=0.02)
        await slots.enter(soon())
        with pytest.raises(Overloaded):
            await slots.enter(soon())
        with pytest.raises(DeadlineExceeded) as late:
            await slots.enter(asyncio.get_running_loop().time() + 0.01)
        assert late.value.ran is False
        assert (slots.busy, slots.waiting) == (1, 0)

    run(main)


def test_a_call_cancelled_as_its_turn_comes_gives_it_to_the_next() -> None:
    async def main() -> None:
        slots = ConcurrencyQueue(1)
        await slots.enter(soon())
        first = asyncio.create_task(slots.enter(soon()))
        second = asyncio.create_task(slots.enter(soon()))
        await state()
        slots.leave(0.01)
        first.cancel()
        await second
        assert first.cancelled()
        assert (slots.busy, slots.waiting) == (1, 0)

    run(main)


def test_a_limit_that_shrank_is_met_as_calls_end_and_one_that_grew_lets_all_in() -> None:
    async def main() -> None:
        limiter = AdaptiveLimit(4)
        slots = ConcurrencyQueue(4, limiter=limiter)
        for _ in range(4):
            await slots.enter(soon())
        for _ in range(20):
            slots.answered(0.01, 503)
        assert slots.limit == 1
        waiting = [asyncio.create_task(slots.enter(soon())) for _ in range(3)]
        await state()
        for _ in range(3):
            slots.leave(0.01)
        await state()
        assert (slots.busy, slots.waiting) == (1, 3)
        for number in range(400):  # good again, at full use
            limiter.observe(number * 0.01, 0.01, 4)
        assert slots.limit == 4
        slots.leave(0.01)
        await asyncio.gather(*waiting)
        assert (slots.busy, slots.waiting) == (3, 0)

    run(main)


def test_closing_fails_waiting_calls() -> None:
    async def main() -> None:
        slots = ConcurrencyQueue(1)
        await slots.enter(soon())
        waiting = asyncio.create_task(slots.enter(soon()))
        await state()
        slots.close()
        with pytest.raises((ConnectFailed, DeadlineExceeded)):
            await waiting

    run(main)


def test_a_tenant_with_few_calls_gets_the_next_slot_and_is_not_refused_for_anothers_queue() -> None:
    async def main() -> None:
        slots = ConcurrencyQueue(2, patience_s=1.0)
        for _ in range(2):
            await slots.enter(soon(), "greedy")
        slots.leave(0.3, "greedy")
        await slots.enter(soon(), "greedy")
        order: list[str] = []

        async def call(tenant: str) -> None:
            await slots.enter(soon(), tenant)
            order.append(tenant)

        waiting = []
        while not slots.is_full("greedy"):
            waiting.append(asyncio.create_task(call("greedy")))
            await asyncio.sleep(0)
        assert not slots.is_full("modest")
        waiting.append(asyncio.create_task(call("modest")))
        await asyncio.sleep(0)
        for _ in waiting:
            slots.leave(0.3, order[-1] if order else "greedy")
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        assert order.index("modest") <= 1

    asyncio.run(main())
