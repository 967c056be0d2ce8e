"""Reads a request's features: the values at a route's paths, encoded as the policy sees them."""

from backends.types import Call
from gateway import paths
from gateway.context import Encoder
from policies.types import Context


class Features:
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
        self._numeric = [paths.parse(path) for path in numeric]
        self._text = [paths.parse(path) for path in text]
        self._categorical = [paths.parse(path) for path in categorical]
        self._encoder = Encoder(range=span)

    def __call__(self, call: Call) -> Context:
        """Return a call's context; paths that lead nowhere in it count as average."""
        data = call.payload.data if call.payload else None
        return self._encoder.encode(
            [number for path in self._numeric for number in paths.numbers(data, path)],
            [text for path in self._text for text in paths.texts(data, path)],
            [str(paths.first(data, path)) for path in self._categorical],
        )

    def save(self) -> bytes:
        """Return the scales learned."""
        return self._encoder.save()

    def load(self, state: bytes) -> None:
        """Take saved scales; ValueError where they are damaged."""
        self._encoder.load(state)
