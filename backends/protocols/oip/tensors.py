"""Tensors of the Open Inference Protocol: JSON or raw bytes, checked against shape and datatype.

Raw tensors are little-endian and row-major, without padding; an element of BYTES is its length
(four bytes) and its bytes. JSON tensors may be flat or nested. Errors are ValueErrors that name the
tensor.
"""

import math
from typing import Any

import numpy as np

from tollway.backends.documents import shown
from tollway.backends.sliced_json import UNREAD, Unread

DECODED_MAX = 65_536
"""Elements up to which a raw tensor is decoded (a 256 x 256 image, a millisecond); a larger one is
forwarded, and no feature is read from it. So are the tensors in JSON that exceed it together.
"""

TENSORS_MAX = 1024
"""Tensors of a message; each takes a microsecond to check. Models have up to some dozens."""

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
BYTES_EACH = {name: np.dtype(code).itemsize for name, code in DTYPES.items()} | {"BF16": 2}
_INTEGERS = {name: np.iinfo(code) for name, code in DTYPES.items() if "INT" in name}
_TYPES: dict[str, frozenset[type]] = (
    dict.fromkeys(_INTEGERS, frozenset((int,)))
    | dict.fromkeys(FLOATS, frozenset((int, float)))
    | {"BOOL": frozenset((bool, int)), "BYTES": frozenset((str,))}
)
_RANGE = dict.fromkeys(_TYPES, (0, 0)) | {
    name: (int(info.min), int(info.max)) for name, info in _INTEGERS.items()
}
"""The least and the greatest integer of each datatype; (0, 0) if it has no range."""


def plain(tensors: list[Any]) -> dict[str, list[Any]] | None:
    """Return the elements of well-formed flat JSON tensors by name, in one pass (1 us each).

    None if anything is unusual: raw or nested data, or an error. Then `values` says what it is.
    """
    read: dict[str, list[Any]] = {}
    total = 0
    try:
        for tensor in tensors:
            name, shape, data = tensor["name"], tensor["shape"], tensor["data"]
            flat = type(name) is str and type(shape) is list and type(data) is list
            # The length comes before the product: of a million dimensions it takes minutes.
            if not (flat and name) or name in read or len(shape) > DIMENSIONS_MAX:
                return None
            count = 1
            for dimension in shape:
                if type(dimension) is not int or dimension < 0:
                    return None
                count *= dimension
            datatype = tensor["datatype"]
            total += count
            fits = len(data) == count and total <= DECODED_MAX and "parameters" not in tensor
            if not fits or not _TYPES[datatype].issuperset(map(type, data)):
                return None
            low, high = _RANGE[datatype]
            if high and data and not (low <= min(data) and max(data) <= high):
                return None
            read[name] = data
    except (KeyError, TypeError):
        return None
    return read


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
        raise ValueError(f"{name!r}: datatype {shown(datatype)} is not one of {known}")
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


def values(tensor: dict[str, Any], name: str, most: int) -> list[Any] | None:
    """Return a JSON tensor's elements, flat and in order; None if there are more than `most`.

    Raises ValueError if they do not fit. What is not returned is not checked, and removed.
    """
    count, datatype = elements(tensor, name), tensor["datatype"]
    data = tensor.get("data")
    if isinstance(data, Unread) or (count > most and _may_have(data, count)):
        tensor["data"] = UNREAD
        return None
    if isinstance(data, str) and datatype == "BYTES":  # MLServer takes one text for all
        return [data]
    if not isinstance(data, list):
        raise ValueError(f"{name!r}: data must be a list; send it in the request itself")
    if data and type(data[0]) is list:
        flat: list[Any] = []
        _flatten(data, flat, name, len(tensor["shape"]))
        data = flat
    if len(data) != count:
        wanted = f"shape {shown(tensor['shape'])} needs {count} elements"
        raise ValueError(f"{name!r}: {wanted}, data has {len(data)}")
    if data:
        _check_elements(data, name, datatype)
    return data


def _may_have(data: Any, count: int) -> bool:
    """Whether a list may have so many elements, as far as one look tells."""
    return isinstance(data, list) and (len(data) == count or bool(data and type(data[0]) is list))


def decode(tensor: dict[str, Any], name: str, raw: bytes) -> list[Any] | None:
    """Return a raw tensor's elements; None if there are too many to decode.

    Raises ValueError if the bytes do not fit the shape and datatype.
    """
    count, datatype = elements(tensor, name), tensor["datatype"]
    if datatype == "BYTES":
        return _texts(raw, count, name)
    wanted = count * BYTES_EACH[datatype]
    if len(raw) != wanted:
        problem = f"shape {shown(tensor['shape'])} of {datatype} needs {wanted} bytes"
        raise ValueError(f"{name!r}: {problem}, there are {len(raw)}")
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
    kinds = set(map(type, data))
    if not kinds <= _TYPES[datatype]:
        wrong = next(value for value in data if type(value) not in _TYPES[datatype])
        raise ValueError(f"{name!r}: data holds {shown(wrong)}, which is not {datatype}")
    low, high = _RANGE[datatype]
    if high and not (low <= min(data) and max(data) <= high):
        raise ValueError(f"{name!r}: data does not fit {datatype} ({low} to {high})")


def _texts(raw: bytes, count: int, name: str) -> list[str]:
    texts: list[str] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise ValueError(f"{name!r}: an element of BYTES extends beyond the tensor")
        texts.append(raw[at + 4 : end].decode("utf-8", "replace"))
        at = end
    if len(texts) != count:
        raise ValueError(f"{name!r}: the shape needs {count} elements, the bytes have {len(texts)}")
    return texts
