"""Rules declared in a TOML file, compiled once to a function from a document to a Ruling.

    [features]
    ink = { path = "inputs[0].data", take = "sum" }
    middle = { path = "inputs[0].data[27:29]", take = "mean" }

    [[rules]]                            # in order; the first whose comparisons all hold answers
    when = ["middle < 1", "ink > 300"]
    answer = 0
    confidence = 0.9

    [[scores]]                           # if no rule holds: softmax of linear sums, one per label
    answer = 1
    bias = -2.0
    weights = { middle = 0.5 }           # a feature that is a list takes a list of as many weights

    [default]                            # without scores, or if one of their features is missing
    answer = 8
    confidence = 0.1

A file has rules or scores or both, and always a default, so that rules always answer.
"""

import math
import tomllib
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from operator import mul
from pathlib import Path
from typing import Any

from tollway.backends.json_path import Get
from tollway.backends.rules.comparison import Test, comparison
from tollway.backends.rules.features import Facts, feature
from tollway.backends.rules.ruling import Ruling

Decide = Callable[[Any], Ruling]

_RULE = ("when", "answer", "confidence")
_SCORE = ("answer", "bias", "weights")
_DEFAULT = ("answer", "confidence")
_FILE = ("features", "rules", "scores", "default")

ENTRIES_MAX = 1_000
"""Rules or scores in a file: at a microsecond each, a millisecond a call."""


class _Wrong(ValueError):  # noqa: N818 - reads as what it says
    """An error at a place in the file."""

    def __init__(self, place: str, key: str, value: Any, why: str) -> None:
        where = f"{place}: " if place else ""
        super().__init__(
            f"{where}{key}: {why}" if value is None else f"{where}{key} = {value!r}: {why}"
        )


def load(path: Path) -> Decide:
    """Read and compile a file of rules.

    Raises ValueError that names the file, the rule by its number, the key, the value, and what to
    write instead; OSError if the file cannot be read.
    """
    try:
        return compile_rules(tomllib.loads(path.read_text("utf-8")))
    except ValueError as exc:  # includes TOML and UTF-8 errors
        raise ValueError(f"{path}: {exc}") from exc


def compile_rules(table: dict[str, Any]) -> Decide:
    """Compile rules from a file's table; ValueError says what is wrong."""
    _check_keys("", table, _FILE)
    features = _features(table.get("features", {}))
    rules = [_rule(f"rule {n}", rule, features) for n, rule in _entries(table, "rules")]
    scores = [_score(f"score {n}", score, features) for n, score in _entries(table, "scores")]
    if not rules and not scores:
        raise _Wrong("", "rules", None, "is missing; write [[rules]] or [[scores]]")
    default = _default(table.get("default"))
    weigh = _softmax(scores) if scores else None

    def decide(document: Any) -> Ruling:
        facts = Facts(features, document)
        for tests, ruling in rules:
            if all(test(facts) for test in tests):
                return ruling
        return (weigh(facts) if weigh is not None else None) or default

    return decide


def _features(table: Any) -> dict[str, Get]:
    if not isinstance(table, dict):
        raise _Wrong("", "features", table, "must be a table; write [features]")
    compiled: dict[str, Get] = {}
    for name, written in table.items():
        if not name.isidentifier():
            raise _Wrong("", f"features.{name}", None, "name it with letters, digits and _")
        try:
            compiled[name] = feature(written)
        except ValueError as exc:
            raise _Wrong("", f"features.{name}", written, str(exc)) from exc
    return compiled


