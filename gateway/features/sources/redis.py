"""The warm tier: Redis, which all gateways share, and over which they tell what has changed.

Reads and writes go out in one pipeline. An entity is a hash with a field for each version of its
features, so that gateways before and after a change of version share it. A record replaces one that
is there only if it is newer: a look-up that began before an entity was written must not undo the
write.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tollway.gateway.features.online.model import SourceError
from tollway.gateway.features.online.records import TIME_CHARS

CHANNEL = "tollway:features"
TIMEOUT_S = 5.0  # of operators' changes; a look-up gives up long before
CONNECTIONS = 16
AGAIN_S = 1.0  # between two attempts to listen
PING_S = 10.0  # a listener that hears nothing for so long asks whether the connection still stands
SILENT_S = 2.5 * PING_S  # two pings

_PUT = f"""
local old = redis.call('HGET', KEYS[1], ARGV[1])
local time = string.sub(ARGV[2], 1, {TIME_CHARS})
if old and string.sub(old, 1, {TIME_CHARS}) > time then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


class RedisTier:
    """Stores records in Redis 6.2 or later."""

    # The mutable state is the client's connections.

    def __init__(self, url: str, password: str | None = None) -> None:
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "decode_responses": False}
        if password is not None:
            options["password"] = password
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            **options,
        )
        self._redis = Redis.from_pool(pool)
        self._listener = Redis.from_url(url, health_check_interval=PING_S, **options)
        self._put = self._redis.register_script(_PUT)

    async def get(self, version: str, keys: Sequence[str]) -> list[bytes | None]:
        """Return the records of a version under keys. Raises SourceError."""
        return list(await self._ask(self._get(version, keys)))

    async def _get(self, version: str, keys: Sequence[str]) -> list[bytes | None]:
        if len(keys) == 1:
            one: bytes | None = await cast(Any, self._redis.hget(keys[0], version))
            return [one]
        async with self._redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hget(key, version)
            found: list[bytes | None] = await pipe.execute()
        return found

    async def put(self, version: str, records: Sequence[tuple[str, bytes, float]]) -> None:
        """Store (key, record, seconds to keep it) unless a newer one is there. SourceError."""
        await self._ask(self._put_all(version, records))

    async def _put_all(self, version: str, records: Sequence[tuple[str, bytes, float]]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, record, keep_s in records:
                kept_ms = max(1, round(keep_s * 1000))
                await self._put(keys=[key], args=[version, record, kept_ms], client=pipe)
            await pipe.execute()

    async def erase(self, keys: Sequence[str]) -> int:
        """Remove keys and return how many there were. Raises SourceError."""
        return int(await self._ask(self._redis.delete(*keys)))

    async def announce(self, message: bytes) -> None:
        """Send a message to all gateways that listen. Raises SourceError."""
        await self._ask(self._redis.publish(CHANNEL, message))

    async def listen(self, heard: Callable[[bytes], None], missed: Callable[[], None]) -> None:
        """Pass on messages until cancelled; `missed` is called when some may have been lost."""
        while True:
            subscribed = self._listener.pubsub()
            try:
                await subscribed.subscribe(CHANNEL)
                await _heard(subscribed, heard, missed)
            except (exceptions.RedisError, OSError, TimeoutError):
                await asyncio.sleep(AGAIN_S)
            finally:
                await cast(Any, subscribed).aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._listener.aclose()

    async def _ask(self, answer: Any) -> Any:
        try:
            return await answer
        except (exceptions.RedisError, OSError) as exc:
            raise SourceError(f"Redis: {type(exc).__name__}: {exc}") from exc


async def _heard(
    subscribed: Any, heard: Callable[[bytes], None], missed: Callable[[], None]
) -> None:
    """Pass on what one subscription brings, until its connection breaks.

    TimeoutError if Redis has said nothing for SILENT_S, not even in reply to a ping: a firewall
    that drops a connection tells neither end, and TCP would notice after a quarter of an hour.
    """
    clock = asyncio.get_running_loop().time
    heard_s = clock()
    while True:
        message = await subscribed.get_message(timeout=PING_S)
        if message is None:
            if clock() - heard_s > SILENT_S:
                raise TimeoutError("Redis does not answer a ping")
            await subscribed.ping()  # raises if nobody is there
            continue
        heard_s = clock()
        if message["type"] == "subscribe":
            missed()  # from here on nothing is missed: Redis has confirmed it
        elif message["type"] == "message":
            heard(message["data"])
