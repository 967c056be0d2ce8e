"""Entities: whom the features of a request are about, and the pseudonym that stands for them.

A pseudonym is HMAC-SHA256 of the group and the key under the gateway's pepper. Stores that the
gateway fills itself and the journal have pseudonyms only; a source that others fill is asked by the
key. Without a pepper whoever can guess a key can compute its pseudonym.
"""

import hmac
from collections.abc import Callable
from typing import Any

from tollway.backends.json_path import compile_first
from tollway.backends.protocols.http import places
from tollway.backends.types import Call

KEY_CHARS_MAX = 256  # a longer one is no identity, and each waits in memory
DIGEST_CHARS = 32  # 128 bits
TENANT = "$tenant"
_SALT = b"tollway features"

Entity = Callable[[Call], str | None]


def pseudonyms(pepper: str | None) -> Callable[[str, str], str]:
    """Return the function that hashes (group, key); gateways with one pepper agree on it."""
    secret = pepper.encode() if pepper else _SALT

    def digest(group: str, key: str) -> str:
        return hmac.digest(secret, f"{group}\0{key}".encode(), "sha256").hex()[:DIGEST_CHARS]

    return digest


def plain(group: str, key: str) -> str:
    """Return the key itself, for groups that are no personal data."""
    return key


def check(path: str) -> None:
    """Raise ValueError if no request has anything at a path."""
    if path != TENANT:
        places.check_request(path)
        compile_first(path)


def entity(path: str, *, per_tenant: bool = False) -> Entity:
    """Return the function that reads the key of a call's entity; None if it has none.

    `per_tenant`: the keys of one tenant are not those of another.
    """
    read = _reader(path)
    if not per_tenant:
        return read

    def own(call: Call) -> str | None:
        key = read(call)
        return None if key is None else f"{call.tenant}/{key}"

    return own


def _reader(path: str) -> Entity:
    if path == TENANT:
        return lambda call: call.tenant or None
    if path.startswith(f"{places.HEADERS}."):
        return _header(path.removeprefix(f"{places.HEADERS}.").lower().encode())
    get = compile_first(path)
    if path.startswith("$"):
        root = places.root_of(path)
        return lambda call: _key(get(places.of_request(call, (root,))))
    return lambda call: _key(get(call.payload.data))


def _header(name: bytes) -> Entity:
    """Return the reader of a header field, without making texts of the others."""

    def read(call: Call) -> str | None:
        for field, value in call.headers:
            if field == name:
                try:
                    return _key(value.decode())
                except UnicodeDecodeError:
                    return _key(value.decode("latin-1"))
        return None

    return read


def _key(value: Any) -> str | None:
    if value.__class__ is str:
        return value if 0 < len(value) <= KEY_CHARS_MAX else None
    return str(value) if value.__class__ is int else None