def _entries(table: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the tables of a list with their numbers, from 1."""
    entries = table.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _Wrong("", key, entries, f"must be tables; write each under [[{key}]]")
    if len(entries) > ENTRIES_MAX:
        raise _Wrong("", key, None, f"has {len(entries)} entries; the maximum is {ENTRIES_MAX}")
    return iter(enumerate(entries, 1))


def _rule(
    place: str, rule: dict[str, Any], features: dict[str, Get]
) -> tuple[tuple[Test, ...], Ruling]:
    _check_keys(place, rule, _RULE)
    when = rule.get("when")
    if not isinstance(when, list) or not when:
        raise _Wrong(place, "when", when, "must list comparisons; write when = ['ink > 300']")
    tests = []
    for at, text in enumerate(when):
        try:
            tests.append(comparison(text, features))
        except ValueError as exc:
            raise _Wrong(place, f"when[{at}]", text, str(exc)) from exc
    return tuple(tests), _ruling(place, rule)


def _default(table: Any) -> Ruling:
    if not isinstance(table, dict):
        why = "must have the answer for when no rule holds; write default = { answer = 0 }"
        raise _Wrong("", "default", table, why)
    _check_keys("default", table, _DEFAULT)
    return _ruling("default", table)


def _ruling(place: str, table: dict[str, Any]) -> Ruling:
    confidence = table.get("confidence")
    if confidence is not None and not (_is_number(confidence) and 0 <= confidence <= 1):
        raise _Wrong(place, "confidence", confidence, "must be from 0 to 1; write e.g. 0.8")
    return Ruling(_answer(place, table), confidence)


def _answer(place: str, table: dict[str, Any]) -> Any:
    answer = table.get("answer")
    if (not isinstance(answer, str | int) and not _is_number(answer)) or answer == "":
        why = 'must be a label, a number or a text; write e.g. answer = 7 or answer = "spam"'
        raise _Wrong(place, "answer", answer, why)
    return answer


# -- scores: a linear sum for each label

Weigh = Callable[[Facts], float]


def _score(place: str, score: dict[str, Any], features: dict[str, Get]) -> tuple[Any, Weigh]:
    _check_keys(place, score, _SCORE)
    bias, weights = score.get("bias", 0.0), score.get("weights", {})
    if not _is_number(bias):
        raise _Wrong(place, "bias", bias, "must be a finite number; write e.g. bias = -1.5")
    if not isinstance(weights, dict):
        raise _Wrong(place, "weights", weights, "must be a table; write weights = { ink = 0.5 }")
    for name, weight in weights.items():
        if name not in features:
            known = ", ".join(features) or "none"
            why = f"is no feature; [features] has: {known}"
            raise _Wrong(place, f"weights.{name}", weight, why)
        row = weight if isinstance(weight, list) else [weight]
        if not row or not all(map(_is_number, row)):
            why = "must be a number, or a list of numbers for a feature that is a list"
            raise _Wrong(place, f"weights.{name}", weight, why)
    return _answer(place, score), _linear(bias, weights)


def _linear(bias: float, weights: dict[str, Any]) -> Weigh:
    numbers = [(name, weight) for name, weight in weights.items() if not isinstance(weight, list)]
    rows = [(name, weight) for name, weight in weights.items() if isinstance(weight, list)]

    def weigh(facts: Facts) -> float:
        total = bias
        for name, weight in numbers:
            total += weight * facts[name]
        for name, row in rows:
            if len(facts[name]) != len(row):
                raise TypeError(f"{name} has {len(facts[name])} numbers, its weights {len(row)}")
            total += sum(map(mul, row, facts[name]))
        return total

    return weigh


def _softmax(scores: list[tuple[Any, Weigh]]) -> Callable[[Facts], Ruling | None]:
    """Return a function that weighs the labels; it returns None without all numeric features."""
    labels = [label for label, _ in scores]
    if len(scores) < 2 or len(set(labels)) < len(labels):
        raise _Wrong("", "scores", labels, "must have at least two labels, each once")

    def weigh(facts: Facts) -> Ruling | None:
        try:
            sums = [linear(facts) for _, linear in scores]
        except TypeError:  # a feature is missing, not a number, or a list of another length
            return None
        top = max(sums)
        powers = [math.exp(each - top) for each in sums]
        total = sum(powers)
        if not math.isfinite(total):
            return None
        probabilities = tuple(power / total for power in powers)
        best = max(probabilities)
        return Ruling(labels[probabilities.index(best)], best, probabilities)

    return weigh


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _check_keys(place: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key, value in table.items():
        if key not in known:
            near = get_close_matches(key, known, n=1) or known
            raise _Wrong(place, key, value, f"is unknown; write {' or '.join(near)}")
