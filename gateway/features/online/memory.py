"""The hot tier: the entities that were asked for last or most often, in this process' memory.

Entities that a source does not know have a table of their own: whoever sends keys that nobody has
cannot push out the values of others.
"""

import math
from collections.abc import MutableMapping
from typing import Any

from cachetools import LFUCache, LRUCache

from tollway.gateway.features.online.counts import COLD
from tollway.gateway.features.online.model import NUMBER, TEXT, FeatureGroup, Values

EVICTIONS = ("lru", "lfu")
ABSENT_MAX = 10_000  # entities known to be unknown; 2 MB
NEVER_EARLY = 20.0  # exp(-20): the largest draw of XFetch worth a look


class Entry:
    """The values of one entity, as one look-up found them; `values` is None if it was unknown.

    `read_s`: when the source was asked, and `expires_s`, both on the event loop's clock. `early_s`:
    before it, an early renewal is out of the question. `delta_s`: how long the look-up took.
    `tier`: which tier answered this process.
    """

    __slots__ = (
        "categories",
        "delta_s",
        "digest",
        "early_s",
        "expires_s",
        "numbers",
        "read_s",
        "texts",
        "tier",
        "values",
    )

    def __init__(
        self,
        group: FeatureGroup,
        digest: str,
        values: Values | None,
        read_s: float,
        delta_s: float = 0.0,
        *,
        tier: str = COLD,
    ) -> None:
        self.digest = digest
        self.values = values
        self.read_s = read_s
        self.delta_s = delta_s
        self.tier = tier
        self.expires_s = read_s + (group.negative_s if values is None else group.ttl_s)
        self.early_s = self.expires_s - NEVER_EARLY * group.beta * delta_s
        shown = group.defaults if values is None else values
        pairs = list(zip(group.features, shown, strict=True))
        self.numbers = [value for one, value in pairs if one.kind == NUMBER]
        self.texts = [value for one, value in pairs if one.kind == TEXT and value]
        self.categories = [
            f"{group.name}.{one.name}={value}"
            for one, value in pairs
            if one.kind not in (NUMBER, TEXT)
        ]
        if values is None:  # defaults mislead unless the policy can see that they are
            self.categories.append(f"{group.name}=?")

    def is_early(self, now_s: float, beta: float, draw: float) -> bool:
        """Return whether to renew it now, before it expires; `draw` is uniform in (0, 1].

        XFetch (Vattani, Chierichetti, Lowenstein 2015): the more often an entity is asked for, and
        the longer its look-up takes, the earlier one of the requests renews it, mostly only one.
        """
        return now_s - self.delta_s * beta * math.log(draw) >= self.expires_s


class MemoryTier:
    """The hot tier of one group."""

    # The mutable state is the two tables, and which key has which pseudonym.
    def __init__(self, group: FeatureGroup) -> None:
        table: type[MutableMapping[str, Entry]] = LFUCache if group.eviction == "lfu" else LRUCache
        make: Any = table
        self._known: MutableMapping[str, Entry] = make(group.entries_max)
        self._absent: MutableMapping[str, Entry] = LRUCache(min(ABSENT_MAX, group.entries_max))
        self._keys: dict[str, str] = {}
        self._keys_max = 2 * group.entries_max + ABSENT_MAX

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Entry | None:
        """Return an entity's entry, expired or not."""
        entry = self._known.get(key)
        return self._absent.get(key) if entry is None else entry

    def put(self, key: str, entry: Entry) -> None:
        """Store an entry."""
        (here, there) = (self._known, self._absent)
        if entry.values is None:
            here, there = there, here
        there.pop(key, None)
        here[key] = entry
        self._keys[entry.digest] = key
        if len(self._keys) > self._keys_max:
            self._keys = {
                one.digest: name
                for table in (self._known, self._absent)
                for name, one in table.items()
            }

    def key_of(self, digest: str) -> str | None:
        """Return the key of a pseudonym, if it was stored."""
        return self._keys.get(digest)

    def erase(self, digest: str) -> bool:
        """Remove an entity by its pseudonym; return whether it was there."""
        key = self._keys.pop(digest, None)
        if key is None:
            return False
        known = self._known.pop(key, None)
        return self._absent.pop(key, known) is not None

    def expire(self, now_s: float) -> None:
        """Let all entries have expired: they serve only if the source does not answer."""
        for table in (self._known, self._absent):
            for entry in table.values():
                entry.expires_s = entry.early_s = min(entry.expires_s, now_s)
