"""The journal's line format: JSON with a checksum. Damaged lines are rejected as a whole."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

_PAIRS = [one + other for one in _DIGITS for other in _DIGITS]

_CRC_BYTES = len(b',"crc":"00000000"}\n')

ROW_BYTES_MAX = 1 << 20  # a row holds one request's features, far less than a megabyte

Row = dict[str, Any]


def base36(number: int) -> str:
    """Return a non-negative integer in base 36."""
    digits = ""
    while number >= 1296:
        number, pair = divmod(number, 1296)
        digits = _PAIRS[pair] + digits
    return (_PAIRS[number] + digits).lstrip("0") or "0"


def seal(row: Row) -> bytes:
    """Return a row as a line: JSON with its CRC-32 as the last member."""
    body = orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body))


def unseal(line: bytes) -> Row | None:
    """Return a line's row; None if the line is truncated or damaged."""
    body, tail = line[:-_CRC_BYTES], line[-_CRC_BYTES:]
    if tail != b',"crc":"%08x"}\n' % zlib.crc32(body):
        return None
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:  # a valid checksum on text that is not JSON
        return None
    return row if isinstance(row, dict) else None


def rows(path: Path, damaged: Callable[[], None] = lambda: None) -> Iterator[Row]:
    """Yield the valid rows of a segment in order. Skip a truncated last line and damaged rows.

    `damaged` is called for each complete line whose checksum does not match.
    """
    with path.open("rb") as file:
        for line in file:
            row = unseal(line)
            if row is not None:
                yield row
            elif line.endswith(b"\n"):
                damaged()
