"""Examines the ledger: whether it answers, how fast, and whether it would forget."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.budgets.stores.registry import open_ledger
from tollway.gateway.doctor.finding import Finding, failure, ok, warning

SLOW_S = 0.01  # a healthy Redis in the same zone answers in a millisecond
KEEPING = "noeviction"
_LOST = "restore it from a backup, or see docs/budgets.md on a ledger that is lost"


async def examine(
    url: str, password: str | None, offsets_s: dict[str, float]
) -> tuple[Finding, ...]:
    """Return what there is to say of the ledger at an address, which is shown without a password.

    A ledger that is a server adds its clock's offset to `offsets_s`.
    """
    if url.startswith("memory:"):
        remedy = "use sqlite:///FILE, or Redis for several gateways"
        return (warning("ledger", "memory://: what was spent is forgotten on exit", remedy),)
    if url.startswith("sqlite:"):
        return tuple(
            await asyncio.to_thread(lambda: [*_file(Path(url.removeprefix("sqlite:///")))])
        )
    return await _server(url, password, offsets_s)


def _file(path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield ok("ledger", f"{path} will be created")
        return
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)
        with closing(connection):
            problems = [str(row[0]) for row in connection.execute("pragma quick_check(3)")]
    except sqlite3.Error as exc:
        yield failure("ledger", f"{path}: {exc}", _LOST)
        return
    if problems == ["ok"]:
        yield ok("ledger", f"{path}, {path.stat().st_size / 1e6:,.1f} MB, sound")
    else:
        yield failure("ledger", f"{path} is damaged: {'; '.join(problems)}", _LOST)


async def _server(
    url: str, password: str | None, offsets_s: dict[str, float]
) -> tuple[Finding, ...]:
    from tollway.gateway.budgets.stores.redis import RedisLedger  # noqa: PLC0415 - only with the extra

    ledger = open_ledger(url, password=password)
    assert isinstance(ledger, RedisLedger)
    try:
        await ledger.open()
        began_s = time.monotonic()
        told = await ledger.register([])
        took_s = time.monotonic() - began_s
        offsets_s["the ledger"] = told.now_s - time.time()
        options = await ledger.server_options("maxmemory-policy", "appendonly", "save")
    except LedgerUnavailable as exc:
        remedy = "check that it runs, ledger.url, the password and the network between"
        return (failure("ledger", f"does not answer: {exc}", remedy),)
    finally:
        await ledger.close()
    return (_pace(took_s), *_memory(options))


def _pace(took_s: float) -> Finding:
    seen = f"answers in {took_s * 1000:.1f} ms"
    if took_s <= SLOW_S:
        return ok("ledger", seen)
    remedy = "move it nearer, or raise timeout_ms in ledger.url (50 ms): later answers are lost"
    return warning("ledger", seen, remedy)


def _memory(options: dict[str, str]) -> Iterator[Finding]:
    """Yield whether the server keeps what it is given; it may not say so."""
    if options.get("maxmemory-policy", KEEPING) != KEEPING:
        seen = f"maxmemory-policy is {options['maxmemory-policy']}: budgets may be evicted"
        yield failure("ledger's memory", seen, f"set maxmemory-policy to {KEEPING}")
    if options.get("appendonly") == "no":
        kept = "only snapshots are kept" if options.get("save") else "nothing is kept"
        seen = f"{kept} over a restart; gateways report again what they have leased"
        yield warning("ledger's memory", seen, "set appendonly yes, appendfsync everysec")
