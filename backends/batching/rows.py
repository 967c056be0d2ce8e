"""Joins requests that hold rows in JSON: MLflow, TF Serving, KServe V1, and plain lists.

    instances, dataframe_records, a plain list      a list of rows
    inputs                                          a list of rows, or a list for each name
    dataframe_split                                 its `data` is a list of rows

A reply is a list of the rows' answers, or has one under a name of ROWS_OF, or a list for each name
there. Rows are joined with rows of the same kind only: a column of whole numbers alone is read as
integers by servers, beside a fraction as floats. A plain list of bare numbers may be one row, so it
goes alone.
"""

from collections.abc import Hashable, Sequence
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
from tollway.backends.types import Call, Headers

INPUTS = ("instances", "inputs", "dataframe_split", "dataframe_records")
ROWS_OF = frozenset(
    [
        "predictions",
        "outputs",
        "probabilities",
        "confidence",
        "confidences",
        "label",
        "labels",
        "scores",
        "results",
        "answers",
    ]
)
"""Members of a reply that have an element for each row."""

_INTEGER, _FLOAT = "integer", "float"
_KINDS: dict[type, str] = {int: _INTEGER, float: _FLOAT, str: "text", bool: "boolean"}

Columns = dict[str, list[Any]]


class Ragged(ValueError):  # noqa: N818 - reads as what happened
    """Rows of different shapes or kinds."""


class RowsJoiner:
    """The joiner of such protocols."""

    def part(self, call: Call) -> Part | None:
        """Return a call as a part of a batch (see `Joiner`)."""
        document = call.payload.data
        if not is_inference(call) or call.payload.form is not None or not is_exact(call.body):
            return None
        rest: dict[str, Any] = {}
        place, data = "", document
        if type(document) is dict:
            given = [name for name in INPUTS if name in document]
            if len(given) != 1:
                return None
            place = given[0]
            data = document[place]
            rest = {name: document[name] for name in document if name != place}
        if place == "dataframe_split":
            if type(data) is not dict or not _is_counted(data):
                return None
            rest[place] = {name: data[name] for name in data if name not in ("data", "index")}
            data = data.get("data")
        try:
            rows, kind = _described(data, place)
        except Ragged:
            return None
        key = ("rows", head_of(call), place, kind, canonical(rest))
        return Part(key, rows, (place, data, document), call)

    def join(self, parts: Sequence[Part], head: Call) -> Call:
        """Return one call with the rows of all parts (see `Joiner`)."""
        place, first, document = parts[0].data
        data: Any
        if isinstance(first, dict):
            data = {n: list(chain.from_iterable(part.data[1][n] for part in parts)) for n in first}
        else:
            data = list(chain.from_iterable(part.data[1] for part in parts))
        if place == "dataframe_split":
            frame = {**document[place], "data": data}
            if frame.get("index") is not None:
                frame["index"] = list(range(len(data)))
            data = frame
        joined = data if not place else {**document, place: data}
        return Call(head.method, head.target, head.headers, orjson.dumps(joined))

    def split(
        self, parts: Sequence[Part], headers: Headers, body: bytes, device_s: Sequence[float]
    ) -> list[tuple[Headers, bytes]]:
        """Return each part's reply (see `Joiner`)."""
        try:
            document = load_reply(body)
        except ValueError as exc:
            raise Unsplittable(str(exc)) from exc
        if not is_exact(body):
            raise Unsplittable("the reply has numbers that cannot be copied")
        total = sum(part.rows for part in parts)
        if not isinstance(document, list | dict):
            raise Unsplittable("the reply has no rows")
        if isinstance(document, dict):
            _check(document, total)
        elif len(document) != total:
            raise Unsplittable(f"the reply has {len(document)} rows, not {total}")
        common = of_each(headers)
        replies, row = [], 0
        for part, seconds in zip(parts, device_s, strict=True):
            own = _cut(document, row, row + part.rows, seconds)
            replies.append((list(common), orjson.dumps(own)))
            row += part.rows
        return replies


def _is_counted(frame: dict[str, Any]) -> bool:
    """Return whether the rows of a frame have no names, or are numbered from 0."""
    index, data = frame.get("index"), frame.get("data")
    return index is None or (type(data) is list and index == list(range(len(data))))


def _described(data: Any, place: str) -> tuple[int, Hashable]:
    """Return how many rows there are, and of what kind. Raises Ragged."""
    if type(data) is dict and data and place == "inputs":
        counts = {len(rows) if type(rows) is list else 0 for rows in data.values()}
        if len(counts) != 1 or 0 in counts:
            raise Ragged
        return counts.pop(), tuple([(name, _alike(data[name])) for name in data])
    if type(data) is not list or not data:
        raise Ragged
    if place in ("", "inputs") and type(data[0]) in (int, float, bool):
        raise Ragged  # a list of bare numbers may be one row
    is_frame = place.startswith("dataframe")
    return len(data), _alike(data, by_column=is_frame)


def _alike(rows: list[Any], *, by_column: bool = False) -> Hashable:
    """Return the kind that all rows have."""
    common = _kind(rows[0], by_column)
    for row in rows[1:]:
        common = _united(common, _kind(row, by_column))
    return common


def _kind(value: Any, by_column: bool) -> Hashable:
    """Return the shape and the kind of a row. `by_column`: each element has a kind of its own."""
    if type(value) is list:
        kinds = set(map(type, value))
        if not by_column and kinds <= {int, float}:
            return (len(value), _FLOAT if float in kinds else _INTEGER)
        return tuple([_kind(each, by_column) for each in value])
    if type(value) is dict:
        return tuple([(name, _kind(value[name], True)) for name in sorted(value)])
    kind = _KINDS.get(type(value))
    if kind is None:
        raise Ragged  # null: it makes a column of integers one of floats
    return kind


def _united(one: Any, other: Any) -> Hashable:
    """Return the kind of a column that has both: numbers with fractions make all of them floats."""
    if one == other:
        return one  # type: ignore[no-any-return]
    if {one, other} == {_INTEGER, _FLOAT}:
        return _FLOAT
    if type(one) is tuple and type(other) is tuple and len(one) == len(other):
        return tuple([_united(a, b) for a, b in zip(one, other, strict=True)])
    raise Ragged


def _check(document: dict[str, Any], total: int) -> None:
    """Raise Unsplittable unless a reply's members are by rows, or hold for each row."""
    found = False
    for name, value in document.items():
        columns = list(value.values()) if isinstance(value, dict) else [value]
        if name in ROWS_OF and columns and all(isinstance(one, list) for one in columns):
            if {len(one) for one in columns} != {total}:
                raise Unsplittable(f"{name} does not have {total} rows")
            found = True
        elif not (name == "usage" and isinstance(value, dict) and value.keys() == {"device_s"}):
            check_common(value, name)
    if not found:
        raise Unsplittable("the reply has no rows")


def _cut(document: Any, start: int, end: int, device_s: float) -> Any:
    """Return the reply for some rows."""
    if isinstance(document, list):
        return document[start:end]
    own = dict(document)
    for name, value in document.items():
        if name == "usage" and isinstance(value, dict):
            own[name] = {"device_s": device_s}
        elif isinstance(value, list):
            own[name] = value[start:end]
        elif name in ROWS_OF and isinstance(value, dict):
            own[name] = {key: rows[start:end] for key, rows in value.items()}
    return own
