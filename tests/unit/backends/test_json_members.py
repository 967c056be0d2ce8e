"""Members are taken out of a JSON object; every other byte stays."""

import json
from random import Random

import pytest

from tollway.backends.json_members import has, with_first, with_number, without


@pytest.mark.parametrize(
    "body,names,left",
    [
        (b'{"a":1,"b":2,"c":3}', ["b"], b'{"a":1,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', ["a"], b'{"b":2,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', ["b", "c"], b'{"a":1}'),
        (b'{"a":1}', ["a"], b"{}"),
        (b' { "a" : 1 ,\n "b" : [1, {"a": 2}] } ', ["a"], b' { "b" : [1, {"a": 2}] } '),
        (b'{"n":12345678901234567890123,"x":1e999,"t":0}', ["t"],
         b'{"n":12345678901234567890123,"x":1e999}'),
        (b'{"a":1,"b":2,"a":3}', ["a"], b'{"b":2}'),
        (b'{"b":2,"b":3,"a":1}', ["a"], b'{"b":2,"b":3}'),
        (b'{"o":{"x":1,"y":2},"z":0}', ["o.x"], b'{"o":{"y":2},"z":0}'),
        (b'{"o":{"x":1},"o.x":2}', ["o.x"], b'{"o":{}}'),
        (b'{"o":7}', ["o.x"], b'{"o":7}'),
        (b'{"\\u0061":1,"b":"\\u00e9\\ud83d\\ude00"}', ["a"], b'{"b":"\\u00e9\\ud83d\\ude00"}'),
        ('{"a":1,"b":"日本"}'.encode(), ["a"], '{"b":"日本"}'.encode()),
        (b"{}", ["a"], b"{}"),
        (b'{"a":"}\\",{"}', ["b"], b'{"a":"}\\",{"}'),
    ],
)  # fmt: skip
def test_members_are_taken_out_and_nothing_else(body: bytes, names: list[str], left: bytes) -> None:
    assert without(body, names) == left


def test_a_digit_too_many_for_an_integer_of_ours_is_no_obstacle() -> None:
    number = b"9" * 10_000
    assert without(b'{"a":1,"n":' + number + b"}", ["a"]) == b'{"n":' + number + b"}"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a"}', b'{"a":1', b'{"a":1,}', b"\xff"])
def test_what_is_no_object_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        without(body, ["a"])


_VALUES: list[object] = [None, -1.5, "}", 'a"\\', [], {}, [1, {"a": [2]}], {"a": 1, "c": {}}]


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_it_does_what_deleting_keys_of_the_document_does(indent: int | None) -> None:
    rng = Random(5)
    for _ in range(300):
        keys = rng.sample(["a", "b", "c", "d", ""], rng.randrange(6))
        document = {key: rng.choice(_VALUES) for key in keys}
        body = json.dumps(document, indent=indent).encode()
        expected = {key: value for key, value in document.items() if key not in {"a", "c"}}
        assert json.loads(without(body, ["a", "c"])) == expected
        assert without(body, ["x"]) == body


def test_whether_a_document_has_a_dotted_member() -> None:
    document = {"a": {"b": None}, "c": 1}
    assert has(document, "a.b")
    assert has(document, "c")
    assert not has(document, "c.d")
    assert not has(document, "a.c")
    assert not has([], "a")


@pytest.mark.parametrize(
    ("body", "names", "left"),
    [
        (b'{"a":1,"b":2}', ["a"], b'{"a":7,"b":2}'),
        (b' { "a" : null ,"b":{"a":1}, "a":"x" } ', ["a"], b' { "a" : 7 ,"b":{"a":1}, "a":7 } '),
        (b'{"\\u0061":[1,{"a":2}],"n":12345678901234567890123}', ["a"],
         b'{"\\u0061":7,"n":12345678901234567890123}'),
        (b'{"a":1,"b":2}', ["b", "a"], b'{"a":7,"b":7}'),
        (b'{"c":1}', ["a"], b'{"c":1}'),
    ],
)  # fmt: skip
def test_members_are_set_wherever_they_occur_and_nothing_else(
    body: bytes, names: list[str], left: bytes
) -> None:
    assert with_number(body, names, 7) == left


def test_a_member_is_put_before_all_others() -> None:
    assert with_first(b' {"b":1}', "a", 7) == b' {"a":7,"b":1}'
