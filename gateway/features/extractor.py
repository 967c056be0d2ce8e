"""Extracts a request's features: the values at a route's JSON paths, encoded for the policy."""

from tollway.backends import json_values
from tollway.backends.types import Call
from tollway.gateway.features.encoder import FeatureEncoder
from tollway.policies.types import Context


class FeatureExtractor:
    """Converts one route's calls into contexts."""

    def __init__(
        self,
        *,
        numeric: tuple[str, ...] = (),
        text: tuple[str, ...] = (),
        categorical: tuple[str, ...] = (),
        span: tuple[float, float] | None = None,
    ) -> None:
        """Set the paths of numbers, texts and categories, and the bounds of the numbers."""
        self._numeric = [json_values.parse(path) for path in numeric]
        self._text = [json_values.parse(path) for path in text]
        self._categorical = [json_values.parse(path) for path in categorical]
        self._encoder = FeatureEncoder(range=span)

    def __call__(self, call: Call) -> Context:
        """Return a call's context. Paths without a value count as average."""
        data = call.payload.data if call.payload else None
        return self._encoder.encode(
            [number for path in self._numeric for number in json_values.numbers(data, path)],
            [text for path in self._text for text in json_values.texts(data, path)],
            [str(json_values.first(data, path)) for path in self._categorical],
        )

    def save(self) -> bytes:
        """Return the learned scales."""
        return self._encoder.save()

    def load(self, state: bytes) -> None:
        """Load saved scales. Raises ValueError if they are damaged."""
        self._encoder.load(state)
