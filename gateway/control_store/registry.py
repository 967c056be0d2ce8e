"""Maps a ledger's address to the control store beside it."""

import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tollway.gateway.control_store.memory import MemoryControlStore
from tollway.gateway.control_store.protocol import ControlStore


def open_control_store(
    url: str, *, password: str | None = None, clock: Callable[[], float] = time.time
) -> ControlStore:
    """Return the control store at a ledger's address, not yet connected.

    Raises ValueError for an unknown scheme, and ImportError if the extra is not installed.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return MemoryControlStore(clock)
    if scheme == "sqlite":
        from tollway.gateway.control_store.sqlite import (  # noqa: PLC0415 - only if used
            SqliteControlStore,
        )

        return SqliteControlStore(url.removeprefix("sqlite:///"), clock)
    if scheme in {"redis", "rediss", "unix"}:
        from tollway.gateway.control_store.redis import (  # noqa: PLC0415 - only with the extra
            RedisControlStore,
        )

        return RedisControlStore(url, password)
    raise ValueError(f"unknown ledger scheme {scheme!r}; use sqlite, redis, rediss, unix or memory")
