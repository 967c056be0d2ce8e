from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.backends.json_path import compile_first, compile_path, numbers, texts

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
        (".a", "'.a'"),
        ("a.", "'.'"),
        ("a..b", "'..b'"),
        ("a[x]", r"'\[x\]'"),
        ("a[0]b", "'b'"),
        ("a.[0]", r"'.\[0\]'"),
        ("a b", "' b'"),
        ("a[:::]", r"'\[:::\]'"),
        ("a[", r"'\['"),
        ("a[1.5]", r"'\[1.5\]'"),
    ],
)
def test_a_path_that_cannot_be_read_is_refused_at_the_place(path: str, place: str) -> None:
    with pytest.raises(ValueError, match=f"at {place}; write it like"):
        compile_path(path)


@pytest.mark.parametrize(("path", "error"), [("", "empty"), ("a[::0]", "step by 0")])
def test_a_path_that_says_nothing_is_refused(path: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        compile_path(path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("label", 7),
        ("outputs[0].data", [1, 2, 3, 4]),
        ("outputs[*].name", "a"),
        ("outputs[*].data", [1, 2, 3, 4]),
        ("outputs[*].data[3]", 4),
        ("outputs[::-1][*].data[3]", 4),
        ("outputs[*].data[*]", 1),
        ("outputs[*].x", None),
        ("label[*]", None),
        ("missing[*].x", None),
    ],
)
def test_the_first_value_is_that_of_the_first_element_that_has_one(path: str, value: Any) -> None:
    assert compile_first(path)(DOCUMENT) == value


MIXED = {
    "inputs": [{"data": [[1, 2], [3, 4.5]], "name": "x"}],
    "messages": [{"content": "a b"}, {"content": ["c", {"text": "d"}]}, {"role": "user"}],
    "n": True,
}


def test_numbers_are_flattened_in_order() -> None:
    assert numbers(compile_path("inputs[*].data")(MIXED)) == [1, 2, 3, 4.5]
    assert numbers(compile_path("inputs[0].data[1:]")(MIXED)) == [3, 4.5]
    assert numbers(compile_path("n")(MIXED)) == [1.0]
    assert numbers(compile_path("inputs[0].name")(MIXED)) == []
    assert numbers(compile_path("missing[*].data")(MIXED)) == []


def test_texts_are_those_that_are_texts() -> None:
    assert texts(compile_path("messages[*].content")(MIXED)) == ["a b", "c"]
    assert texts(compile_path("inputs[0].name")(MIXED)) == ["x"]
    assert texts(compile_path("n")(MIXED)) == []


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.from_regex(r"[A-Za-z_$][\w$-]*", fullmatch=True), inner, max_size=4)
    ),
    max_leaves=20,
)


def places(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of everything in a document."""
    if path:
        yield path, document
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, f"{path}.{key}" if path else key)
    elif isinstance(document, list):
        for at, value in enumerate(document):
            yield from places(value, f"{path}[{at}]")


@given(DOCUMENTS)
def test_every_value_of_a_document_is_at_its_path(document: Any) -> None:
    for path, value in places(document):
        assert compile_path(path)(document) is value
        assert compile_first(path)(document) is value


@given(DOCUMENTS)
def test_each_element_is_what_every_index_finds(document: Any) -> None:
    for path, value in places(document):
        if isinstance(value, list):
            elements = [compile_path(f"{path}[{at}]")(document) for at in range(len(value))]
            assert compile_path(f"{path}[*]")(document) == elements
            assert compile_path(f"{path}[:]")(document) == elements
            present = [element for element in elements if element is not None]
            assert compile_first(f"{path}[*]")(document) == next(iter(present), None)


@given(DOCUMENTS)
def test_a_list_flattens_to_what_its_elements_do(document: Any) -> None:
    for _, value in places(document):
        if isinstance(value, list):
            # As features they are floats: an integer may stay one until then.
            each = [number for element in value for number in numbers(element)]
            assert [float(number) for number in numbers(value)] == [float(one) for one in each]
            assert texts(value) == [text for element in value for text in texts(element)]


@given(st.text(alphabet="ab.$_-[]:*019 é", max_size=20) | st.text(max_size=30))
def test_any_text_is_a_path_or_refused_with_a_remedy(text: str) -> None:
    try:
        gets = compile_path(text), compile_first(text)
    except ValueError as exc:
        assert "write it like" in str(exc) or "step by 0" in str(exc)
        return
    for get in gets:
        numbers(get(MIXED)), texts(get(MIXED))
