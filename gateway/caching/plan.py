"""What a route caches: the configuration, resolved, and what is counted of it."""

from collections import Counter
from dataclasses import dataclass, field

PREFIX = "cache:"
"""The beginning of the name of an arm that answers from the cache; the backend follows whose answer
it was."""

UNCACHED = "not_cacheable"
"""What a look-up comes to whose request has no key."""

LOOKUPS = ("hit", "stale", "joined", "miss", "bypass", UNCACHED)
STORES = ("stored", "refused", "too_large")


@dataclass(slots=True)
class CacheCounts:
    """The counts of one route, which a reload keeps."""

    lookups: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(LOOKUPS, 0)))
    stores: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(STORES, 0)))
    saved_nano: int = 0
    refreshes: int = 0


@dataclass(frozen=True, slots=True)
class CachePlan:
    """What one route caches, and for how long.

    `version` is part of every key: answers that were made under other settings are not found.
    `stale_s`: how long after `ttl_s` an answer may still be given while a fresh one is fetched.
    `early`: the factor of early expiry (XFetch), 0 for none. `is_public`: tenants share answers.
    `always`: requests that sample are cached too. `ignored`: members of a request that do not
    matter. `headers`: header fields of a request that do. `onward`: those that backends are sent,
    where tenants share answers; None for all.
    `join_s`: how long a request waits for the same one that is under way; 0 if it does not.
    `client_s`: how long clients and proxies may keep answers to GET; None if the gateway does not
    say.
    """

    version: bytes
    protocol: str
    ttl_s: float
    stale_s: float = 0.0
    early: float = 1.0
    is_public: bool = False
    always: bool = False
    ignored: frozenset[str] = frozenset()
    headers: frozenset[bytes] = frozenset()
    onward: frozenset[bytes] | None = None
    entry_bytes_max: int = 1 << 20
    join_s: float = 30.0
    client_s: int | None = None
    counts: CacheCounts = field(default_factory=CacheCounts, compare=False)
