"""A function as a source: the threads in which it runs."""

import asyncio
import threading

from tollway.gateway.features.sources.function import THREADS, FunctionSource


def test_a_function_that_hangs_leaves_the_gateways_threads_alone() -> None:
    go, names = threading.Event(), set()

    def hang(keys: list[str]) -> dict[str, object]:
        names.add(threading.current_thread().name.rpartition("_")[0])
        go.wait(30)
        return {}

    async def main() -> None:
        source = FunctionSource(hang)
        asked = [asyncio.create_task(source.fetch(["x"], 0.0)) for _ in range(10 * THREADS)]
        await asyncio.sleep(0)
        assert await asyncio.to_thread(lambda: 7) == 7
        go.set()
        await asyncio.gather(*asked)
        assert names == {"features"}
        await source.aclose()

    asyncio.run(main())
