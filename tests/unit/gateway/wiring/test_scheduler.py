"""Periodic jobs: each has a timer of its own."""

import asyncio

from tests.support.until import until
from tollway.gateway.wiring.scheduler import Job, Scheduler, every


def test_a_job_that_failed_is_run_again_and_delays_no_other() -> None:
    runs = {"failing": 0, "hanging": 0, "sound": 0}

    def fail() -> None:
        runs["failing"] += 1
        raise ValueError("not this time")

    async def hang() -> None:
        runs["hanging"] += 1
        await asyncio.Event().wait()

    def work() -> None:
        runs["sound"] += 1

    async def main() -> None:
        scheduler = Scheduler([every(0.0, fail), Job(0.0, hang), every(0.0, work)])
        scheduler.start()
        await until(lambda: runs["failing"] > 2 and runs["sound"] > 2)
        await scheduler.stop()
        stopped = dict(runs)
        await asyncio.sleep(0)
        assert runs == stopped
        assert runs["hanging"] == 1

    asyncio.run(main())
