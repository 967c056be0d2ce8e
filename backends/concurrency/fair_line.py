"""The fair line: items that wait, served by tenant in proportion to what each tenant has used.

Theory of operation. This is start-time fair queueing (Goyal, Vin, Cheng 1996) with one flow per
tenant and equal weights. Each tenant with waiting items has a tag: how much service it has had, on
a common scale. The tenant with the least tag is served next, its own items in order of arrival.
Service is charged when it is known (a slot's seconds, a slice's milliseconds). A tenant that
arrives starts at the tag that is being served: it is served next but one at most, and gets no
credit for the time in which it did not ask. One tenant with ten thousand items waiting therefore
delays another one's item by one item. When the line is empty, the tags are forgotten.
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairLine(Generic[T]):
    """Waiting items by tenant."""

    # The mutable state is the tenants' queues, the tags, and the tag that was served last.

    def __init__(self) -> None:
        self._queues: dict[str, deque[T]] = {}
        self._tags: dict[str, float] = {}
        self._now = 0.0
        self.count = 0
        """Number of waiting items."""

    def ahead(self, tenant: str) -> int:
        """Return how many items are served before a new one of this tenant, if all cost the same.

        Between two items of one tenant, each other waiting tenant gets one.
        """
        queue = self._queues.get(tenant)
        return 0 if queue is None else min(self.count, len(queue) * len(self._queues))

    def push(self, tenant: str, item: T, *, first: bool = False) -> None:
        """Add an item behind those of its tenant, or before them."""
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = deque()
            self._tags[tenant] = max(self._tags.get(tenant, 0.0), self._now)
        if first:
            queue.appendleft(item)
        else:
            queue.append(item)
        self.count += 1

    def pop(self) -> tuple[str, T]:
        """Remove and return the next item and its tenant. KeyError if there is none."""
        if not self.count:
            raise KeyError("nothing waits")
        tenant = min(self._queues, key=self._tags.__getitem__)
        self._now = self._tags[tenant]
        item = self._queues[tenant].popleft()
        self._taken(tenant)
        return tenant, item

    def discard(self, tenant: str, item: T) -> None:
        """Remove an item if it still waits."""
        queue = self._queues.get(tenant)
        if queue is not None and item in queue:
            queue.remove(item)
            self._taken(tenant)

    def charge(self, tenant: str, service: float) -> None:
        """Count service that a tenant has had, while others wait for theirs; negative: less."""
        if self.count:
            self._tags[tenant] = max(self._tags.get(tenant, self._now) + service, self._now)

    def items(self) -> list[T]:
        """Return all waiting items."""
        return [item for queue in self._queues.values() for item in queue]

    def _taken(self, tenant: str) -> None:
        self.count -= 1
        if not self._queues[tenant]:
            del self._queues[tenant]
        if not self.count:
            self._tags.clear()
            self._now = 0.0
