"""Turns the values read from a request into the features that a policy sees.

Numbers are scaled to the order of 1, by their declared range or by what the requests so far had
(see `scales`). Words and pairs of adjacent words are hashed, and so are whole categories. The hash
is CRC-32, which unlike `hash` is the same on every machine and in every run. Texts also yield
features for their length and composition, which predict most of an answer's cost.
"""

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat

from tollway.gateway.features.online.join import Joined
from tollway.gateway.features.scales import CLIP, Moments, Scales, clipped
from tollway.gateway.features.width import Width
from tollway.policies.types import Context

SPARSE_BITS = 18
SPARSE_MASK = (1 << SPARSE_BITS) - 1
WORDS_MAX = 400  # later words rarely change a text's topic, and each costs half a microsecond
TEXT_CHARS_MAX = 16_384  # characters read of a text; its full length is still a feature
MEMO_MAX = 65_536  # words whose hashes are cached; 8 MB
MEMO_CHARS_MAX = 32  # longer words are rare, and not cached: clients could fill a gigabyte
NUMBERS_MAX = 1024  # of a request: a label for so many takes the ridge regression 1.2 ms
SHAPE = 5  # numbers of a text's shape; a request without a text has none
WORDS = 0.2  # norm of the vector of all words: there are many and each carries little information

_SPLIT = str.maketrans(dict.fromkeys("\n\t\r.,;:!?()[]{}<>\"'`*_/\\|-+=#$%&@^~", " "))


class FeatureEncoder:
    """Encodes the values of one route's requests."""

    # The mutable state is the numbers' count and scales, and the cache of word hashes.

    def __init__(self, range: tuple[float, float] | None = None, joined: int = 0) -> None:
        """`range`: bounds of the numbers; None learns each number's scale from the requests.

        `joined`: how many numbers each request has from outside (`online`), which have scales of
        their own and come first.
        """
        self._range = range
        self._width = Width(0)
        self._scales = Scales([])
        self._joined = Scales([Moments() for _ in repeat(None, joined)])
        self._hashes = _Hashes()

    def encode(
        self,
        numbers: Sequence[float],
        texts: Sequence[str],
        categories: Sequence[str] = (),
        tenant: str = "",
        joined: Joined | None = None,
    ) -> Context:
        """Return the context of a tenant's request. Every value in it is finite.

        Missing numbers count as average and extra ones are ignored (see `width`). A number that is
        not finite also counts as average.
        """
        dense = self._scaled(numbers, tenant)
        if joined is not None:
            dense = self._joined.scaled(joined.numbers, tenant) + dense
            texts = [*texts, *joined.texts]
        sparse: list[tuple[int, float]] = []
        if texts:
            text = texts[0] if len(texts) == 1 else "\n".join(texts)
            dense += self._shape(text)
            sparse += self._words(text)
        for place, word in enumerate(categories):
            sparse.append((zlib.crc32(f"{place}={word}".encode()) & SPARSE_MASK, 1.0))
        if joined is not None:
            for word in joined.categories:
                sparse.append((zlib.crc32(word.encode()) & SPARSE_MASK, 1.0))
        return Context(tuple(dense), tuple(sparse))

    def fits(self, count: int, *, numbers: bool, texts: bool) -> bool:
        """Return whether a context of so many numbers may be one of these.

        `numbers`, `texts`: whether requests have any. How many numbers is not known before the
        first request that has some, and then any count fits.
        """
        own = count - self._joined.size - self._scales.size
        if numbers and not self._scales.size:
            return 0 <= own <= NUMBERS_MAX + SHAPE * texts
        return own == 0 or (texts and own == SHAPE)

    def _scaled(self, numbers: Sequence[float], tenant: str) -> list[float]:
        known = self._scales
        if self._width.vote(tenant, min(len(numbers), NUMBERS_MAX)):
            known.resize(self._width.now)
        size = known.size
        if not size:
            return []
        if len(numbers) != size:
            numbers = [*numbers[:size], *[math.nan] * (size - len(numbers))]
        if self._range is not None:
            low, high = self._range
            middle, half = (low + high) / 2, (high - low) / 2
            return [
                x if -CLIP <= (x := (number - middle) / half) <= CLIP else clipped(x)
                for number in numbers
            ]
        return known.scaled(numbers, tenant)

    def _shape(self, text: str) -> list[float]:
        """Return a text's shape: its length and counts of words, lines, digits and questions."""
        head = text[:TEXT_CHARS_MAX]
        words = head.count(" ") + 1
        # Not by `count`, which takes ten times as long for ten digits.
        encoded = head.encode()
        digits = len(encoded) - len(encoded.translate(None, b"0123456789"))
        return [
            math.log1p(len(text)) / 6.0 - 1.0,
            math.log1p(words) / 4.0 - 1.0,
            math.log1p(head.count("\n")) / 3.0,
            min(4.0, 8.0 * digits / (len(head) or 1)),
            min(4.0, 20.0 * head.count("?") / words),
        ]

    def _words(self, text: str) -> Iterable[tuple[int, float]]:
        """Return the words and adjacent pairs, each once, as a vector with norm `WORDS`."""
        hashes = self._hashes
        if len(hashes) > MEMO_MAX:
            hashes.clear()
        words = text[:TEXT_CHARS_MAX].lower().translate(_SPLIT).split()[:WORDS_MAX]
        at = list(map(hashes.__getitem__, words))
        # 31 makes a pair differ from its reverse. The sum's low bits depend only on low bits.
        indices = {(a * 31 + b) & SPARSE_MASK for a, b in pairwise(at)}
        indices.update(at)
        return zip(indices, repeat(WORDS / math.sqrt(len(indices) or 1)))

    def save(self) -> bytes:
        """Return the learned scales."""
        own, joined = self._scales.save(), self._joined.save()
        return json.dumps({"own": own, "joined": joined} if joined else own or None).encode()

    def load(self, state: bytes) -> None:
        """Load saved scales. Raises ValueError if they are damaged."""
        known = json.loads(state) or []
        if isinstance(known, dict):
            joined = [Moments(*moments) for moments in known["joined"]]
            if len(joined) != self._joined.size:
                raise ValueError("the scales are those of other features")
            self._joined, known = Scales(joined), known["own"]
        self._scales = Scales([Moments(*moments) for moments in known])
        self._width = Width(len(known))


class _Hashes(dict[str, int]):
    """Cache of word hashes, computed on first use."""

    def __missing__(self, word: str) -> int:
        index = zlib.crc32(word.encode()) & SPARSE_MASK
        if len(word) <= MEMO_CHARS_MAX:
            self[word] = index
        return index
