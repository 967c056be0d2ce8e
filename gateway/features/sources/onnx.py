"""Turns the raw values of a source into features by an ONNX model, the file that training uses.

The model has an input for each raw value, by name, of shape [entities, 1]; or a single input of
numbers, [entities, values], in the order in which they are declared. Its outputs are the features:
one of each name, or a single matrix in the order in which they are declared. Entities that are
looked up together are transformed together, in a thread; a request that finds its entity in memory
pays nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tollway.gateway.features.online.model import (
    NUMBER,
    Feature,
    Found,
    Source,
    SourceError,
)

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(string)": np.object_,
}


class OnnxTransformer:
    """A model, loaded once and used by one thread at a time."""

    def __init__(self, path: Path, inputs: Sequence[Feature], outputs: Sequence[str]) -> None:
        """`outputs` names the features. ValueError if the model has other inputs or outputs."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # its exceptions have no common class of their own
            raise ValueError(f"{path} cannot be loaded: {exc}") from exc
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._types = {one.name: one.type for one in self._session.get_inputs()}
        given = [one.name for one in self._session.get_outputs()]
        self._is_matrix = len(self._types) == 1 and {*self._types} != {one.name for one in inputs}
        self._is_single = len(given) == 1 and given != [*outputs]
        missing = {one.name for one in inputs} ^ {*self._types} if not self._is_matrix else set()
        if not self._is_single:
            missing |= {*outputs} - {*given}
        unknown = {kind for kind in self._types.values() if kind not in _TYPES}
        if missing or unknown:
            names = ", ".join(sorted(missing | unknown))
            raise ValueError(f"{path} does not fit the declared inputs and values: {names}")

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the features of each row of raw values."""
        if not rows:
            return []
        columns = {
            one.name: [self._number_or_text(one, row.get(one.name)) for row in rows]
            for one in self._inputs
        }
        if self._is_matrix:
            [(name, kind)] = self._types.items()
            feeds = {name: np.array([*zip(*columns.values(), strict=True)], dtype=_TYPES[kind])}
        else:
            feeds = {
                name: np.array(columns[name], dtype=_TYPES[kind]).reshape(-1, 1)
                for name, kind in self._types.items()
            }
        names = None if self._is_single else list(self._outputs)
        given = [np.asarray(one) for one in self._session.run(names, feeds)]
        if self._is_single:
            matrix = given[0].reshape(len(rows), -1)
            given = [matrix[:, at] for at in range(matrix.shape[1])]
        if len(given) < len(self._outputs):
            raise ValueError(f"the model gives {len(given)} values, not {len(self._outputs)}")
        lists = [one.reshape(len(rows), -1)[:, 0].tolist() for one in given]
        pairs = [zip(self._outputs, row, strict=False) for row in zip(*lists, strict=True)]
        return [dict(pair) for pair in pairs]

    @staticmethod
    def _number_or_text(feature: Feature, value: Any) -> Any:
        read = feature.read(value)
        if read is None:
            return np.nan if feature.kind == NUMBER else ""
        return read


class TransformedSource:
    """A source whose raw values a model turns into features."""

    def __init__(self, source: Source, transform: OnnxTransformer) -> None:
        self.by_digest = source.by_digest
        self.is_writable = source.is_writable
        self._source = source
        self._transform = transform
        self._lock = asyncio.Lock()

    async def fetch(self, keys: Sequence[str], deadline_s: float) -> Found:
        """Return the features of the keys that the source knows. SourceError or TimeoutError."""
        found = await self._source.fetch(keys, deadline_s)
        known = list(found)
        try:
            async with self._lock:
                rows = await asyncio.to_thread(self._transform, [found[key] for key in known])
        except Exception as exc:  # as for the session
            raise SourceError(f"the transformer: {exc}") from exc
        return dict(zip(known, rows, strict=True))

    async def put(self, key: str, values: Mapping[str, Any]) -> None:
        """Store the raw values of an entity. Raises SourceError."""
        await self._source.put(key, values)

    async def erase(self, key: str) -> int:
        """Remove an entity and return how many rows there were. Raises SourceError."""
        return await self._source.erase(key)

    def gauges(self) -> Mapping[str, float]:
        """Return what the source's connections do."""
        return self._source.gauges()

    async def aclose(self) -> None:
        """Close the source."""
        await self._source.aclose()
