"""A scripted source of features, a warm tier in memory, and groups to look up with them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from tollway.backends.types import Call, Payload
from tollway.gateway.features.online import entities
from tollway.gateway.features.online.join import Joined, Member, Onward, RouteFeatures, Waiting
from tollway.gateway.features.online.lookup import FeatureLookup
from tollway.gateway.features.online.model import Feature, FeatureGroup, Found, SourceError
from tollway.gateway.features.online.records import TIME_CHARS

USER = FeatureGroup(
    "user",
    (
        Feature("spend", "number", 0.0),
        Feature("tier", "category", "free"),
        Feature("note", "text", ""),
    ),
    version="v1",
    ttl_s=60.0,
    stale_s=600.0,
    negative_s=5.0,
)


class ScriptedSource:
    """Knows some entities; may be slow or broken, and counts what it is asked."""

    def __init__(
        self,
        known: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        delay_s: float = 0.0,
        by_digest: bool = False,
        is_writable: bool = True,
    ) -> None:
        self.known = dict(known or {})
        self.delay_s = delay_s
        self.by_digest = by_digest
        self.is_writable = is_writable
        self.broken = False
        self.asked: list[list[str]] = []
        self.closed = False

    async def fetch(self, keys: Sequence[str], deadline_s: float) -> Found:
        self.asked.append(list(keys))
        found = {key: self.known[key] for key in keys if key in self.known}  # as it is now
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.broken:
            raise SourceError("broken")
        return found

    async def put(self, key: str, values: Mapping[str, Any]) -> None:
        if self.broken:
            raise SourceError("broken")
        self.known[key] = values

    async def erase(self, key: str) -> int:
        return int(self.known.pop(key, None) is not None)

    def gauges(self) -> Mapping[str, float]:
        return {}

    async def aclose(self) -> None:
        self.closed = True


class MemoryWarmTier:
    """A warm tier in a dict, which several processes of a test may share."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, bytes]] = {}
        self.broken = False
        self.listeners: list[Callable[[bytes], None]] = []

    async def get(self, version: str, keys: Sequence[str]) -> list[bytes | None]:
        self._check()
        return [self.records.get(key, {}).get(version) for key in keys]

    async def put(self, version: str, records: Sequence[tuple[str, bytes, float]]) -> None:
        self._check()
        for key, record, _ in records:
            old = self.records.setdefault(key, {}).get(version, b"")
            if old[:TIME_CHARS] <= record[:TIME_CHARS]:
                self.records[key][version] = record

    async def erase(self, keys: Sequence[str]) -> int:
        self._check()
        return sum(self.records.pop(key, None) is not None for key in keys)

    async def announce(self, message: bytes) -> None:
        self._check()
        for heard in self.listeners:
            heard(message)

    async def listen(self, heard: Callable[[bytes], None], missed: Callable[[], None]) -> None:
        self.listeners.append(heard)
        missed()
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        pass

    def _check(self) -> None:
        if self.broken:
            raise SourceError("broken")


def lookup(
    source: Any,
    group: FeatureGroup = USER,
    warm: Any = None,
    rng: Random | None = None,
    pepper: str = "p",
) -> FeatureLookup:
    """Return the look-ups of a group on the running loop's clock."""
    clock = asyncio.get_running_loop().time
    return FeatureLookup(
        group,
        source,
        digest=entities.pseudonyms(pepper),
        clock=clock,
        wall=lambda: 1e9 + clock(),
        rng=rng or Random(1),
        warm=warm,
    )


def call(
    user: str | None = "ann", tenant: str = "t", body: bytes = b"{}", data: Any = None
) -> Call:
    """Return a call about a user."""
    headers = [] if user is None else [(b"x-user-id", user.encode())]
    return Call(b"POST", b"/", headers, body, Payload(data if data is not None else {}), "", tenant)


def route(
    *lookups: FeatureLookup, limit_s: float = 0.01, onward: Onward | None = None
) -> RouteFeatures:
    """Return what a route joins, by the header `x-user-id`."""
    read = entities.entity("$headers.x-user-id")
    return RouteFeatures([Member(one, read, onward or Onward()) for one in lookups], limit_s)


async def joined(route: RouteFeatures, one: Call, deadline_s: float = 1e9) -> Joined:
    """Return a call's values, waiting for them if need be."""
    found = route.join(one, asyncio.get_running_loop().time())
    return await found.joined(deadline_s) if isinstance(found, Waiting) else found
