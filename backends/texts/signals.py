"""Signals in a model's text: refusals, hedging, and whether two texts say the same.

Each is a number in [0, 1] that a policy learns from, not a verdict: whether a word means anything
on a route is learned from its labels. The words are English; in other languages their signals
are 0.
"""

import re
from collections import Counter

READ_CHARS = 8_192  # of a text: a tenth of a millisecond
HEAD_CHARS = 400  # where a refusal stands, if there is one
WORDS_MAX = 512  # compared between two texts
HEDGES_FULL = 0.05  # share of hedging words that counts as 1

_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able|afraid i)"
    r"|i (?:can(?:'t|not)|could not|couldn't|won't|will not|must decline|do not|don't) "
    r"(?:assist|help|provide|answer|fulfill|comply|do that|have (?:access|enough|information)|know"
    r"|determine|be able|create|generate|comment|discuss)"
    r"|as an ai(?: language model)?\b|unable to (?:assist|help|provide|answer|determine)"
    r"|against my guidelines|not enough information|insufficient information)",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:might|maybe|perhaps|possibly|probably|presumably|apparently|roughly|unclear|uncertain"
    r"|unsure|likely|i think|i believe|i guess|i assume|not sure|not certain|it seems|seems to"
    r"|appears to|it depends|hard to say|difficult to say|may be|could be)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_BOXED = re.compile(r"\\boxed\{([^{}]{1,64})\}")


def refuses(text: str) -> float:
    """Return 1 if a text begins as a refusal to answer does; else 0."""
    head = text[:HEAD_CHARS].replace("\u2019", "'")
    return float(_REFUSAL.search(head) is not None)


def hedges(text: str) -> float:
    """Return how much a text hedges: 0 without hedging words, 1 from one word in twenty on."""
    head = text[:READ_CHARS]
    words = head.count(" ") + 1
    found = sum(1 for _ in _HEDGE.finditer(head))
    return min(1.0, found / words / HEDGES_FULL)


def agreement(one: str, other: str) -> float:
    """Return how far two texts agree: 1 if they give the same final answer, else shared words.

    The final answer is what is boxed, or the last number, if both have one; of texts that end with
    different ones at most half of the agreement is left. Shared words are the F1 of their counts.
    """
    one, other = one[-READ_CHARS:], other[-READ_CHARS:]
    if _plain(one) == _plain(other):
        return 1.0
    shared = _f1(one, other)
    ends = _final(one), _final(other)
    if None in ends:
        return shared
    return max(shared, 0.9) if ends[0] == ends[1] else shared / 2


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _final(text: str) -> str | None:
    """Return what a text gives as its result; None if it has neither a box nor a number."""
    boxed = _BOXED.findall(text)
    if boxed:
        return str(boxed[-1]).strip()
    numbers = _NUMBER.findall(text)
    return numbers[-1].replace(",", "") if numbers else None


def _f1(one: str, other: str) -> float:
    left, right = (Counter(_WORD.findall(text.lower())[-WORDS_MAX:]) for text in (one, other))
    common = (left & right).total()
    return 2 * common / (left.total() + right.total()) if common else 0.0
