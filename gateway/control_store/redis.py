"""The control store in Redis: the ledger's server, under keys of its own.

A document is a hash of its text and revision. Compare-and-set and leases are scripts, which Redis
runs atomically. Leases expire by Redis' own clock.
"""

import json
from collections.abc import Awaitable
from typing import Any

from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.budgets.stores.redis import KEY, RedisLedger
from tollway.gateway.control_store.protocol import Document, StoreUnavailable

_PUT = """
local present = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
if ARGV[2] ~= '' and present ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'document', ARGV[1], 'revision', present + 1)
return 1
"""
_LEASE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_SCANNED = 500  # keys looked at by one SCAN


class RedisControlStore:
    """Stores documents in Redis 6.2 or later."""

    # The mutable state is the client of its connection.

    def __init__(self, url: str, password: str | None = None) -> None:
        """`url`: as of the ledger."""
        self._server = RedisLedger(url, password)

    async def open(self) -> None:
        """Check that Redis answers."""
        await self._ask(self._server.client.ping())

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    async def get(self, key: str) -> tuple[Document, int] | None:
        """Return a document and its revision."""
        text, revision = await self._ask(
            self._server.client.hmget(_at(key), ["document", "revision"])
        )
        return None if text is None else (json.loads(text), int(revision))

    async def put(self, key: str, document: Document, revision: int) -> bool:
        """Replace a document that has this revision."""
        text = json.dumps(document)
        return bool(await self._run(_PUT, _at(key), text, str(revision)))

    async def write(self, key: str, document: Document) -> None:
        """Write a document."""
        await self._run(_PUT, _at(key), json.dumps(document), "")

    async def list(self, prefix: str) -> dict[str, Document]:
        """Return documents by key."""
        keys = sorted(await self._keys(prefix))
        found = {}
        for key in keys:
            present = await self.get(key)
            if present is not None:
                found[key] = present[0]
        return found

    async def delete(self, prefix: str) -> None:
        """Delete documents."""
        for key in await self._keys(prefix):
            await self._ask(self._server.client.delete(_at(key)))

    async def lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or renew a lease."""
        key = f"{KEY}:control-lease:{name}"
        return bool(await self._run(_LEASE, key, holder, str(max(int(ttl_s * 1000), 1))))

    async def _keys(self, prefix: str) -> set[str]:
        """Return the keys that begin with a prefix."""
        base = _at("")
        found = self._server.client.scan_iter(match=f"{_at(prefix)}*", count=_SCANNED)

        async def scan() -> set[str]:
            return {key.removeprefix(base) async for key in found}

        return set(await self._ask(scan()))

    async def _run(self, script: str, key: str, *words: str) -> Any:
        return await self._ask(self._server.client.eval(script, 1, key, *words))

    async def _ask(self, answer: Awaitable[Any] | Any) -> Any:
        try:
            return await self._server.ask(answer)
        except LedgerUnavailable as exc:
            raise StoreUnavailable(str(exc)) from exc


def _at(key: str) -> str:
    return f"{KEY}:control:{key}"
