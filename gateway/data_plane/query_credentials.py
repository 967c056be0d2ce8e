"""Credentials in a query: they are read as the header field that they stand for, and removed.

A query is written to logs and kept in histories, so that a key there must not travel on. Names are
compared decoded, since a server would decode them too.
"""

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from tollway.backends.types import Headers

Names = Mapping[bytes, bytes]
"""The header field that each parameter stands for."""


def read(query: bytes, names: Names) -> Headers:
    """Return the header fields that a query's credentials stand for."""
    return [
        (names[name], unquote_to_bytes(part.partition(b"=")[2]))
        for part in query.split(b"&")
        if (name := _name(part)) in names
    ]


def without(query: bytes, names: Names) -> bytes:
    """Return a query without its credentials."""
    return b"&".join([part for part in query.split(b"&") if _name(part) not in names])


def _name(part: bytes) -> bytes:
    return unquote_to_bytes(part.partition(b"=")[0])
