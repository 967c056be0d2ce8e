"""Features of the reply kept so far, added to a request's features.

The features are:

- The reported confidence: top probability, margin, normalised entropy. The top probability is also
  encoded as shares of the knots around it, so that a linear model can fit a curve.
- Whether the reply agrees with the replies before it.
- The answers so far, and the last one crossed with its confidence: a model is rarely equally
  confident and equally right in all its answers.

Replies of language models have no stated confidence; `text_features` computes what stands in its
place.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from tollway.backends.types import ModelAnswer
from tollway.gateway.features.text_features import TextFeatures
from tollway.policies.evidence.off_policy import onward
from tollway.policies.types import Choice, Context

CONFIDENCES = 3
SPARSE_SIZE = 1 << 18
LABEL_CHARS_MAX = 64  # a longer text is not a label and would be a new feature every time
KNOTS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # denser where most models' confidences are


def with_reply(  # noqa: PLR0917 - what precedes a choice, in its order
    context: Context,
    replies: Sequence[tuple[str, ModelAnswer]],
    choice: Choice,
    texts: TextFeatures | None = None,
    request: Any = None,
    verified: Mapping[str, float] = MappingProxyType({}),
) -> Context:
    """Return the context for the choice that follows `replies`, which are (backend, answer).

    `context` is the request's first context. `choice` produced the last reply. `texts` reads the
    replies if they are texts, to `request`, a document; `verified`: how likely they are right, by
    backend, where a verifier says so.
    """
    backend, answer = replies[-1]
    if texts is not None:
        sure, lowest, told, agreeing, more = texts(request, replies, verified.get(backend))
        shares = around(sure)
        reply = (sure, lowest, told, agreeing, float(len(replies) - 1), *shares, *more)
        sparse = (*context.sparse, *_answers(replies, shares))
        return Context(
            context.dense, sparse, reply, backend, context.scopes, *onward(choice), context.unit
        )
    confidences = [*answer.features[:CONFIDENCES], *[0.0] * (CONFIDENCES - len(answer.features))]
    earlier = [other.value for _, other in replies[:-1]]
    agreeing = sum(value == answer.value for value in earlier) / len(earlier) if earlier else 0.0
    shares = around(confidences[0])
    reply = (*confidences, agreeing, float(len(earlier)), *shares)
    sparse = (*context.sparse, *_answers(replies, shares))
    return Context(
        context.dense, sparse, reply, backend, context.scopes, *onward(choice), context.unit
    )


def around(confidence: float) -> tuple[float, ...]:
    """Return the shares of the knots: the two nearest share 1 by linear interpolation."""
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
    """Yield the answers so far, and the last one crossed with its confidence."""
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
