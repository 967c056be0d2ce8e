"""The cache of one process: entries in memory, bounded in bytes and in number.

The least recently used entry goes first, and it is one of the tenant that holds the most: a tenant
that asks for many different things evicts its own entries once it holds more than its equal share.
"""

from collections import OrderedDict
from collections.abc import Iterator

from tollway.gateway.caching.entry import Entry


class MemoryCache:
    """Entries by key."""

    # The mutable state is the entries of each tenant, least recently used first, and their sizes.

    def __init__(self, *, bytes_max: int, entries_max: int) -> None:
        """Hold at most `entries_max` entries of at most `bytes_max` together."""
        self.bytes_max = bytes_max
        self.entries_max = entries_max
        self.size_bytes = 0
        self.evicted = 0
        self._entries: dict[bytes, Entry] = {}
        self._order: dict[str, OrderedDict[bytes, None]] = {}
        self._sizes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def held_by(self, tenant: str) -> int:
        """Return the bytes of a tenant's entries."""
        return self._sizes.get(tenant, 0)

    def get(self, key: bytes) -> Entry | None:
        """Return an entry, however old; None if there is none (0.3 us)."""
        entry = self._entries.get(key)
        if entry is not None:
            self._order[entry.tenant].move_to_end(key)
        return entry

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep an entry in place of the one before; evict others above the bounds."""
        self.drop(key)
        size = entry.size_bytes
        if size > self.bytes_max:
            return
        self._entries[key] = entry
        self._order.setdefault(entry.tenant, OrderedDict())[key] = None
        self._sizes[entry.tenant] = self._sizes.get(entry.tenant, 0) + size
        self.size_bytes += size
        while self.size_bytes > self.bytes_max or len(self._entries) > self.entries_max:
            self._evict(entry.tenant)

    def drop(self, key: bytes) -> None:
        """Forget an entry, if there is one."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        tenant, size = entry.tenant, entry.size_bytes
        del self._order[tenant][key]
        self.size_bytes -= size
        self._sizes[tenant] -= size
        if not self._order[tenant]:
            del self._order[tenant], self._sizes[tenant]

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()
        self._order.clear()
        self._sizes.clear()
        self.size_bytes = 0

    def _evict(self, tenant: str) -> None:
        """Forget the least recently used entry of the tenant that puts, or of the largest."""
        if self._sizes[tenant] * len(self._sizes) < self.size_bytes:  # below its equal share
            tenant = max(self._sizes, key=self._sizes.__getitem__)
        self.drop(next(iter(self._order[tenant])))
        self.evicted += 1
