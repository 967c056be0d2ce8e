"""What a reply in hand adds to a request's features.

Its confidence as it tells it (top probability, margin, normalised entropy), whether it agrees with
the replies before it, and which answer it is: a model is rarely equally sure and equally right of
all its answers.
"""

import zlib
from collections.abc import Sequence
from typing import Any

from backends.types import Answer
from policies.types import Context

CONFIDENCES = 3
SPARSE_SIZE = 1 << 18
LABEL_CHARS_MAX = 64  # a longer text is not a label, and would be a feature of its own every time


def with_reply(context: Context, replies: Sequence[tuple[str, Answer]]) -> Context:
    """Return the context for the choice after `replies` (backend, answer), in their order."""
    backend, answer = replies[-1]
    told = [*answer.features[:CONFIDENCES], *[0.0] * (CONFIDENCES - len(answer.features))]
    earlier = [other.value for _, other in replies[:-1]]
    agreeing = sum(value == answer.value for value in earlier) / len(earlier) if earlier else 0.0
    label = _label(answer.value)
    sparse = context.sparse
    if label:
        index = zlib.crc32(f"{backend}={label}".encode()) % SPARSE_SIZE
        sparse = (*sparse, (index, 1.0))
    return Context(context.dense, sparse, (*told, agreeing, float(len(earlier))), backend)


def _label(value: Any) -> str:
    if isinstance(value, (str, int)) and len(text := str(value)) <= LABEL_CHARS_MAX:
        return text
    return ""
