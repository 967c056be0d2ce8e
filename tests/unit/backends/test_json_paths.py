from typing import Any

import pytest

from tollway.backends.json_path import compile_path

DOCUMENT = {
    "label": 7,
    "outputs": [{"name": "a", "data": [1, 2, 3, 4]}, {"name": "b", "data": [5]}],
    "a-b": {"$c": True},
    "null": None,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("label", 7),
        ("outputs[0].data[1]", 2),
        ("outputs[-1].name", "b"),
        ("outputs[0].data[1:3]", [2, 3]),
        ("outputs[0].data[::2]", [1, 3]),
        ("outputs[0].data[::-1]", [4, 3, 2, 1]),
        ("outputs[0].data[-2:]", [3, 4]),
        ("outputs[*].name", ["a", "b"]),
        ("outputs[*].data[*]", [[1, 2, 3, 4], [5]]),
        ("outputs[*].data[3]", [4, None]),
        ("a-b.$c", True),
        ("null.x", None),
        ("label.x", None),
        ("label[0]", None),
        ("label[*]", None),
        ("missing[*].x", None),
        ("outputs[9]", None),
        ("outputs.name", None),
    ],
)
def test_a_path_leads_to_its_value_or_to_none(path: str, value: Any) -> None:
    assert compile_path(path)(DOCUMENT) == value


def test_a_path_may_begin_with_an_index() -> None:
    assert compile_path("[1][0].x")([0, [{"x": 3}]]) == 3


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", "''"),
        (".a", "'.a'"),
        ("a.", "'.'"),
        ("a..b", "'..b'"),
        ("a[x]", r"'\[x\]'"),
        ("a[0]b", "'b'"),
        ("a.[0]", r"'.\[0\]'"),
        ("a b", "' b'"),
        ("a[:::]", r"'\[:::\]'"),
    ],
)
def test_a_path_that_cannot_be_read_is_refused_at_the_place(path: str, place: str) -> None:
    with pytest.raises(ValueError, match=f"at {place}; write it like"):
        compile_path(path)
