"""The journal's line format: JSON with a checksum. Damaged lines are rejected as a whole.

The last two members of a row are `v`, the version of its members' names, and `crc`. Rows of older
versions, the first of which wrote no `v`, are read with the present names. Rows of newer versions
are rejected.
"""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

_PAIRS = [one + other for one in _DIGITS for other in _DIGITS]

VERSION = 2

_VERSION = b',"v":%d' % VERSION

_CRC_BYTES = len(b',"crc":"00000000"}\n')

ROW_BYTES_MAX = 1 << 20  # a row holds one request's features, far less than a megabyte

Row = dict[str, Any]


def base36(number: int) -> str:
    """Return a non-negative integer in base 36."""
    digits = ""
    while number >= 1296:
        digits = _PAIRS[number % 1296] + digits
        number //= 1296
    return (_PAIRS[number] + digits).lstrip("0") or "0"


def seal(row: Row) -> bytes:
    """Return a row as a line: JSON with the version and its CRC-32 as the last members."""
    return closed(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[:-1])


def closed(row: bytes) -> bytes:
    """Return the line of a row in JSON that lacks its closing brace."""
    body = row + _VERSION
    return b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body))


def unseal(line: bytes) -> Row | None:
    """Return a line's row; None if the line is truncated, damaged or of a newer version."""
    body, tail = line[:-_CRC_BYTES], line[-_CRC_BYTES:]
    if tail != b',"crc":"%08x"}\n' % zlib.crc32(body):
        return None
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:  # a valid checksum on text that is not JSON
        return None
    return _current(row) if isinstance(row, dict) else None


def _current(row: Row) -> Row | None:
    """Return a row with the present names; None if its version is newer."""
    version = row.get("v", 1)
    if version == 1:
        _rename_version_1(row)
    return row if version in (1, VERSION) else None


def _rename_version_1(row: Row) -> None:
    if "price_of_money" in row:
        row["shadow_price"] = row.pop("price_of_money")
    if row.get("error") == "outrun":
        row["error"] = "hedge_lost"


def starts(*kinds: str) -> tuple[bytes, ...]:
    """Return how the lines of rows of these kinds start: `kind` is their first member."""
    return tuple(b'{"kind":"%b"' % kind.encode() for kind in kinds)


def rows(
    path: Path, damaged: Callable[[], None] = lambda: None, *, without: tuple[str, ...] = ()
) -> Iterator[Row]:
    """Yield the valid rows of a segment in order. Skip a truncated last line and damaged rows.

    `damaged` is called for each complete line whose checksum does not match. Rows of the kinds
    `without` are left out; their checksums are verified, but they are not parsed.
    """
    left_out = starts(*without)
    with path.open("rb") as file:
        for line in file:
            if left_out and line.startswith(left_out) and _is_current(line):
                continue
            row = unseal(line)
            if row is not None:
                yield row
            elif line.endswith(b"\n"):
                damaged()


def _is_current(line: bytes) -> bool:
    """Return whether a line is whole and of the present version."""
    body, tail = line[:-_CRC_BYTES], line[-_CRC_BYTES:]
    return body.endswith(_VERSION) and tail == b',"crc":"%08x"}\n' % zlib.crc32(body)
