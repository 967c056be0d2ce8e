"""Places are shared by tenants: none keeps the others out, and none is lost."""

import asyncio

from tollway.gateway.signals.slots import FairSlots


async def turns() -> None:
    """Let the tasks that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_tenant_cannot_take_the_last_place() -> None:
    async def main() -> None:
        slots = FairSlots(3)
        hostile = [asyncio.create_task(slots.acquire("mallory")) for _ in range(10)]
        await turns()
        assert (slots.used, slots.waiting) == (2, 8)
        await asyncio.wait_for(slots.acquire("honest"), 10)
        for task in hostile:
            task.cancel()
        await asyncio.gather(*hostile, return_exceptions=True)
        assert slots.waiting == 0

    asyncio.run(main())


def test_a_free_place_goes_to_the_tenant_with_the_fewest() -> None:
    async def main() -> None:
        slots, order = FairSlots(2), []

        async def take(tenant: str) -> None:
            await slots.acquire(tenant)
            order.append(tenant)

        await slots.acquire("a")
        await slots.acquire("b")
        tasks = [asyncio.create_task(take(tenant)) for tenant in ("a", "a", "b", "c")]
        await turns()
        slots.release("a")
        await turns()
        assert order == ["a"]  # it has none now, and waits longest
        slots.release("b")
        await turns()
        assert order == ["a", "b"]
        slots.release("b")
        await turns()
        assert order == ["a", "b", "c"]
        slots.release("a")
        await asyncio.gather(*tasks)
        assert order == ["a", "b", "c", "a"]

    asyncio.run(main())


def test_one_place_is_for_everyone_and_cancelling_loses_none() -> None:
    async def main() -> None:
        slots = FairSlots(1)
        await slots.acquire("a")
        waiting = asyncio.create_task(slots.acquire("b"))
        await turns()
        slots.release("a")  # handed to the task, which is cancelled before it runs
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (slots.used, slots.waiting) == (0, 0)
        await slots.acquire("c")
        assert slots.used == 1

    asyncio.run(main())
