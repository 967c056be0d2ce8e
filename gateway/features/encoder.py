"""Turns the values read from a request into the features that a policy sees.

Numbers are scaled to the order of 1, by their declared range or by their running mean and standard
deviation. Words and pairs of adjacent words are hashed, and so are whole categories. The hash is
CRC-32, which unlike `hash` is the same on every machine and in every run. Texts also yield features
for their length and composition, which predict most of an answer's cost.
"""

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat

from tollway.policies.types import Context

SPARSE_BITS = 18
SPARSE_MASK = (1 << SPARSE_BITS) - 1
WORDS_MAX = 400  # later words rarely change a text's topic, and each costs half a microsecond
TEXT_CHARS_MAX = 16_384  # characters read of a text; its full length is still a feature
MEMO_MAX = 65_536  # words whose hashes are cached; 8 MB
WORDS = 0.2  # norm of the vector of all words: there are many and each carries little information
CLIP = 4.0  # standard deviations: an outlier must not dominate the other numbers

_SPLIT = str.maketrans(dict.fromkeys("\n\t\r.,;:!?()[]{}<>\"'`*_/\\|-+=#$%&@^~", " "))


class FeatureEncoder:
    """Encodes the values of one route's requests."""

    # The mutable state is the numbers' running moments and the cache of word hashes.

    def __init__(self, range: tuple[float, float] | None = None) -> None:
        """`range`: bounds of the numbers; None learns each number's scale from the requests."""
        self._range = range
        self._moments: list[_Moments] | None = None
        self._hashes = _Hashes()

    def encode(
        self, numbers: Sequence[float], texts: Sequence[str], categories: Sequence[str] = ()
    ) -> Context:
        """Return the context. Every value in it is finite.

        The first request fixes the number of numeric features. In later requests, missing numbers
        count as average and extra ones are ignored. A number that is not finite also counts as
        average.
        """
        dense = self._scaled(numbers)
        sparse: list[tuple[int, float]] = []
        if texts:
            text = texts[0] if len(texts) == 1 else "\n".join(texts)
            dense += self._shape(text)
            sparse += self._words(text)
        sparse += [
            (zlib.crc32(f"{place}={word}".encode()) & SPARSE_MASK, 1.0)
            for place, word in enumerate(categories)
        ]
        return Context(tuple(dense), tuple(sparse))

    def _scaled(self, numbers: Sequence[float]) -> list[float]:
        if self._moments is None:
            self._moments = [_Moments() for _ in numbers]
        known = self._moments
        if len(numbers) != len(known):
            padding = [math.nan] * (len(known) - len(numbers))
            numbers = [*numbers[: len(known)], *padding]
        if self._range is not None:
            low, high = self._range
            middle, half = (low + high) / 2, (high - low) / 2
            scaled = [(number - middle) / half for number in numbers]
            return [x if -CLIP <= x <= CLIP else _clipped(x) for x in scaled]
        return [moments.scaled(number) for moments, number in zip(known, numbers, strict=True)]

    def _shape(self, text: str) -> list[float]:
        """Return a text's shape: its length and counts of words, lines, digits and questions."""
        head = text[:TEXT_CHARS_MAX]
        size = len(head) or 1
        words = head.count(" ") + 1
        return [
            math.log1p(len(text)) / 6.0 - 1.0,
            math.log1p(words) / 4.0 - 1.0,
            math.log1p(head.count("\n")) / 3.0,
            min(4.0, 8.0 * sum([head.count(digit) for digit in "0123456789"]) / size),
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
        found = {(a * 31 + b) & SPARSE_MASK for a, b in pairwise(at)}
        found.update(at)
        return zip(found, repeat(WORDS / math.sqrt(len(found) or 1)))

    def save(self) -> bytes:
        """Return the learned scales."""
        known = self._moments
        return json.dumps(known if known is None else [m.save() for m in known]).encode()

    def load(self, state: bytes) -> None:
        """Load saved scales. Raises ValueError if they are damaged."""
        known = json.loads(state)
        self._moments = known if known is None else [_Moments(*moments) for moments in known]


class _Hashes(dict[str, int]):
    """Cache of word hashes, computed on first use."""

    def __missing__(self, word: str) -> int:
        index = self[word] = zlib.crc32(word.encode()) & SPARSE_MASK
        return index


class _Moments:
    """Running mean and variance of one number (Welford), over about the last 1000 values."""

    __slots__ = ("_count", "_mean", "_variance")

    def __init__(self, count: float = 0.0, mean: float = 0.0, variance: float = 0.0) -> None:
        self._count, self._mean, self._variance = count, mean, variance

    def scaled(self, number: float) -> float:
        """Return the number in standard deviations from the mean, and include it in the moments."""
        # A number beyond 1e100 is not a measurement, and its square would be infinite.
        if not abs(number) < 1e100:
            return 0.0
        self._count = min(self._count + 1.0, 1000.0)
        step = (number - self._mean) / self._count
        before = number - self._mean
        self._mean += step
        self._variance += (before * (number - self._mean) - self._variance) / self._count
        deviation = math.sqrt(self._variance)
        if not deviation > 0.0:
            return 0.0
        scaled = (number - self._mean) / deviation
        return scaled if -CLIP <= scaled <= CLIP else _clipped(scaled)

    def save(self) -> tuple[float, float, float]:
        """Return the state."""
        return self._count, self._mean, self._variance


def _clipped(number: float) -> float:
    # NaN compares false with everything and therefore becomes the average.
    return (
        number
        if -CLIP <= number <= CLIP
        else CLIP
        if number > CLIP
        else -CLIP
        if number < -CLIP
        else 0.0
    )
