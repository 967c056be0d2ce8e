"""A body of the Open Inference Protocol: a JSON document, followed by raw tensors.

With the binary tensor extension the header field `Inference-Header-Content-Length` gives the length
of the JSON. The tensors with a `binary_data_size` follow in their order, with nothing between or
after them. Requests and replies have the same form. Errors are ValueErrors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tollway.backends.documents import header, shown
from tollway.backends.protocols.oip import tensors
from tollway.backends.types import Headers

HEAD_LENGTH = b"inference-header-content-length"


@dataclass(slots=True)
class Tensors:
    """A body's tensors by name: their elements (None: too many to decode), and the raw ones."""

    elements: Mapping[str, list[Any] | None] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)


SPECIAL = frozenset((HEAD_LENGTH, b"content-encoding"))
"""Fields of which nearly all messages have none."""


def split(headers: Headers, body: bytes) -> tuple[bytes, bytes | None]:
    """Return (JSON, raw tensors); None for the second if the body is all JSON."""
    length = header(headers, HEAD_LENGTH)
    if length is None:
        return body, None
    # 19 digits hold any 64-bit length; int() of a million digits would take a second.
    if not length.isdigit() or len(length) > 19 or int(length) > len(body):
        raise ValueError(
            f"inference-header-content-length {shown(length.decode('latin-1'))}: must be the "
            f"length of the JSON, which is at most the body's {len(body)} bytes"
        )
    return body[: int(length)], body[int(length) :]


def json_of(headers: Headers, body: bytes) -> bytes:
    """Return the JSON of a body; all of it if its length is not valid."""
    try:
        return split(headers, body)[0]
    except ValueError:
        return body


def read(document: Any, kind: str, rest: bytes | None) -> Tensors:
    """Check the tensors of a document's `inputs` or `outputs`, and decode the raw ones.

    The elements of a raw tensor are stored in the document as its `data`, where paths find them.
    """
    if rest is None and type(document) is dict and kind in document:
        entries = document[kind]
        is_usual = type(entries) is list and len(entries) <= tensors.TENSORS_MAX
        plain = tensors.plain(entries) if is_usual else None
        if plain:
            return Tensors(plain)
    if not isinstance(document, dict):
        raise ValueError(f"the document must be an object, not {shown(document)}")
    entries = document.get(kind)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{kind}: must be a list of at least one tensor, not {shown(entries)}")
    if len(entries) > tensors.TENSORS_MAX:
        raise ValueError(f"{kind}: more than {tensors.TENSORS_MAX} tensors")
    if rest is not None:  # elements are added to the tensors
        entries = document[kind] = [dict(one) if type(one) is dict else one for one in entries]
    most = tensors.DECODED_MAX
    elements: dict[str, list[Any] | None] = {}
    raws: dict[str, bytes] = {}
    at = 0
    for tensor in entries:
        name = tensors.name_of(tensor)
        if name in elements:
            raise ValueError(f"{kind}: {name!r} is given twice")
        size = _binary_size(tensor, name)
        if size is None:
            elements[name] = flat = tensors.values(tensor, name, most)
            most -= len(flat or ())
            continue
        if rest is None or at + size > len(rest):
            raise ValueError(f"{name!r}: its {size} bytes of binary data are not in the body")
        raws[name] = raw = rest[at : at + size]
        at += size
        elements[name] = decoded = tensors.decode(tensor, name, raw)
        if decoded is not None:
            tensor["data"] = decoded
    if rest is not None and at != len(rest):
        raise ValueError(f"{len(rest) - at} bytes at the end of the body belong to no tensor")
    return Tensors(elements, raws)


def _binary_size(tensor: dict[str, Any], name: str) -> int | None:
    parameters = tensor.get("parameters")
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise ValueError(f"{name!r}: parameters {shown(parameters)} must be an object")
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise ValueError(f"{name!r}: binary_data_size {shown(size)} must be an integer from 0")
    if "data" in tensor:
        raise ValueError(f"{name!r}: has both data and binary_data_size")
    return size
