"""Large documents are read in turns: other work, and other tenants', goes on meanwhile."""

import asyncio

import orjson

from tollway.gateway.routing.bodies.large_documents import LargeDocuments

LARGE = orjson.dumps({"data": list(range(200_000))})


def test_the_loop_turns_between_slices() -> None:
    async def main() -> None:
        documents = LargeDocuments(asyncio.get_running_loop().time)
        reading = asyncio.create_task(documents.read("a", LARGE))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > len(LARGE) / (32 << 10)
        assert (await reading).value == {"data": list(range(200_000))}

    asyncio.run(main())


def test_a_tenants_many_documents_do_not_delay_another_tenants_by_more_than_one() -> None:
    async def main() -> None:
        time_s = 0.0

        def clock() -> float:  # each slice takes a second
            nonlocal time_s
            time_s += 0.5
            return time_s

        documents = LargeDocuments(clock)
        ended: list[str] = []

        async def read(tenant: str) -> None:
            await documents.read(tenant, LARGE)
            ended.append(tenant)

        many = [asyncio.create_task(read("greedy")) for _ in range(8)]
        await asyncio.sleep(0)
        await asyncio.gather(read("modest"), *many)
        assert ended.index("modest") <= 2

    asyncio.run(main())


def test_a_fault_is_reported_and_a_document_that_nobody_awaits_is_dropped() -> None:
    async def main() -> None:
        documents = LargeDocuments(asyncio.get_running_loop().time)
        left = asyncio.create_task(documents.read("a", LARGE))
        await asyncio.sleep(0)
        left.cancel()
        assert (await documents.read("a", LARGE[:-1])).fault
        assert not (await documents.read("a", LARGE)).fault

    asyncio.run(main())
