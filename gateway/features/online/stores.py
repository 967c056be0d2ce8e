"""All groups of one gateway: how they open and close, and how their entities are changed.

A change goes to the source first, then to the warm tier, then to the memory of this process, and is
announced to all others, which drop what they have of the entity.
"""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from tollway.gateway.features.online import records
from tollway.gateway.features.online.join import finite
from tollway.gateway.features.online.lookup import FeatureLookup
from tollway.gateway.features.online.memory import Entry
from tollway.gateway.features.online.model import SourceError, WarmTier

log = logging.getLogger(__name__)

ERASED = "erased"
"""What an announcement says more of an entity that is to leave nothing behind."""

Seen = Callable[[], Mapping[str, Sequence[str]]]
"""Returns the pseudonyms of each group's most seen entities, most seen first; may take a while."""


class NotWritable(Exception):  # noqa: N818 - reads as what happened
    """The group's source is written by others; the message says so."""


class FeatureStores:
    """The groups of one process."""

    # The mutable state is the lookups by name, which a reload replaces, and the listening task.

    def __init__(self, warm: WarmTier | None = None) -> None:
        self.lookups: dict[str, FeatureLookup] = {}
        self.warm = warm
        self._origin = secrets.token_hex(8)
        self._listening: asyncio.Task[None] | None = None

    def revise(self, lookups: Mapping[str, FeatureLookup]) -> list[FeatureLookup]:
        """Take the groups of a configuration; return those that are to be closed."""
        gone = [one for one in self.lookups.values() if one not in lookups.values()]
        self.lookups = dict(lookups)
        return gone

    async def open(self, seen: Seen | None = None) -> None:
        """Listen for changes, and load the entities that were seen most."""
        if self.warm is not None and self._listening is None:
            self._listening = asyncio.create_task(self.warm.listen(self._heard, self._missed))
        if seen is not None and self.lookups:
            await self.warm_up(await asyncio.to_thread(seen))

    async def warm_up(self, seen: Mapping[str, Sequence[str]]) -> int:
        """Load entities of each group; return how many were found. A failure is logged."""
        found = 0
        for name, digests in seen.items():
            lookup = self.lookups.get(name)
            if lookup is None:
                continue
            try:
                found += await lookup.warm_up(digests)
            except (SourceError, TimeoutError) as exc:
                log.warning("the features of %s were not warmed: %s", name, exc or "timeout")
        return found

    async def warm_ahead(self, wall_s: float) -> int:
        """Load the entities that the hour ahead asks for, if it begins soon; return how many."""
        found = 0
        for name, lookup in self.lookups.items():
            try:
                found += await lookup.warm_ahead(wall_s)
            except (SourceError, TimeoutError) as exc:
                log.warning("the features of %s were not warmed: %s", name, exc or "timeout")
        return found

    def save(self) -> bytes:
        """Return which entities each hour asks for, by group."""
        hours = {name: one.hours.save().decode() for name, one in self.lookups.items()}
        return json.dumps(hours).encode()

    def load(self, state: bytes) -> None:
        """Load what `save` returned, for the groups that there are. ValueError if damaged."""
        for name, hours in json.loads(state).items():
            if name in self.lookups:
                self.lookups[name].hours.load(hours.encode())

    async def aclose(self) -> None:
        """Close all groups and the warm tier."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None
        for lookup in self.lookups.values():
            await lookup.aclose()
        if self.warm is not None:
            await self.warm.aclose()

    # ------------------------------------------------------------------ changes

    async def show(self, name: str, key: str) -> dict[str, Any]:
        """Return what is known of an entity, asking the source if need be. Raises SourceError."""
        lookup = self.lookups[name]
        now_s = lookup.now_s()
        entry = lookup.peek(key, now_s)
        if entry is None:
            got = lookup.want(key, "", now_s)
            if isinstance(got, asyncio.Future):
                await asyncio.wait([got], timeout=lookup.group.timeout_s)
                got = got.result() if got.done() else None
            entry = got or lookup.stale(key, now_s)
        if entry is None:
            raise SourceError("the source does not answer")
        group = lookup.group
        values = None
        if entry.values is not None:
            pairs = zip(group.features, entry.values, strict=True)
            values = {one.name: finite(value) for one, value in pairs}
        return {
            "feature": name,
            "entity": entry.digest,
            "version": group.version,
            "age_s": round(lookup.now_s() - entry.read_s, 3),
            "values": values,
        }

    def _of(self, name: str) -> list[FeatureLookup]:
        """Return a group's look-ups: its own first, then that of a version that is tried."""
        own = self.lookups[name]
        tried = [one for one in self.lookups.values() if one.group.name == name]
        return [own, *[one for one in tried if one is not own]]

    async def put(self, name: str, key: str, values: Mapping[str, Any]) -> None:
        """Write an entity through all tiers.

        Raises KeyError without such a group, ValueError for values that it does not declare,
        NotWritable and SourceError.
        """
        lookup = self.lookups[name]
        group, source = lookup.group, lookup.source
        checked(lookup, values)
        if not source.is_writable:
            raise NotWritable(f"the source of {name} is written by others")
        digest = lookup.digest(key)
        name_there, given = digest if source.by_digest else key, values
        await source.put(name_there, values)
        now_s = lookup.now_s()
        if group.inputs:  # the source has raw values, and a model makes the features of them
            given = (await source.fetch([name_there], now_s + group.timeout_s)).get(name_there, {})
        entry = Entry(group, digest, group.values(given), now_s)
        lookup.written(key, entry)
        await lookup.share(entry)
        for other in self._of(name)[1:]:
            await other.bar(digest)
            other.forget(digest)
        await self._announce(name, digest)

    async def invalidate(self, name: str, key: str) -> None:
        """Drop an entity from memory and the warm tier, here and elsewhere. Raises KeyError."""
        lookup = self.lookups[name]
        digest = lookup.digest(key)
        try:
            if self.warm is not None:  # first: what is looked up there meanwhile is forgotten too
                await self.warm.erase([records.key(lookup.group, digest)])
                for one in self._of(name):
                    await one.bar(digest)
        finally:
            for one in self._of(name):
                one.forget(digest)
        await self._announce(name, digest)

    async def erase(self, name: str, key: str) -> dict[str, int]:
        """Remove an entity from all tiers; return how many records each had.

        If one tier fails, the entity is removed from all others nevertheless, and the first failure
        is raised at the end: SourceError or TimeoutError.
        """
        lookup = self.lookups[name]
        digest = lookup.digest(key)
        erased: dict[str, int] = {}
        failed: list[Exception] = []
        all_of_it = self._of(name)

        async def attempt(step: Awaitable[int | None]) -> int:
            try:
                return await step or 0
            except Exception as exc:
                failed.append(exc)
                return 0

        try:
            for one in all_of_it:
                source = one.source
                if source.is_writable:
                    count = await attempt(source.erase(digest if source.by_digest else key))
                    erased["source"] = erased.get("source", 0) + count
            if self.warm is not None:
                warm_keys = [records.key(lookup.group, digest)]
                erased["redis"] = await attempt(self.warm.erase(warm_keys))
                for one in all_of_it:
                    await attempt(one.bar(digest))
        finally:
            erased["memory"] = sum([int(one.forget(digest)) for one in all_of_it])
            for one in all_of_it:
                one.hours.forget(digest)
        await attempt(self._announce(name, digest, is_erased=True))
        for exc in failed[1:]:
            log.warning("erasing an entity of %s failed elsewhere too: %s", name, exc or "timeout")
        if failed:
            raise failed[0]
        return erased

    async def _announce(self, name: str, digest: str, *, is_erased: bool = False) -> None:
        if self.warm is not None:
            message = [self._origin, name, digest, *([ERASED] if is_erased else [])]
            await self.warm.announce(orjson.dumps(message))

    def _heard(self, message: bytes) -> None:
        """Drop what another process has changed."""
        with contextlib.suppress(ValueError, TypeError):
            origin, name, digest, *more = orjson.loads(message)
            if origin != self._origin and name in self.lookups:
                for lookup in self._of(name):
                    lookup.forget(digest)
                    if ERASED in more:
                        lookup.hours.forget(digest)

    def _missed(self) -> None:
        """Trust nothing that is in memory: announcements may have been lost."""
        for lookup in self.lookups.values():
            lookup.distrust()


def checked(lookup: FeatureLookup, values: Mapping[str, Any]) -> None:
    """Raise ValueError if values are not those that a group declares."""
    known = {one.name: one for one in lookup.group.inputs or lookup.group.features}
    for name, value in values.items():
        feature = known.get(name)
        if feature is None:
            raise ValueError(f"{name!r} is not declared; write one of {', '.join(known)}")
        if value is not None and feature.parsed(value) is None:
            raise ValueError(f"{name} must be a {feature.kind}")
