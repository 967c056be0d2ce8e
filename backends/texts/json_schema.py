"""Checks a value against a JSON Schema, as far as requests to language models use them.

Source: JSON Schema 2020-12, and the subset that providers accept for structured outputs. Keywords
that are not known here are ignored, as the standard says; so are `pattern` and `format`: a client's
regular expression could run for hours. Work is limited, because the schema is the client's and the
value is a model's.
"""

from collections.abc import Callable
from typing import Any

STEPS_MAX = 20_000  # values checked against schemas, and entries of lists in them: some 20 ms
DEPTH_MAX = 64  # of schemas within schemas, including references

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    ),
}


class TooMuchWork(ValueError):  # noqa: N818 - reads as what happened
    """The schema or the value is too large or too deep to be checked."""


def violation(schema: Any, value: Any) -> str:
    """Return where a value violates a schema, and how; empty if it conforms.

    Raises TooMuchWork if that cannot be decided within the limits.
    """
    return _Check(schema).at(schema, value, "$", 0)


class _Check:
    """One check. The mutable state is the number of steps that are left."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = STEPS_MAX

    def _spend(self, steps: int, path: str) -> None:
        self._left -= steps
        if self._left < 0:
            raise TooMuchWork(f"{path}: too much to check")

    def at(self, schema: Any, value: Any, path: str, depth: int) -> str:
        self._spend(1, path)
        if depth > DEPTH_MAX:
            raise TooMuchWork(f"{path}: too much to check")
        if schema is True or not isinstance(schema, dict):
            return "" if schema is not False else f"{path}: nothing is allowed"
        if isinstance(reference := schema.get("$ref"), str):
            self._spend(reference.count("/"), path)
            found = self._referred(reference)
            if wrong := self.at(found, value, path, depth + 1):
                return wrong
        kinds = schema.get("type")
        allowed = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
        self._spend(len(allowed), path)
        tests = [_TYPES[kind] for kind in allowed if isinstance(kind, str) and kind in _TYPES]
        if tests and not any(test(value) for test in tests):
            return f"{path}: is not {' or '.join(map(str, allowed))}"
        if "const" in schema and not _same(schema["const"], value):
            return f"{path}: is not the constant"
        choices = schema.get("enum")
        if isinstance(choices, list):
            self._spend(len(choices), path)
            if not any(_same(choice, value) for choice in choices):
                return f"{path}: is not one of the allowed values"
        if isinstance(value, dict):
            wrong = self._object(schema, value, path, depth)
        elif isinstance(value, list):
            wrong = self._array(schema, value, path, depth)
        else:
            wrong = _scalar(schema, value, path)
        return wrong or self._combined(schema, value, path, depth)

    def _object(self, schema: Any, value: dict[str, Any], path: str, depth: int) -> str:
        listed = schema.get("required")
        required = listed if isinstance(listed, list) else []
        self._spend(len(required), path)
        for name in required:
            if isinstance(name, str) and name not in value:
                return f"{path}: {name} is missing"
        known = schema.get("properties")
        properties = known if isinstance(known, dict) else {}
        others = schema.get("additionalProperties", True)
        if "patternProperties" in schema:
            others = True  # which names they cover is not known without the patterns
        for name, inner in value.items():
            expected = properties.get(name, others)
            if name not in properties and others is False:
                return f"{path}: {name} is not allowed"
            if wrong := self.at(expected, inner, f"{path}.{name}", depth + 1):
                return wrong
        return _sized(schema, len(value), path, "minProperties", "maxProperties")

    def _array(self, schema: Any, value: list[Any], path: str, depth: int) -> str:
        first = schema.get("prefixItems")
        prefix = first if isinstance(first, list) else []
        items = schema.get("items", True)
        for at, inner in enumerate(value):
            expected = prefix[at] if at < len(prefix) else items
            if wrong := self.at(expected, inner, f"{path}[{at}]", depth + 1):
                return wrong
        return _sized(schema, len(value), path, "minItems", "maxItems")

    def _combined(self, schema: Any, value: Any, path: str, depth: int) -> str:
        for part in _schemas(schema, "allOf"):
            if wrong := self.at(part, value, path, depth + 1):
                return wrong
        several = _schemas(schema, "anyOf")
        if several and all(self.at(part, value, path, depth + 1) for part in several):
            return f"{path}: fits none of anyOf"
        several = _schemas(schema, "oneOf")
        if several:
            fits = sum(not self.at(part, value, path, depth + 1) for part in several)
            if fits != 1:
                return f"{path}: fits {fits} of oneOf"
        if "not" in schema and not self.at(schema["not"], value, path, depth + 1):
            return f"{path}: is what `not` excludes"
        return ""

    def _referred(self, reference: str) -> Any:
        """Return what a reference within the document leads to; True, anything, if nowhere."""
        if not reference.startswith("#"):
            return True
        found: Any = self._root
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                return True
            found = found[name]
        return found


def _schemas(schema: Any, name: str) -> list[Any]:
    parts = schema.get(name)
    return parts if isinstance(parts, list) else []


def _same(left: Any, right: Any) -> bool:
    """Whether two values are equal in JSON, where true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _sized(schema: Any, count: int, path: str, least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if isinstance(low, int) and count < low:
        return f"{path}: has fewer than {low}"
    if isinstance(high, int) and count > high:
        return f"{path}: has more than {high}"
    return ""


def _scalar(schema: Any, value: Any, path: str) -> str:
    if isinstance(value, str):
        return _sized(schema, len(value), path, "minLength", "maxLength")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    bounds: tuple[tuple[str, Callable[[float, float], bool]], ...] = (
        ("minimum", lambda number, bound: number < bound),
        ("maximum", lambda number, bound: number > bound),
        ("exclusiveMinimum", lambda number, bound: number <= bound),
        ("exclusiveMaximum", lambda number, bound: number >= bound),
    )
    for name, breaks in bounds:
        bound = schema.get(name)
        if isinstance(bound, int | float) and not isinstance(bound, bool) and breaks(value, bound):
            return f"{path}: breaks {name} {bound}"
    return ""
