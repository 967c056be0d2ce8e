"""Joins requests of the Open Inference Protocol along the first dimension of every tensor.

JSON tensors, flat or nested, and raw tensors are concatenated as they are; elements of BYTES carry
their own length. Calls of a sequence (`sequence_id`) go alone: the server keeps state for them.
"""

import math
import uuid
from collections.abc import Sequence
from itertools import chain
from typing import Any

import orjson

from tollway.backends.batching.parts import (
    Part,
    Unsplittable,
    canonical,
    check_common,
    head_of,
    is_exact,
    is_inference,
    of_each,
)
from tollway.backends.documents import load_reply
from tollway.backends.protocols.oip import tensors
from tollway.backends.protocols.oip.body import HEAD_LENGTH, split
from tollway.backends.types import Call, Headers

_SIZE = "binary_data_size"


class OipJoiner:
    """The joiner of the protocol."""

    def part(self, call: Call) -> Part | None:
        """Return a call as a part of a batch (see `Joiner`)."""
        document, raws = call.payload.data, call.payload.binary
        if not is_inference(call) or type(document) is not dict:
            return None
        if "sequence_id" in (document.get("parameters") or ()) or not _is_copied(call):
            return None
        heads, contents = [], []
        rows = 0
        for tensor in document["inputs"]:
            shape = tensor["shape"]
            rows = rows or (shape[0] if shape else 0)
            raw = raws.get(tensor["name"])
            content = raw if raw is not None else _rows(tensor, tensor.get("data"))
            if not shape or shape[0] != rows or not rows or content is None:
                return None
            is_nested = raw is None and type(content[0]) is list
            head = {name: tensor[name] for name in tensor if name not in ("data", "shape")}
            parameters = {k: v for k, v in (head.get("parameters") or {}).items() if k != _SIZE}
            head["parameters"] = parameters
            heads.append((canonical(head), tuple(shape[1:]), raw is not None, is_nested))
            contents.append(content)
        rest = {name: document[name] for name in document if name not in ("inputs", "id")}
        key = ("oip", head_of(call), tuple(heads), canonical(rest))
        return Part(key, rows, (document, contents, rest), call)

    def join(self, parts: Sequence[Part], head: Call) -> Call:
        """Return one call with the rows of all parts (see `Joiner`)."""
        document, _, rest = parts[0].data
        total = sum(part.rows for part in parts)
        inputs, raws = [], []
        for at, given in enumerate(document["inputs"]):
            tensor = {**given, "shape": [total, *given["shape"][1:]]}
            contents = [part.data[1][at] for part in parts]
            if isinstance(contents[0], bytes):
                raw = b"".join(contents)
                raws.append(raw)
                tensor.pop("data", None)
                tensor["parameters"] = {**given["parameters"], _SIZE: len(raw)}
            else:
                tensor["data"] = list(chain.from_iterable(contents))
            inputs.append(tensor)
        text = orjson.dumps({**rest, "inputs": inputs})
        headers = [pair for pair in head.headers if pair[0] != HEAD_LENGTH]
        if raws:
            headers.append((HEAD_LENGTH, b"%d" % len(text)))
        return Call(head.method, head.target, headers, b"".join((text, *raws)))

    def split(
        self, parts: Sequence[Part], headers: Headers, body: bytes, device_s: Sequence[float]
    ) -> list[tuple[Headers, bytes]]:
        """Return each part's reply (see `Joiner`)."""
        try:
            text, rest = split(headers, body)
            document = load_reply(text)
        except ValueError as exc:
            raise Unsplittable(str(exc)) from exc
        if not isinstance(document, dict) or not is_exact(text):
            raise Unsplittable("the reply is no document that can be copied")
        shared = _shared(document)
        outputs = document.get("outputs")
        if not isinstance(outputs, list) or not outputs:
            raise Unsplittable("the reply has no outputs")
        total = sum(part.rows for part in parts)
        columns, at = [], 0
        for output in outputs:
            column, used = _column(output, total, rest, at)
            columns.append(column)
            at += used
        if at != len(rest or b""):
            raise Unsplittable("bytes at the end of the reply belong to no tensor")
        common = of_each(headers)
        replies, row = [], 0
        for part, seconds in zip(parts, device_s, strict=True):
            own = _own(shared, part.data[0], document, seconds)
            pieces = [column.cut(row, row + part.rows) for column in columns]
            own["outputs"] = [tensor for tensor, _ in pieces]
            text = orjson.dumps(own)
            fields = list(common)
            if rest is not None:
                fields.append((HEAD_LENGTH, b"%d" % len(text)))
            replies.append((fields, b"".join((text, *[raw for _, raw in pieces]))))
            row += part.rows
        return replies


