"""Tensors of the Open Inference Protocol: JSON or raw bytes, checked against shape and datatype.

Raw tensors are little-endian and row-major, without padding; an element of BYTES is its length
(four bytes) and its bytes. JSON tensors may be flat or nested. Errors are ValueErrors that name the
tensor.
"""

import math
from typing import Any

import numpy as np

from tollway.backends.documents import shown

DECODED_MAX = 65_536
"""Elements up to which a raw tensor is decoded (a 256 x 256 image, a millisecond); a larger one is
forwarded, and no feature is read from it.
"""

DIMENSIONS_MAX = 32
"""The most that numpy 1 supports; models have up to 6."""

DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
FLOATS = frozenset(("FP16", "FP32", "FP64", "BF16"))
_BYTES_EACH = {name: np.dtype(code).itemsize for name, code in DTYPES.items()} | {"BF16": 2}
_RANGE = {
    name: (int(np.iinfo(code).min), int(np.iinfo(code).max))
    for name, code in DTYPES.items()
    if "INT" in name
}
_TYPES: dict[str, frozenset[type]] = (
    dict.fromkeys(_RANGE, frozenset((int,)))
    | dict.fromkeys(FLOATS, frozenset((int, float)))
    | {"BOOL": frozenset((bool, int)), "BYTES": frozenset((str,))}
)


def name_of(tensor: Any) -> str:
    """Return a tensor's name; ValueError if it has none."""
    if not isinstance(tensor, dict):
        raise ValueError(f"a tensor must be an object, not {shown(tensor)}")
    name = tensor.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"a tensor's name must be a string, not {shown(name)}")
    return name


def elements(tensor: dict[str, Any], name: str) -> int:
    """Return how many elements a tensor declares; ValueError if its head is malformed."""
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in _TYPES:
        known = ", ".join(sorted(_TYPES))
        raise ValueError(f"{name!r}: datatype {shown(datatype)} is none of {known}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) > DIMENSIONS_MAX:
        raise ValueError(f"{name!r}: shape {shown(shape)} must be a list of dimensions")
    for dimension in shape:
        if type(dimension) is not int or dimension < 0:
            raise ValueError(f"{name!r}: shape {shown(shape)} must hold integers of at least 0")
    count = math.prod(shape)
    if count >= 1 << 63:
        raise ValueError(f"{name!r}: shape {shown(shape)} has more elements than can be counted")
    return count


def values(tensor: dict[str, Any], name: str) -> list[Any]:
    """Return a JSON tensor's elements, flat and in order; ValueError if they do not fit."""
    count, datatype = elements(tensor, name), tensor["datatype"]
    data = tensor.get("data")
    if isinstance(data, str) and datatype == "BYTES":  # MLServer takes one text for all
        return [data]
    if not isinstance(data, list):
        raise ValueError(f"{name!r}: data must be a list; send it in the request itself")
    if data and type(data[0]) is list:
        flat: list[Any] = []
        _flatten(data, flat, name, len(tensor["shape"]))
        data = flat
    if len(data) != count:
        wanted = f"shape {shown(tensor['shape'])} wants {count} elements"
        raise ValueError(f"{name!r}: {wanted}, data has {len(data)}")
    if data:
        _check_elements(data, name, datatype)
    return data


def decode(tensor: dict[str, Any], name: str, raw: bytes) -> list[Any] | None:
    """Return a raw tensor's elements; None if there are too many to decode.

    Raises ValueError if the bytes do not fit the shape and datatype.
    """
    count, datatype = elements(tensor, name), tensor["datatype"]
    if datatype == "BYTES":
        return _texts(raw, count, name)
    wanted = count * _BYTES_EACH[datatype]
    if len(raw) != wanted:
        said = f"shape {shown(tensor['shape'])} of {datatype} wants {wanted} bytes"
        raise ValueError(f"{name!r}: {said}, there are {len(raw)}")
    if count > DECODED_MAX:
        return None
    numbers: list[Any] = _array(raw, datatype).tolist()
    return numbers


def _array(raw: bytes, datatype: str) -> np.ndarray[Any, Any]:
    if datatype == "BF16":  # the upper half of a 32-bit float
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(raw, DTYPES[datatype])


def _flatten(data: list[Any], flat: list[Any], name: str, depth: int) -> None:
    if depth <= 0:
        raise ValueError(f"{name!r}: data is nested deeper than its shape")
    for element in data:
        if type(element) is list:
            _flatten(element, flat, name, depth - 1)
        else:
            flat.append(element)


def _check_elements(data: list[Any], name: str, datatype: str) -> None:
    found = set(map(type, data))
    if not found <= _TYPES[datatype]:
        wrong = next(value for value in data if type(value) not in _TYPES[datatype])
        raise ValueError(f"{name!r}: data holds {shown(wrong)}, which is no {datatype}")
    limits = _RANGE.get(datatype)
    if limits is not None and not (limits[0] <= min(data) and max(data) <= limits[1]):
        raise ValueError(f"{name!r}: data does not fit {datatype} ({limits[0]} to {limits[1]})")


def _texts(raw: bytes, count: int, name: str) -> list[str]:
    texts: list[str] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise ValueError(f"{name!r}: an element of BYTES ends behind the tensor")
        texts.append(raw[at + 4 : end].decode("utf-8", "replace"))
        at = end
    if len(texts) != count:
        raise ValueError(f"{name!r}: the shape wants {count} elements, the bytes hold {len(texts)}")
    return texts
