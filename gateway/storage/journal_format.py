"""The journal's lines: JSON with a checksum, read back whole or not at all."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

_PAIRS = [one + other for one in _DIGITS for other in _DIGITS]

_CRC_BYTES = len(b',"crc":"00000000"}\n')

ROW_BYTES_MAX = 1 << 20  # a row holds one request's features; a megabyte is far above any of them

Row = dict[str, Any]


def base36(number: int) -> str:
    """Return a non-negative integer in base 36."""
    digits = ""
    while number >= 1296:
        number, pair = divmod(number, 1296)
        digits = _PAIRS[pair] + digits
    return (_PAIRS[number] + digits).lstrip("0") or "0"


def seal(row: Row) -> bytes:
    """Return a row as its line: JSON with its CRC-32 as the last member."""
    body = orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body))


def unseal(line: bytes) -> Row | None:
    """Return a line's row; None where it is cut or damaged."""
    body, tail = line[:-_CRC_BYTES], line[-_CRC_BYTES:]
    if tail != b',"crc":"%08x"}\n' % zlib.crc32(body):
        return None
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:  # no text has a checksum too
        return None
    return row if isinstance(row, dict) else None


def rows(path: Path, damaged: Callable[[], None] = lambda: None) -> Iterator[Row]:
    """Yield the sound rows of a segment, in order; a cut tail and damaged rows are passed over.

    `damaged` is called for each line that is whole and whose checksum does not fit.
    """
    with path.open("rb") as file:
        for line in file:
            row = unseal(line)
            if row is not None:
                yield row
            elif line.endswith(b"\n"):
                damaged()