class _Column:
    """An output of all rows: its head, and its content by rows."""

    def __init__(self, head: dict[str, Any], shape: list[int], content: Any, edges: Sequence[int]):
        """`edges`: where each row starts in the content, and the end."""
        self._head, self._shape, self._content, self._edges = head, shape, content, edges

    def cut(self, start: int, end: int) -> tuple[dict[str, Any], bytes]:
        """Return the tensor of some rows, and its raw bytes."""
        content = self._content[self._edges[start] : self._edges[end]]
        tensor = {**self._head, "shape": [end - start, *self._shape[1:]]}
        if isinstance(content, bytes):
            tensor["parameters"] = {**tensor["parameters"], _SIZE: len(content)}
            return tensor, content
        tensor["data"] = content
        return tensor, b""


def _column(output: Any, total: int, rest: bytes | None, at: int) -> tuple[_Column, int]:
    """Return an output by rows, and how many raw bytes it has."""
    try:
        name = tensors.name_of(output)
        tensors.elements(output, name)
    except ValueError as exc:
        raise Unsplittable(str(exc)) from exc
    shape, parameters = output["shape"], output.get("parameters") or {}
    if not shape or shape[0] != total:
        raise Unsplittable(f"output {name!r} has shape {shape}, not {total} rows")
    if not isinstance(parameters, dict):
        raise Unsplittable(f"output {name!r} has no valid parameters")
    size = parameters.get(_SIZE)
    check_common({k: v for k, v in parameters.items() if k != _SIZE}, f"parameters of {name!r}")
    head = {key: output[key] for key in output if key not in ("data", "shape")}
    check_common({k: v for k, v in head.items() if k != "parameters"}, f"output {name!r}")
    if size is None:
        content = _rows(output, output.get("data"))
        if content is None:
            raise Unsplittable(f"output {name!r} has other data than its shape")
        step = 1 if content and type(content[0]) is list else len(content) // total
        return _Column(head, shape, content, range(0, (total + 1) * step, step)), 0
    if rest is None or type(size) is not int or not 0 <= size <= len(rest) - at:
        raise Unsplittable(f"output {name!r} has no raw data")
    raw = rest[at : at + size]
    return _Column(head, shape, raw, _edges(output, name, raw, total)), size


def _edges(output: dict[str, Any], name: str, raw: bytes, total: int) -> Sequence[int]:
    """Return where the rows of a raw tensor start, and its end."""
    each = math.prod(output["shape"][1:])
    width = tensors.BYTES_EACH.get(output["datatype"])
    if width is not None:
        if len(raw) != total * each * width:
            raise Unsplittable(f"output {name!r} has other bytes than its shape")
        return [row * each * width for row in range(total + 1)]
    edges, at = [0], 0
    for _ in range(total):
        for _ in range(each):
            at += 4 + int.from_bytes(raw[at : at + 4], "little")
        edges.append(at)
    if at != len(raw):
        raise Unsplittable(f"output {name!r} has other bytes than its shape")
    return edges


def _rows(tensor: dict[str, Any], data: Any) -> list[Any] | None:
    """Return a JSON tensor's data if it is a list that is cut by rows: flat, or nested in rows."""
    if type(data) is not list or not data:
        return None
    shape = tensor["shape"]
    wanted = shape[0] if type(data[0]) is list else math.prod(shape)
    return data if shape and len(data) == wanted else None


def _is_copied(call: Call) -> bool:
    """Return whether the JSON of a request keeps its numbers in a batch."""
    try:
        return is_exact(split(call.headers, call.body)[0])
    except ValueError:
        return False


def _shared(document: dict[str, Any]) -> dict[str, Any]:
    """Return what a reply says beside its outputs, which has to hold for each row."""
    shared = {key: document[key] for key in document if key not in ("id", "outputs")}
    parameters = shared.get("parameters")
    if isinstance(parameters, dict):
        shared["parameters"] = {k: v for k, v in parameters.items() if k != "device_s"}
    check_common(shared, "the reply")
    return shared


def _own(
    shared: dict[str, Any], request: dict[str, Any], document: dict[str, Any], device_s: float
) -> dict[str, Any]:
    """Return the head of one part's reply, with its own id and device seconds."""
    own = dict(shared)
    if request.get("id") is not None:
        own["id"] = request["id"]
    elif document.get("id") is not None:  # the server makes ids: one of the batch tells of others
        own["id"] = str(uuid.uuid4())
    parameters = document.get("parameters")
    if isinstance(parameters, dict) and "device_s" in parameters:
        own["parameters"] = {**shared["parameters"], "device_s": device_s}
    return own
