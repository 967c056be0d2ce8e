"""Says which store an address means, so that two spellings of one store are found to be one.

    sqlite:///a.db, sqlite:///./x/../a.db, sqlite:////srv/a.db    the file, links followed
    redis://localhost, redis://127.0.0.1:6379/0, rediss://[::1]   this machine, port, database
    unix:///run/redis.sock?db=1                                   the socket, database

Passwords and options such as `timeout_ms` change nothing. Names of other hosts are compared as they
are written: a configuration is checked without asking the network.
"""

import ipaddress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REDIS_PORT = 6379
THIS_MACHINE = "this machine"


def ledger_identity(url: Any, folder: Path) -> tuple[Any, ...] | None:
    """Return what a ledger's address means; None if no other process can mean the same.

    Relative paths start at `folder`. What is no address is compared as it is.
    """
    try:
        parts = urlsplit(str(url))
        host, port = parts.hostname, parts.port
    except ValueError:
        return ("unknown", str(url))
    options = parse_qs(parts.query)
    database = _database(options.get("db", [""])[-1])
    if parts.scheme == "memory":
        return None
    if parts.scheme == "sqlite":
        return ("sqlite", path_identity(parts.path.removeprefix("/"), folder))
    if parts.scheme == "unix":
        return ("redis", path_identity(unquote(parts.path), folder), database)
    if parts.scheme in {"redis", "rediss"}:
        if path := parts.path.strip("/"):
            database = _database(path)
        sentinel = options.get("sentinel", [""])[-1]
        return ("redis", _host(host or ""), port or REDIS_PORT, database, sentinel)
    return ("unknown", str(url))


def path_identity(path: Any, folder: Path) -> Path:
    """Return the file or folder that a path means, with links followed."""
    return (folder / str(path)).resolve()


def _database(text: str) -> int | str:
    return int(text) if text.isdecimal() else text or 0


def _host(name: str) -> str:
    """Return a host's name; all names of this machine's loopback are one."""
    name = name.lower().rstrip(".")
    if name in {"", "localhost", "ip6-localhost"} or name.endswith(".localhost"):
        return THIS_MACHINE
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback or address.is_unspecified:
        return THIS_MACHINE
    return address.compressed
