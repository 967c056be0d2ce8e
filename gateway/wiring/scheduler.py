"""Scheduler: runs periodic jobs off the request path.

The simulator has no scheduler: it does the same work at its own times.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Work that is due every `period_s` seconds."""

    period_s: float
    run: Callable[[], Awaitable[None]]


class Scheduler:
    """Runs each job on its own timer."""

    # The mutable state is the tasks that run.

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the timers, on the running loop."""
        self._tasks = [asyncio.create_task(_repeat(job)) for job in self._jobs]

    async def stop(self) -> None:
        """Stop the timers, and any job that is running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def every(period_s: float, work: Callable[[], None]) -> Job:
    """Return a job for a synchronous function."""

    async def run() -> None:
        work()

    return Job(period_s, run)


async def _repeat(job: Job) -> None:
    while True:
        await asyncio.sleep(job.period_s)
        try:
            await job.run()
        except Exception:  # a failed job is retried; serving continues
            log.exception("a periodic job failed; retrying in %.3g s", job.period_s)
