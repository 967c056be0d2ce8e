"""The control store in Redis: the ledger's server, under keys of its own.

A folder is a hash with its documents, each as its revision, a space and its JSON text; so reading
or deleting a folder is one command, whatever else the server holds, and touches one shard of a
cluster. Compare-and-set and leases are scripts, which Redis runs atomically. Leases expire by
Redis' own clock.

Earlier versions had a hash for each document, under `tollway:control:KEY`. Such a document is
copied with its revision once it is asked for, and stays where it is for gateways that are not
upgraded yet. In a cluster the two keys may be on two shards, so no script could have both; the
copy is atomic because it never replaces anything.
"""

import json
from collections.abc import Awaitable
from typing import Any

from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.budgets.stores.redis import KEY, RedisLedger
from tollway.gateway.control_store.protocol import (
    Document,
    StoreUnavailable,
    parsed,
    text_of,
)

_PUT = """
local present = redis.call('HGET', KEYS[1], ARGV[1])
local revision = present and tonumber(string.match(present, '^%d+')) or 0
if ARGV[3] ~= '' and revision ~= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', revision + 1) .. ARGV[2])
return 1
"""
_LEASE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


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
        folder, name = _at(key)
        found = await self._ask(self._server.client.hget(folder, name))
        if found is None and await self._carry_over(key):
            found = await self._ask(self._server.client.hget(folder, name))
        if found is None:
            return None
        revision, _, text = found.partition(" ")
        return (await parsed({key: text}))[key], int(revision)

    async def put(self, key: str, document: Document, revision: int) -> bool:
        """Replace a document that has this revision."""
        folder, name = _at(key)
        if revision == 0:  # whoever knows a revision has read the document, so it was copied
            await self._carry_over(key)
        return bool(await self._run(_PUT, folder, name, text_of(document), str(revision)))

    async def write(self, key: str, document: Document) -> None:
        """Write a document."""
        folder, name = _at(key)
        await self._run(_PUT, folder, name, text_of(document), "")

    async def list(self, folder: str) -> dict[str, Document]:
        """Return a folder's documents by key."""
        found = await self._ask(self._server.client.hgetall(_folder(folder)))
        base = f"{folder}/" if folder else ""
        return await parsed(
            {f"{base}{name}": found[name].partition(" ")[2] for name in sorted(found)}
        )

    async def delete(self, folder: str) -> None:
        """Delete a folder's documents."""
        await self._ask(self._server.client.unlink(_folder(folder)))

    async def remove(self, key: str) -> None:
        """Delete a document."""
        folder, name = _at(key)
        await self._ask(self._server.client.unlink(_old(key)))  # first, or it would come back
        await self._ask(self._server.client.hdel(folder, name))

    async def lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or renew a lease."""
        key = f"{KEY}:control-lease:{name}"
        return bool(await self._run(_LEASE, key, holder, str(max(int(ttl_s * 1000), 1))))

    async def _carry_over(self, key: str) -> bool:
        """Copy a document of an earlier version, unless there is one; whether it had one."""
        kept = self._server.client.hmget(_old(key), ["document", "revision"])
        text, revision = await self._ask(kept)
        if text is None or revision is None:
            return False
        folder, name = _at(key)
        # Earlier versions wrote NaN, which is no JSON: it becomes null.
        copied = f"{int(revision)} {text_of(json.loads(text))}"
        await self._ask(self._server.client.hsetnx(folder, name, copied))
        return True

    async def _run(self, script: str, key: str, *words: str) -> Any:
        return await self._ask(self._server.client.eval(script, 1, key, *words))

    async def _ask(self, answer: Awaitable[Any] | Any) -> Any:
        try:
            return await self._server.ask(answer)
        except LedgerUnavailable as exc:
            raise StoreUnavailable(str(exc)) from exc


def _folder(folder: str) -> str:
    return f"{KEY}:control-folder:{folder}"


def _at(key: str) -> tuple[str, str]:
    """Return the hash of a document and its field there."""
    folder, _, name = key.rpartition("/")
    return _folder(folder), name


def _old(key: str) -> str:
    """Return the hash that earlier versions kept a document in."""
    return f"{KEY}:control:{key}"
