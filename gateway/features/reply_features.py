"""What a reply in hand adds to a request's features.

Its confidence as it tells it (top probability, margin, normalised entropy), the top one also as
shares of the knots around it, so that a line can bend; whether it agrees with the replies before
it; and which answers there were, the last together with how sure it was: a model is rarely equally
sure and equally right of all its answers.
"""

import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from tollway.backends.types import ModelAnswer
from tollway.policies.evidence.off_policy import onward
from tollway.policies.types import Choice, Context

CONFIDENCES = 3
SPARSE_SIZE = 1 << 18
LABEL_CHARS_MAX = 64  # a longer text is not a label, and would be a feature of its own every time
KNOTS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # closer where most models are, most of the time


def with_reply(
    context: Context, replies: Sequence[tuple[str, ModelAnswer]], choice: Choice
) -> Context:
    """Return the context for the choice after `replies` (backend, answer), in their order.

    `context` is the first one; `choice` led to the last reply.
    """
    backend, answer = replies[-1]
    told = [*answer.features[:CONFIDENCES], *[0.0] * (CONFIDENCES - len(answer.features))]
    earlier = [other.value for _, other in replies[:-1]]
    agreeing = sum(value == answer.value for value in earlier) / len(earlier) if earlier else 0.0
    shares = around(told[0])
    reply = (*told, agreeing, float(len(earlier)), *shares)
    sparse = (*context.sparse, *_answers(replies, shares))
    return Context(context.dense, sparse, reply, backend, context.scopes, *onward(choice))


def around(confidence: float) -> tuple[float, ...]:
    """Return the shares of the knots: two neighbours share 1 by how near each is."""
    clipped = min(max(confidence, KNOTS[0]), KNOTS[-1])
    shares = [0.0] * len(KNOTS)
    for at, (low, high) in enumerate(pairwise(KNOTS)):
        if clipped <= high:
            shares[at + 1] = (clipped - low) / (high - low)
            shares[at] = 1.0 - shares[at + 1]
            break
    return tuple(shares)


def _answers(
    replies: Sequence[tuple[str, ModelAnswer]], shares: Sequence[float]
) -> Iterator[tuple[int, float]]:
    """Yield which answers there were, and the last crossed with its confidence."""
    for backend, answer in replies:
        if label := _label(answer.value):
            yield _index(f"{backend}={label}"), 1.0
    backend, answer = replies[-1]
    if label := _label(answer.value):
        for at, share in enumerate(shares):
            if share:
                yield _index(f"{backend}={label}/{at}"), share


def _index(name: str) -> int:
    return zlib.crc32(name.encode()) % SPARSE_SIZE


def _label(value: Any) -> str:
    if isinstance(value, (str, int)) and len(text := str(value)) <= LABEL_CHARS_MAX:
        return text
    return ""
