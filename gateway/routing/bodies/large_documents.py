"""Large documents: decodes and reads the JSON of large bodies in slices, fairly among tenants.

A document of 16 MiB takes up to a second to read. All tenants' documents are read by one task, a
slice (about a millisecond) of one document in each iteration of the event loop. So a small request
waits for one slice at most, and a tenant's large one for as many slices of each other tenant's.
"""

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from tollway.backends.concurrency.fair_line import FairLine
from tollway.backends.documents import DEPTH_MAX
from tollway.backends.sliced_json import slices
from tollway.backends.types import Document

T = TypeVar("T")
Work = tuple[Generator[None, None, Any], asyncio.Future[Any]]


class LargeDocuments:
    """Reads documents in one worker."""

    # The mutable state is the documents that are being read, and the task that reads them.
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._line: FairLine[Work] = FairLine()
        self._task: asyncio.Task[None] | None = None

    async def read(self, tenant: str, text: bytes) -> Document:
        """Return a tenant's document; if it is not valid JSON, with its `fault`."""
        try:
            return await self.run(tenant, slices(text, DEPTH_MAX))
        except ValueError as exc:
            return Document(fault=str(exc))

    async def run(self, tenant: str, work: Generator[None, None, T]) -> T:
        """Return the result of a tenant's work that yields after each slice; raise what it does."""
        ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._line.push(tenant, (work, ended))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await ended

    async def _run(self) -> None:
        while self._line.count:
            tenant, (work, ended) = self._line.pop()
            since_s = self._clock()
            if not ended.done():  # else its client has disconnected
                try:
                    next(work)
                    self._line.push(tenant, (work, ended), first=True)
                except StopIteration as end:
                    ended.set_result(end.value)
                except Exception as exc:  # whoever waits for the work handles it
                    ended.set_exception(exc)
            self._line.charge(tenant, self._clock() - since_s)
            await asyncio.sleep(0)
        self._task = None
