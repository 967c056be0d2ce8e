"""Extracts a request's features: the values at a route's paths, encoded for the policy.

Paths that begin with `$` lead to what a request has beside its document (see
`tollway.backends.protocols.http.places`); only routes that have one pay for it. Their values come
after those of the document.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tollway.backends.json_path import compile_first, compile_path, numbers, texts
from tollway.backends.protocols.http import places
from tollway.backends.types import Call
from tollway.gateway.features.encoder import NUMBERS_MAX, FeatureEncoder
from tollway.gateway.features.online.join import Joined
from tollway.policies.types import EMBEDDING, Context


class FeatureExtractor:
    """Converts one route's calls into contexts."""

    def __init__(
        self,
        *,
        numeric: tuple[str, ...] = (),
        text: tuple[str, ...] = (),
        categorical: tuple[str, ...] = (),
        span: tuple[float, float] | None = None,
        joined: int = 0,
        embed: Callable[[str], tuple[float, ...]] | None = None,
        embedded: bool = False,
    ) -> None:
        """Set the paths of numbers, texts and categories, and the bounds of the numbers.

        `joined`: how many numbers each call has from outside. `embed` returns the embedding of the
        texts, which comes last in a context's numbers; `embedded`: that of a backend does, with
        which each call comes.
        """
        self._embed = embed
        self._added = EMBEDDING if embedded or embed is not None else 0
        self._numeric = [compile_path(path) for path in numeric if path[:1] != "$"]
        self._text = [compile_path(path) for path in text if path[:1] != "$"]
        self._categorical = [compile_first(path) for path in categorical if path[:1] != "$"]
        beside = [path for path in (*numeric, *text, *categorical) if path[:1] == "$"]
        self._roots = frozenset(map(places.root_of, beside))
        self._beside = [
            [compile_first(path) for path in paths if path[:1] == "$"]
            for paths in (numeric, text, categorical)
        ]
        self._encoder = FeatureEncoder(range=span, joined=joined)

    def __call__(
        self, call: Call, joined: Joined | None = None, embedding: tuple[float, ...] = ()
    ) -> Context:
        """Return a call's context. Paths without a value count as average.

        `joined`: the values from outside, if the route has any. `embedding`: that by a backend.
        """
        data = call.payload.data
        found: list[float] = []
        words: list[str] = []
        categories: list[str] = []
        for get in self._numeric:
            numbers(get(data), found, NUMBERS_MAX)
        for get in self._text:
            texts(get(data), words)
        for get in self._categorical:
            categories.append(str(get(data)))
        if self._roots:
            self._add_beside(call, found, words, categories)
        context = self._encoder.encode(found, words, categories, call.tenant, joined)
        if not self._added:
            return context
        if self._embed is not None:
            embedding = self._embed("\n".join(words))
        return replace(context, dense=context.dense + (embedding or (0.0,) * EMBEDDING))

    def text_of(self, call: Call, joined: Joined | None = None) -> str:
        """Return a call's texts, as `embed` would get them."""
        words: list[str] = []
        for get in self._text:
            texts(get(call.payload.data), words)
        if self._roots:
            self._add_beside(call, [], words, [])
        return "\n".join(words)

    def _add_beside(
        self, call: Call, found: list[float], words: list[str], categories: list[str]
    ) -> None:
        """Add the values of what a request has beside its document."""
        document = places.of_request(call, self._roots)
        numeric, text, categorical = self._beside
        found += [places.number(get(document)) for get in numeric]
        for get in text:
            texts(get(document), words)
        categories += [str(get(document)) for get in categorical]

    def fits(self, dense: Sequence[float], *, more: bool) -> bool:
        """Return whether numbers may be those of a context of these calls.

        `more`: calls have values from outside, among which there may be texts.
        """
        numeric, text, _ = self._beside
        return self._encoder.fits(
            len(dense) - self._added,
            numbers=bool(self._numeric or numeric),
            texts=bool(self._text or text) or more,
        )

    def save(self) -> bytes:
        """Return the learned scales."""
        return self._encoder.save()

    def load(self, state: bytes) -> None:
        """Load saved scales. Raises ValueError if they are damaged."""
        self._encoder.load(state)
