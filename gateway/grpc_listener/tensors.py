"""Converts tensors between the forms of gRPC (typed contents, raw bytes) and of REST.

Raw bytes are the same in both. Errors are ValueErrors.
"""

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from tollway.backends.protocols.oip.tensors import DTYPES, FLOATS

CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of InferTensorContents that holds a datatype. FP16 and BF16 have none."""

_LENGTH = struct.Struct("<I")


def is_json(datatype: str, elements: Sequence[Any]) -> bool:
    """Return whether JSON holds these elements exactly: no NaN or infinity, BYTES in UTF-8."""
    if datatype in FLOATS:
        return bool(np.isfinite(np.array(elements, "f8")).all())
    if datatype != "BYTES":
        return True
    try:
        for element in elements:
            element.decode()
    except UnicodeDecodeError:
        return False
    return True


def pack(datatype: str, elements: Any) -> bytes:
    """Return elements as raw bytes: little-endian, row-major, BYTES with their lengths.

    Nested lists are flattened. null is NaN, as servers write it in JSON.
    """
    flat = _flat(elements)
    if datatype == "BYTES":
        return b"".join(map(_with_length, flat))
    try:
        if datatype in FLOATS:
            return _floats(datatype, np.array(flat, "f8"))
        return np.array(flat, DTYPES[datatype]).tobytes() if flat else b""
    except KeyError:
        raise ValueError(f"datatype {datatype!r} is unknown") from None
    except (TypeError, OverflowError) as exc:
        raise ValueError(f"data does not fit {datatype}: {exc}") from exc


def unpack(datatype: str, raw: bytes) -> list[Any]:
    """Return the elements of a raw tensor; BYTES as bytes."""
    if datatype == "BYTES":
        return _elements(raw)
    try:
        elements: list[Any] = np.frombuffer(raw, DTYPES[datatype]).tolist()
    except ValueError as exc:
        raise ValueError(f"data does not fit {datatype}: {exc}") from exc
    return elements


def as_json(datatype: str, raw: bytes) -> Any:
    """Return a raw tensor's elements as orjson writes them; None if JSON does not hold them."""
    if datatype not in CONTENTS and datatype != "FP16":
        return None
    if datatype == "BYTES":
        elements = _elements(raw)
        return [text.decode() for text in elements] if is_json(datatype, elements) else None
    try:
        array = np.frombuffer(raw, DTYPES[datatype])
    except ValueError:
        return None  # the server says what is wrong
    if datatype in FLOATS and not np.isfinite(array).all():
        return None
    return array


def fill(contents: Any, datatype: str, elements: Any) -> None:
    """Put elements into a message of InferTensorContents."""
    flat = _flat(elements)
    if datatype == "BYTES":
        flat = [_encoded(one) for one in flat]
    elif datatype in FLOATS:
        flat = [float("nan") if one is None else one for one in flat]
    try:
        getattr(contents, CONTENTS[datatype]).extend(flat)
    except TypeError as exc:
        raise ValueError(f"data does not fit {datatype}: {exc}") from exc


def _flat(elements: Any) -> list[Any]:
    flat: list[Any] = elements if isinstance(elements, list) else [elements]  # MLServer: one text
    while flat and type(flat[0]) is list:
        flat = list(chain.from_iterable(flat))
    return flat


def _encoded(element: Any) -> bytes:
    if isinstance(element, bytes):
        return element
    if not isinstance(element, str):
        raise ValueError("BYTES in JSON must be texts")
    return element.encode("utf-8", "surrogateescape")


def _with_length(element: Any) -> bytes:
    raw = _encoded(element)
    return _LENGTH.pack(len(raw)) + raw


def _elements(raw: bytes) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw) or at + 4 > len(raw):
            raise ValueError("an element of BYTES extends beyond the tensor")
        found.append(raw[at + 4 : end])
        at = end
    return found


def _floats(datatype: str, numbers: "np.ndarray[Any, Any]") -> bytes:
    """Return doubles as floats of a datatype; what is too large for it is infinite.

    A BF16 is the upper half of a 32-bit float, rounded to the nearest (ties to even).
    """
    with np.errstate(over="ignore"):
        if datatype != "BF16":
            return numbers.astype(DTYPES[datatype]).tobytes()
        bits = numbers.astype("<f4").view("<u4").astype("<u8")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, rounded).astype("<u2").tobytes()
