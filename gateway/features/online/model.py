"""The values of features, how they are declared, and the ports of the stores that hold them."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from tollway.record import record

NUMBER, CATEGORY, TEXT = "number", "category", "text"
KINDS = (NUMBER, CATEGORY, TEXT)

FRESH, STALE, ABSENT, LATE, UNAVAILABLE, NO_ENTITY = (
    "fresh",
    "stale",
    "absent",
    "late",
    "unavailable",
    "no_entity",
)
MARKS = (FRESH, STALE, ABSENT, LATE, UNAVAILABLE, NO_ENTITY)
"""How the values of a request came about. All but the first two are the defaults: the source does
not know the entity, did not answer in time or at all, or the request names no entity."""

TEXT_CHARS_MAX = 4096  # of a value: more would fill the journal's rows
CATEGORY_CHARS_MAX = 256

Values = tuple[Any, ...]
"""The values of one entity, in the order in which they are declared."""

Found = Mapping[str, Mapping[str, Any]]
"""What a source knows: the values by name of each key that it has."""


class SourceError(Exception):
    """A source did not answer; the message says why."""


@record
class Feature:
    """One declared value. `low` and `high` are the range that is expected; None: any number."""

    name: str
    kind: str = NUMBER
    default: Any = None
    column: str = ""
    low: float | None = None
    high: float | None = None

    def read(self, value: Any) -> Any:
        """Return a source's value as this feature's kind; the default if it is none of that kind.

        Numbers are finite floats, or NaN where there is neither a value nor a default.
        """
        read = self.parsed(value)
        if read is not None:
            return read
        return math.nan if self.default is None and self.kind == NUMBER else self.default

    def parsed(self, value: Any) -> Any:
        """Return a value as this feature's kind; None if it is none of that kind."""
        if self.kind == NUMBER:
            if isinstance(value, bool | int | float):
                number = float(value)
                return number if math.isfinite(number) else None
            try:  # a Decimal, numpy's numbers
                number = float(value) if hasattr(value, "__float__") else math.nan
            except (TypeError, ValueError):
                return None
            return number if math.isfinite(number) else None
        if self.kind == CATEGORY:
            whole = isinstance(value, str | bool | int)
            return str(value)[:CATEGORY_CHARS_MAX] if whole else None
        return value[:TEXT_CHARS_MAX] if isinstance(value, str) else None


@record
class FeatureGroup:
    """Features that come from one source under one entity, and how long they hold.

    Times are in seconds. Values older than `ttl_s` are looked up again; until `stale_s` later they
    may serve if the source does not answer. What a source does not know is asked again after
    `negative_s`. `beta` scales how early a value that is often asked for is renewed (XFetch).
    `timeout_s` ends a look-up. `inputs` are the raw values, where a model makes the features of
    them; those are then what is written.
    """

    name: str
    features: tuple[Feature, ...]
    version: str = ""
    ttl_s: float = 300.0
    stale_s: float = 3600.0
    negative_s: float = 30.0
    beta: float = 1.0
    timeout_s: float = 1.0
    entries_max: int = 50_000
    eviction: str = "lru"
    batch_max: int = 256
    concurrency: int = 4
    purpose: str = ""
    inputs: tuple[Feature, ...] = ()

    def values(self, given: Mapping[str, Any]) -> Values:
        """Return the values that a source gave, or their defaults."""
        return tuple([one.read(given.get(one.name)) for one in self.features])

    @property
    def defaults(self) -> Values:
        """The values of an entity that nothing is known of."""
        return self.values({})


class Source(Protocol):
    """A store that is asked for the values of entities: the cold tier.

    `by_digest`: its keys are hashed. `is_writable`: `put` and `erase` may be called.
    """

    by_digest: bool
    is_writable: bool

    async def fetch(self, keys: Sequence[str], deadline_s: float) -> Found:
        """Return the values of the keys that it knows, by `deadline_s` on the event loop's clock.

        Raises SourceError, or TimeoutError, if it cannot say.
        """

    async def put(self, key: str, values: Mapping[str, Any]) -> None:
        """Store the values of an entity. Raises SourceError."""

    async def erase(self, key: str) -> int:
        """Remove an entity and return how many rows there were. Raises SourceError."""

    def gauges(self) -> Mapping[str, float]:
        """Return what its connections do, by name, for metrics."""

    async def aclose(self) -> None:
        """Close its connections."""


class WarmTier(Protocol):
    """A store of looked-up values that several gateways share: the warm tier."""

    async def get(self, version: str, keys: Sequence[str]) -> list[bytes | None]:
        """Return the records of a version under keys, in one round trip. Raises SourceError."""

    async def put(self, version: str, records: Sequence[tuple[str, bytes, float]]) -> None:
        """Store (key, record, seconds to keep it) unless a newer record is there. SourceError."""

    async def erase(self, keys: Sequence[str]) -> int:
        """Remove keys, in all versions, and return how many there were. Raises SourceError."""

    async def announce(self, message: bytes) -> None:
        """Send a message to all gateways that listen, this one too. Raises SourceError."""

    async def listen(self, heard: Callable[[bytes], None], missed: Callable[[], None]) -> None:
        """Pass on messages until cancelled; `missed` is called when some may have been lost."""

    async def aclose(self) -> None:
        """Close its connections."""


Digest = Callable[[str, str], str]
"""Returns the pseudonym of an entity of a group: (group, key)."""

Refresh = Callable[[], Awaitable[None]]
