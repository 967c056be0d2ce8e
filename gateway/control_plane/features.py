"""Feature endpoints: operators read, write and erase the features of entities over HTTP.

GET    /_tollway/features                            the groups, their tiers and what was counted
GET    /_tollway/features/{name}/{entity}            what is known of an entity
PUT    /_tollway/features/{name}/{entity}            {"values": {...}}: write it through all tiers
POST   /_tollway/features/{name}/{entity}/invalidate drop it from memory and Redis, everywhere
DELETE /_tollway/features/{name}/{entity}            erase it from all tiers and from this journal

Each of the last four is in the audit log, which names an entity by its pseudonym. Erasing is proved
by the reply: how many records each tier had, how many rows of the journal were overwritten, a
digest over their places and checksums, and how many rows a second reading still found.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.features.online.lookup import FeatureLookup
from tollway.gateway.features.online.model import SourceError
from tollway.gateway.features.online.stores import FeatureStores, NotWritable
from tollway.gateway.storage import audit_log, feature_rows
from tollway.gateway.storage.audit_log import Actor, AuditLog
from tollway.gateway.storage.journal import Journal

T = TypeVar("T")

PLACES_SHOWN = 100  # of the rows that were overwritten; the digest is over all of them


class FeatureEndpoints:
    """Feature endpoints for operators, over the gateway's groups."""

    def __init__(
        self, stores: FeatureStores, journal: Journal, folder: Path, audit: AuditLog
    ) -> None:
        """`folder` is the journal's."""
        self._stores = stores
        self._journal = journal
        self._folder = folder
        self._audit = audit

    def groups(self) -> dict[str, Any]:
        """Return the groups."""
        return {"features": [_described(*one) for one in self._stores.lookups.items()]}

    async def show(self, name: str, key: str, actor: Actor) -> dict[str, Any]:
        """Return what is known of an entity; HttpProblem if there is no such group."""
        about = self._about(name, key)
        await self._record("read features", actor, about)
        return await self._asked(lambda: self._stores.show(name, key))

    async def put(self, name: str, key: str, body: bytes, actor: Actor) -> dict[str, Any]:
        """Write an entity; HttpProblem if the values are not those that the group declares."""
        about = self._about(name, key)
        values = _values(body)
        await self._record("write features", actor, about)
        await self._asked(lambda: self._stores.put(name, key, values))
        return {"feature": name, "entity": about.partition("/")[2], "written": sorted(values)}

    async def invalidate(self, name: str, key: str, actor: Actor) -> dict[str, Any]:
        """Drop an entity from memory and Redis."""
        about = self._about(name, key)
        await self._record("invalidate features", actor, about)
        await self._asked(lambda: self._stores.invalidate(name, key))
        return {"feature": name, "entity": about.partition("/")[2], "invalidated": True}

    async def erase(self, name: str, key: str, actor: Actor) -> dict[str, Any]:
        """Erase an entity from all tiers and the journal, and return the proof."""
        about = self._about(name, key)
        digest = about.partition("/")[2]
        await self._record("erase features", actor, about)
        tiers = await self._asked(lambda: self._stores.erase(name, key))
        self._journal.flush()
        wanted = feature_rows.pseudonymous({name: digest})
        erased, remaining = await asyncio.to_thread(_erased, self._folder, wanted)
        rows = asdict(erased)
        rows["places"] = rows["places"][:PLACES_SHOWN]
        proof: dict[str, Any] = {"feature": name, "entity": digest, "tiers": tiers, "journal": rows}
        proof["source_erased"] = "source" in tiers
        proof["remaining"] = remaining
        summary = {**tiers, "rows": erased.rows_erased, "digest": erased.digest, "left": remaining}
        await self._record("erased features", actor, about, after=summary)
        return proof

    def _about(self, name: str, key: str) -> str:
        """Return `NAME/PSEUDONYM`; HttpProblem 404 if there is no such group."""
        lookup = self._stores.lookups.get(name)
        if lookup is None:
            known = ", ".join(self._stores.lookups) or "none"
            raise HttpProblem(404, "No features", f"there is no group {name!r}; there is {known}")
        return f"{name}/{lookup.digest(key)}"

    async def _record(
        self, act: str, actor: Actor, about: str, after: Mapping[str, Any] | None = None
    ) -> None:
        """Write an act into the audit log; HttpProblem 503, and nothing is done, if it cannot."""

        def write() -> None:
            self._audit.write(act, actor, audit_log.DONE, about=about, after=after)

        try:
            await asyncio.to_thread(write)
        except OSError as exc:
            why = f"the audit log cannot be written: {exc.strerror}; nothing was done"
            raise HttpProblem(503, "Audit log not writable", why) from exc

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await ask()
        except ValueError as exc:
            raise HttpProblem(422, "Bad values", str(exc)) from exc
        except NotWritable as exc:
            detail = f"{exc}; write it there, and then POST .../invalidate"
            raise HttpProblem(409, "Not writable", detail) from exc
        except (SourceError, TimeoutError) as exc:
            raise HttpProblem(503, "No answer", f"{exc or 'the time is over'}") from exc


def _erased(folder: Path, wanted: feature_rows.Wanted) -> tuple[feature_rows.Erasure, int]:
    """Erase rows, and once more those that were written meanwhile; return what is left."""
    erased = feature_rows.erase(folder, wanted)
    if feature_rows.remaining(folder, wanted):
        again = feature_rows.erase(folder, wanted)
        erased.rows_erased += again.rows_erased
        erased.places += again.places
        erased.digest += f"+{again.digest}"
    return erased, feature_rows.remaining(folder, wanted)


def _values(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except ValueError as exc:
        raise HttpProblem(400, "Bad values", f"the body is not JSON: {exc}") from exc
    values = document.get("values") if isinstance(document, dict) else None
    if not isinstance(values, dict):
        raise HttpProblem(400, "Bad values", 'write them like {"values": {"tier": "gold"}}')
    return values


def _described(name: str, lookup: FeatureLookup) -> dict[str, Any]:
    group, counts = lookup.group, lookup.counts
    return {
        "name": name,
        "version": group.version,
        "purpose": group.purpose,
        "values": [{"name": one.name, "type": one.kind} for one in group.features],
        "source": lookup.breaker.state(lookup.now_s()),
        "writable": lookup.source.is_writable,
        "memory_entities": len(lookup.memory),
        "answers": dict(counts.answers),
        "marks": dict(counts.marks),
        "queries": counts.queries,
        "failures": counts.failures,
        "early_renewals": counts.early,
        "pool": dict(lookup.source.gauges()),
    }
