"""The batch of a request: how many rows it has, and where they lie, whatever its protocol.

Open Inference    the first dimension of all `inputs` whose shapes agree in it
TF Serving, V1    the rows of `instances`; the columns of `inputs`
MLflow            `dataframe_split.data`, `dataframe_records`, `instances`, `inputs`
any JSON          a list
"""

from collections.abc import Mapping
from typing import Any

_LISTS = ("instances", "dataframe_records", "inputs")


def rows(document: Any) -> int | None:
    """Return how many rows a request has; None if its batch axis is not known (1 us)."""
    if isinstance(document, list):
        return len(document)
    if not isinstance(document, Mapping):
        return None
    split = document.get("dataframe_split")
    if isinstance(split, Mapping) and isinstance(split.get("data"), list):
        return len(split["data"])
    inputs = document.get("inputs")
    if isinstance(inputs, list) and any(
        isinstance(one, Mapping) and "shape" in one for one in inputs
    ):
        are_batches = all(map(_is_batch, inputs))
        return _same([tensor["shape"][0] for tensor in inputs]) if are_batches else None
    if isinstance(inputs, Mapping):
        columns = [column for column in inputs.values() if isinstance(column, list)]
        return _same([len(column) for column in columns]) if len(columns) == len(inputs) else None
    return next(
        (len(found) for name in _LISTS if isinstance(found := document.get(name), list)), None
    )


def _is_batch(value: Any) -> bool:
    shape = value.get("shape") if isinstance(value, Mapping) else None
    return isinstance(shape, list) and bool(shape) and type(shape[0]) is int and shape[0] >= 0


def _same(counts: list[int]) -> int | None:
    return counts[0] if len(set(counts)) == 1 else None
