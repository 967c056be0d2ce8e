"""Reads a request's features: the values at a route's paths, encoded as the policy sees them."""

from tollway.backends import json_values
from tollway.backends.types import Call
from tollway.gateway.features.encoder import FeatureEncoder
from tollway.policies.types import Context


class FeatureExtractor:
    """One route's way from a call to a Context."""

    def __init__(
        self,
        *,
        numeric: tuple[str, ...] = (),
        text: tuple[str, ...] = (),
        categorical: tuple[str, ...] = (),
        span: tuple[float, float] | None = None,
    ) -> None:
        """Take the paths of numbers, texts and whole words, and what the numbers lie between."""
        self._numeric = [json_values.parse(path) for path in numeric]
        self._text = [json_values.parse(path) for path in text]
        self._categorical = [json_values.parse(path) for path in categorical]
        self._encoder = FeatureEncoder(range=span)

    def __call__(self, call: Call) -> Context:
        """Return a call's context; paths that lead nowhere in it count as average."""
        data = call.payload.data if call.payload else None
        return self._encoder.encode(
            [number for path in self._numeric for number in json_values.numbers(data, path)],
            [text for path in self._text for text in json_values.texts(data, path)],
            [str(json_values.first(data, path)) for path in self._categorical],
        )

    def save(self) -> bytes:
        """Return the scales learned."""
        return self._encoder.save()

    def load(self, state: bytes) -> None:
        """Take saved scales; ValueError where they are damaged."""
        self._encoder.load(state)
