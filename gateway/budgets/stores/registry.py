"""Maps an address to a ledger. To add a ledger, add a file here and a case below."""

import time
from urllib.parse import urlsplit

from tollway.gateway.budgets.protocol import Clock, Ledger
from tollway.gateway.budgets.stores.memory import MemoryLedger


def open_ledger(url: str, *, password: str | None = None, clock: Clock = time.time) -> Ledger:
    """Return the ledger at an address, not yet connected.

    Addresses: `memory://`, `sqlite:///FILE` (four slashes for an absolute path),
    `redis://HOST:PORT/DB`, `rediss://...`, `unix:///SOCKET`. `clock` supplies the time of day to
    ledgers without a clock of their own. Raises ValueError for another scheme, and ImportError if
    the extra is not installed.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return MemoryLedger(clock)
    if scheme == "sqlite":
        from tollway.gateway.budgets.stores.sqlite import SqliteLedger  # noqa: PLC0415 - if used

        return SqliteLedger(url.removeprefix("sqlite:///"), clock)
    if scheme in {"redis", "rediss", "unix"}:
        from tollway.gateway.budgets.stores.redis import RedisLedger  # noqa: PLC0415 - only with the extra

        return RedisLedger(url, password)
    raise ValueError(f"unknown ledger scheme {scheme!r}; use sqlite, redis, rediss, unix or memory")
