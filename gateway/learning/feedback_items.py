"""Parses and validates feedback from clients. Errors say what to send instead.

All input is untrusted and is therefore bounded before use: a probability of 5e-324 would be an
infinite weight, and a label could be a document of any depth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

PROBABILITY_MIN = 0.001
"""Smallest probability that a client may give for an answer having been chosen for judging. Below
one in a thousand, a single label would stand for more answers than a quality bound is based on."""

FEEDBACK_MAX = 100  # per call; send a larger batch in several calls
LABEL_BYTES_MAX = 4096  # a class, a vector of a few hundred numbers, a short text
LABEL_DEPTH_MAX = 8  # levels: a batch of vectors has two
SOURCE_CHARS_MAX = 64
_MEMBERS = {"decision", "quality", "correct", "label", "qualities", "source", "probability"}
_KINDS = ("quality", "correct", "label", "qualities")
QUALITIES_MAX = 64  # backends of a route


class BadFeedback(ValueError):  # noqa: N818 - reads as what happened
    """Feedback that nothing can be learned from. The message says what to send."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """A client's feedback on an answer: exactly one of a quality, a true label and qualities.

    `qualities`: of the replies of several backends to the same request, by backend.
    `probability`: the probability with which this answer was chosen for judging.
    """

    decision: str
    quality: float | None = None
    label: Any = None
    qualities: Mapping[str, float] | None = None
    source: str = ""
    probability: float = 1.0


def parse(document: Any, *, probability_min: float = PROBABILITY_MIN) -> Feedback:
    """Parse one piece of feedback. Raises BadFeedback with the reason."""
    if not isinstance(document, dict) or not isinstance(document.get("decision"), str):
        raise BadFeedback('send {"decision": "<id>"} with one of quality, correct, label')
    unknown = document.keys() - _MEMBERS
    if unknown:
        raise BadFeedback(f"unknown member {min(unknown)[:64]!r}; send quality, correct or label")
    probability = check_probability(document.get("probability", 1.0), probability_min)
    return replace(_parsed(document), probability=probability)


def check_probability(value: Any, least: float = PROBABILITY_MIN) -> float:
    """Return a valid probability. Raises BadFeedback otherwise."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= 1:
        raise BadFeedback(f"probability must be a number from {least:g} to 1")
    return float(value)


def check_quality(value: Any) -> float:
    """Return a valid quality. Raises BadFeedback otherwise."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise BadFeedback("quality must be a number from 0 to 1")
    return float(value)


def _parsed(document: dict[str, Any]) -> Feedback:
    members = [name for name in _KINDS if document.get(name) is not None]
    if len(members) != 1:
        raise BadFeedback(
            f"send exactly one of quality, correct and label, not {members or 'none'}"
        )
    source = document.get("source", "")
    if not isinstance(source, str) or len(source) > SOURCE_CHARS_MAX:
        raise BadFeedback(f"source must be a string of at most {SOURCE_CHARS_MAX} characters")
    value = document[members[0]]
    if members[0] == "label":
        _check_label(value)
        return Feedback(document["decision"], label=value, source=source)
    if members[0] == "qualities":
        return Feedback(document["decision"], qualities=_qualities(value), source=source)
    if members[0] == "correct":
        if not isinstance(value, bool):
            raise BadFeedback("correct must be true or false")
        return Feedback(document["decision"], quality=float(value), source=source)
    return Feedback(document["decision"], quality=check_quality(value), source=source)


def _qualities(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not 0 < len(value) <= QUALITIES_MAX:
        raise BadFeedback("qualities must be an object with a quality for each backend")
    return {str(backend): check_quality(quality) for backend, quality in value.items()}


def _check_label(label: Any) -> None:
    """Raise BadFeedback if a label is too large or nested too deeply."""
    size = len(orjson.dumps(label))
    if size > LABEL_BYTES_MAX:
        raise BadFeedback(f"label has {size} bytes of JSON; send at most {LABEL_BYTES_MAX}")
    level, depth = [label], 0
    while level:
        depth += 1
        if depth > LABEL_DEPTH_MAX:
            raise BadFeedback(f"label is nested too deeply: {LABEL_DEPTH_MAX} levels at most")
        level = [part for value in level for part in _parts(value)]


def _parts(value: Any) -> list[Any]:
    """Return the elements of a list or an object; a scalar has none."""
    if isinstance(value, dict):
        return list(value.values()) or [None]
    if isinstance(value, list):
        return value or [None]
    return []
