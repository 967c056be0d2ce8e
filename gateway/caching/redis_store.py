"""The second tier in Redis: one key per answer, with Redis' own expiry.

What bounds it is Redis' `maxmemory` with `allkeys-lru` or `volatile-ttl`. Each key stands alone, so
that a Redis Cluster spreads them over its shards.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tollway.gateway.caching.remote import CacheUnavailable

TIMEOUT_S = 0.02  # a healthy Redis answers in 0.2 ms; beyond, a backend may as well be asked
CONNECTIONS = 16
KEY = "tollway:answer:"
FLIGHT = "tollway:flight:"

_CLAIM = """
local found = redis.call('GET', KEYS[1])
if found then return found end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_END = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
return 1
"""


class RedisStore:
    """Answers in Redis 6.2 or later, or in a Redis Cluster."""

    # The mutable state is the client's connections.

    def __init__(self, url: str, password: str | None = None) -> None:
        """Create a client from a redis-py URL, which may have two further query options.

        - `timeout_ms=20`: the timeout.
        - `cluster=1`: the address is one of a Redis Cluster's.
        """
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        timeout_s = float(options.pop("timeout_ms", TIMEOUT_S * 1000)) / 1000
        is_cluster = options.pop("cluster", "0") not in ("0", "false", "")
        query = "&".join(f"{name}={quote(value)}" for name, value in options.items())
        address = urlunsplit(parts._replace(query=query))
        how: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
        }
        if password is not None:
            how["password"] = password
        self._within_s = 2 * timeout_s  # with the wait for a connection
        # A pool of one Redis lets callers wait for a connection; the client of a cluster refuses.
        self._in_turn = asyncio.Semaphore(CONNECTIONS) if is_cluster else contextlib.nullcontext()
        self._redis: Any
        if is_cluster:
            self._redis = RedisCluster.from_url(address, max_connections=CONNECTIONS, **how)
        else:
            pool = BlockingConnectionPool.from_url(
                address, max_connections=CONNECTIONS, timeout=timeout_s, **how
            )
            self._redis = Redis.from_pool(pool)

    async def get(self, key: bytes) -> bytes | None:
        """Return the value of a key; see the port."""
        value: bytes | None = await self._ask(self._redis.get, KEY + key.hex())
        return value

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Keep a value; see the port."""
        await self._ask(self._redis.set, KEY + key.hex(), value, px=_ms(ttl_s))

    async def claim(self, key: bytes, token: bytes, life_s: float) -> bytes | None:
        """Write the record of a flight if there is none; see `shared_flights`."""
        found: bytes | None = await self._eval(_CLAIM, key, token, _ms(life_s))
        return found

    async def renew(self, key: bytes, token: bytes, life_s: float) -> bool:
        """Let the record of a flight live on; see `shared_flights`."""
        return bool(await self._eval(_RENEW, key, token, round(life_s * 1000)))

    async def end(self, key: bytes, token: bytes, result: bytes, life_s: float) -> None:
        """Replace the record of a flight by its result; see `shared_flights`."""
        await self._eval(_END, key, token, _ms(life_s), result)

    async def _eval(self, script: str, key: bytes, *arguments: bytes | int) -> Any:
        return await self._ask(self._redis.eval, script, 1, FLIGHT + key.hex(), *arguments)

    async def _ask(self, command: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Send a command. Raises CacheUnavailable."""
        try:
            async with asyncio.timeout(self._within_s), self._in_turn:
                return await command(*arguments, **options)
        except (exceptions.RedisError, OSError, TimeoutError) as exc:
            raise CacheUnavailable(f"{type(exc).__name__}: {exc}") from exc

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
