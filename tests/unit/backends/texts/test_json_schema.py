"""What a value violates of a JSON Schema, and what is too much to check."""

from typing import Any

import pytest

from tollway.backends.texts.json_schema import TooMuchWork, violation

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "value", "where"),
    [
        (PERSON, {"name": "Ada", "age": 36}, ""),
        (PERSON, {"age": 36}, "$: name is missing"),
        (PERSON, {"name": "Ada", "age": "36"}, "$.age: is not integer"),
        (PERSON, {"name": "", "age": 1}, "$.name: has fewer than 1"),
        (PERSON, {"name": "Ada", "height": 2}, "$: height is not allowed"),
        ({"type": ["string", "null"]}, None, ""),
        ({"type": "integer"}, True, "$: is not integer"),
        ({"type": "integer"}, 3.0, ""),
        ({"enum": ["a", 1]}, True, "$: is not one of the allowed values"),
        ({"const": 1}, 1.0, ""),
        ({"type": "array", "items": PERSON}, [{"name": "x"}, {}], "$[1]: name is missing"),
        ({"items": {"minimum": 0, "exclusiveMaximum": 1}}, [0, 1], "$[1]: breaks exclusiveMaximum"),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, 4, "$: fits none of anyOf"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, 3, "$: fits 2 of oneOf"),
        ({"allOf": [{"minItems": 1}, {"maxItems": 2}]}, [1, 2, 3], "$: has more than 2"),
        ({"not": {"type": "string"}}, "x", "$: is what `not` excludes"),
        ({"$defs": {"n": {"type": "number"}}, "$ref": "#/$defs/n"}, "x", "$: is not number"),
        ({"$ref": "https://elsewhere.example/schema"}, "x", ""),
        (False, 1, "$: nothing is allowed"),
        (True, 1, ""),
        ("no schema", 1, ""),
        ({"pattern": "(a+)+$"}, "a" * 100 + "b", ""),  # could run for hours
    ],
)
def test_a_violation_says_where(schema: Any, value: Any, where: str) -> None:
    assert violation(schema, value).startswith(where) if where else not violation(schema, value)


def test_a_schema_that_refers_to_itself_ends() -> None:
    with pytest.raises(TooMuchWork):
        violation({"$ref": "#"}, 1)


def test_work_is_limited() -> None:
    with pytest.raises(TooMuchWork):
        violation({"items": {"type": "integer"}}, [1] * 30_000)


@pytest.mark.parametrize(
    ("inner", "value"),
    [
        ({"required": ["a"] * 30_000}, {"a": 1}),
        ({"type": ["string"] * 30_000}, "x"),
        ({"enum": ["x"] * 30_000}, "x"),
        ({"$ref": "#/" + "a/" * 30_000}, "x"),
    ],
)
def test_entries_of_lists_are_work(inner: Any, value: Any) -> None:
    with pytest.raises(TooMuchWork):
        violation({"x": inner, "allOf": [{"$ref": "#/x"}] * 2_000}, value)
