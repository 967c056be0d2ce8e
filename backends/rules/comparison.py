"""Comparisons in rules, such as `ink > 300` or `subject contains "invoice"`, compiled to functions.

The left side is a feature; the right side is a TOML literal, or (except for `matches`) another
feature. A comparison between different types is false, and so is one with a missing value.
"""

import math
import operator
import re
import tomllib
from collections.abc import Callable, Collection
from typing import Any

from tollway.backends.rules.features import Facts

Test = Callable[[Facts], bool]

PATTERN_CHARS_MAX = 200
"""Of a regular expression: a longer one is unreadable, and its backtracking cannot be assessed."""

TEXT_CHARS_MAX = 4_096
"""Of a text that a regular expression searches: one page, so that backtracking stays bounded."""

_ORDERED: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARISON = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|==|!=|<|>|contains\b|matches\b)\s*(.+)", re.S)
_NAME = re.compile(r"[A-Za-z_]\w*")


def comparison(text: Any, features: Collection[str]) -> Test:
    """Compile a comparison; ValueError says what is wrong and what to write."""
    match = _COMPARISON.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            "is no comparison; write it like 'ink > 300', with one of "
            "< <= > >= == != contains matches"
        )
    name, sign, right = match[1], match[2], match[3].strip()
    _check_known(name, features)
    if sign == "matches":
        return _matches(name, right)
    if _NAME.fullmatch(right) and right not in ("true", "false", "inf", "nan"):
        _check_known(right, features)
        return _test(name, sign, lambda facts: facts[right])
    value = _literal(right)
    if sign in _ORDERED and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{value!r} is not a number; {sign} compares numbers")
    return _test(name, sign, lambda facts: value)


def _test(name: str, sign: str, right: Callable[[Facts], Any]) -> Test:
    if sign == "contains":
        return lambda facts: _contains(facts[name], right(facts))
    if sign == "==":
        return lambda facts: facts[name] is not None and bool(facts[name] == right(facts))
    if sign == "!=":
        return lambda facts: facts[name] is not None and bool(facts[name] != right(facts))
    compare = _ORDERED[sign]

    def ordered(facts: Facts) -> bool:
        try:
            return bool(compare(facts[name], right(facts)))
        except TypeError:  # None, or a text with a number
            return False

    return ordered


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(whole, str):
        return isinstance(part, str) and part in whole
    return isinstance(whole, list) and part in whole


def _matches(name: str, right: str) -> Test:
    pattern = _literal(right)
    if not isinstance(pattern, str) or len(pattern) > PATTERN_CHARS_MAX:
        raise ValueError(
            f"matches needs a quoted pattern of at most {PATTERN_CHARS_MAX} characters, "
            "such as '(?i)invoice|receipt'"
        )
    try:
        search = re.compile(pattern).search
    except re.error as exc:
        raise ValueError(f"{pattern!r} is no regular expression: {exc}") from exc

    def matches(facts: Facts) -> bool:
        text = facts[name]
        return isinstance(text, str) and search(text[:TEXT_CHARS_MAX]) is not None

    return matches


def _literal(text: str) -> Any:
    """Parse a TOML literal."""
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(
            f"{text} is neither a number, a quoted text, true, false, nor a feature"
        ) from exc
    value = read.pop("value")
    if read or isinstance(value, dict) or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"{text} is no single value")
    return value


def _check_known(name: str, features: Collection[str]) -> None:
    if name not in features:
        known = ", ".join(features) or "none"
        raise ValueError(f"{name!r} is no feature; [features] has: {known}")
