"""The port of the second tier, which several gateways share, and a guard around it.

A second tier that is slow or away must cost no request anything: after a few failures in a row it
is left alone for a while, and requests are answered as if nothing were cached there.
"""

from collections.abc import Callable
from typing import Protocol

from tollway.gateway.caching.entry import Entry, packed, unpacked

FAILURES_IN_A_ROW = 3
REST_S = 5.0


class CacheUnavailable(Exception):  # noqa: N818 - reads as what happened
    """The second tier did not answer in time."""


class RemoteStore(Protocol):
    """Bytes by key, in a store that several gateways share."""

    async def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; None if there is none. Raises CacheUnavailable."""

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Keep a value for a time. Raises CacheUnavailable."""

    async def close(self) -> None:
        """Close the connections."""


class RemoteCache:
    """Entries in a second tier."""

    # The mutable state is the failures in a row, until when it rests, and what is counted.

    def __init__(
        self, store: RemoteStore, *, entry_bytes_max: int, clock: Callable[[], float]
    ) -> None:
        """Larger entries than `entry_bytes_max` stay in memory only."""
        self._store = store
        self._entry_bytes_max = entry_bytes_max
        self.clock = clock
        self._failures = 0
        self._rests_until_s = 0.0
        self.errors = self.hits = self.misses = 0

    @property
    def rests(self) -> bool:
        """Whether it is left alone after failures."""
        return self.clock() < self._rests_until_s

    async def get(self, key: bytes) -> Entry | None:
        """Return an entry; None if there is none, or the tier is away."""
        if self.rests:
            return None
        try:
            data = await self._store.get(key)
            entry = None if data is None else unpacked(data)
        except CacheUnavailable:
            self._failed()
            return None
        except ValueError:  # of another version, or damaged
            entry = None
        self._failures = 0
        if entry is None:
            self.misses += 1
        else:
            self.hits += 1
        return entry

    def takes(self, entry: Entry) -> bool:
        """Return whether an entry is small enough to be kept there."""
        return len(entry.body) <= self._entry_bytes_max

    async def put(self, key: bytes, entry: Entry, now_s: float) -> None:
        """Keep an entry until it dies."""
        if self.rests or not self.takes(entry):
            return
        try:
            await self._store.put(key, packed(entry), max(0.001, entry.dies_s - now_s))
        except CacheUnavailable:
            self._failed()
        else:
            self._failures = 0

    def _failed(self) -> None:
        self.errors += 1
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            self._failures = 0
            self._rests_until_s = self.clock() + REST_S

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()
