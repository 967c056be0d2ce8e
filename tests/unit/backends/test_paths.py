"""Paths lead into documents, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.backends.json_values import first, numbers, parse, texts

DOC = {
    "inputs": [{"data": [[1, 2], [3, 4.5]], "name": "x"}],
    "messages": [{"content": "a b"}, {"content": ["c", {"text": "d"}]}, {"role": "user"}],
    "n": True,
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("inputs[0].name", "x"),
        ("inputs[-1].name", "x"),
        ("inputs[0].data[1][0]", 3),
        ("inputs[5].name", None),
        ("inputs.name", None),
        ("nothing.at.all", None),
        ("messages[*].content", "a b"),
    ],
)
def test_a_path_finds_what_stands_there(path: str, expected: object) -> None:
    assert first(DOC, parse(path)) == expected


def test_numbers_are_flattened_in_order() -> None:
    assert numbers(DOC, parse("inputs[*].data")) == [1, 2, 3, 4.5]
    assert numbers(DOC, parse("n")) == [1.0]
    assert numbers(DOC, parse("inputs[0].name")) == []


def test_texts_are_those_that_are_texts() -> None:
    assert texts(DOC, parse("messages[*].content")) == ["a b", "c"]


@pytest.mark.parametrize("bad", ["", "a..b", "[x]", "a[", "a b", "a[1.5]"])
def test_what_is_no_path_is_refused_with_the_place(bad: str) -> None:
    with pytest.raises(ValueError, match="path"):
        parse(bad)


@given(st.text(max_size=30))
def test_no_text_breaks_the_parser_or_the_walk(text: str) -> None:
    try:
        steps = parse(text)
    except ValueError:
        return
    numbers(DOC, steps), texts(DOC, steps)
