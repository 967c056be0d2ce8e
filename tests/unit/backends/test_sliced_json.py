"""A large document is read in slices, with the same result as in one piece."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollway.backends import sliced_json
from tollway.backends.sliced_json import UNREAD, VALUES_MAX, slices
from tollway.backends.types import Document

DEPTH = 200

texts = st.text(alphabet='aé€😀"\\\n[]{},: ', max_size=80)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(texts, inner, max_size=8),
    max_leaves=24,
)


def read(body: bytes, depth: int = DEPTH) -> tuple[Document, int]:
    """Return the document, and in how many slices it was read."""
    reading, count = slices(body, depth), 1
    while True:
        try:
            next(reading)
        except StopIteration as end:
            assert isinstance(end.value, Document)
            return end.value, count
        count += 1


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced_json, "WINDOW", 64)
    monkeypatch.setattr(sliced_json, "TEXT_WINDOW", 17)


@pytest.mark.usefixtures("small_windows")
@settings(max_examples=150)
@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_any_document_is_read_as_by_orjson(value: Any, escaped: bool, indent: int | None) -> None:
    body = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
    document, _ = read(body)
    assert document.is_whole
    assert json.dumps(document.value) == json.dumps(orjson.loads(body))


@pytest.mark.usefixtures("small_windows")
@settings(max_examples=100)
@given(values, st.booleans(), st.floats(0, 1), st.integers(0, 2))
def test_what_orjson_refuses_is_refused(
    value: Any, escaped: bool, place: float, missing: int
) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()
    at = int(place * len(body))
    for put in (b"", b",", b'"', b"[", b"}", b"\\", b"1", b"\xc3", b" ", b":"):
        broken = body[:at] + put + body[at + missing :]
        try:
            whole = orjson.loads(broken)
        except ValueError:
            with pytest.raises(ValueError, match=r"."):
                read(broken)
        else:
            assert json.dumps(read(broken)[0].value) == json.dumps(whole)


@pytest.mark.parametrize(
    "large",
    [
        b"[" + b"0," * VALUES_MAX + b"0]",
        b"[" + b"[]," * 100_000 + b"[]]",
        b"[" + b"{}," * 100_000 + b"{}]",
        b"{" + b",".join(b'"%d":0' % n for n in range(VALUES_MAX + 1)) + b"}",
        b"[[" + b"1,2],[" * 100_000 + b"3]]",
    ],
    ids=["numbers", "lists", "objects", "members", "nested"],
)
def test_what_is_too_large_is_checked_and_not_kept(large: bytes) -> None:
    document, count = read(b'{"before":1,"large":' + large + b',"after":[2]}')
    assert document.value == {"before": 1, "large": UNREAD, "after": [2]}
    assert not document.is_whole
    assert count > len(large) // sliced_json.WINDOW
    with pytest.raises(ValueError, match=r"."):
        read(b'{"large":' + large[:-1] + b"?}")


def test_a_list_with_an_unread_element_is_unread_because_places_would_shift() -> None:
    large = b"[" + b"0," * VALUES_MAX + b"0]"
    document, _ = read(b'{"data":[1,' + large + b',2],"m":"x"}')
    assert document.value == {"data": UNREAD, "m": "x"}


def test_text_takes_no_place_of_values() -> None:
    text = "word, [not] {a} list\\n" * 100_000
    document, count = read(orjson.dumps({"text": text, "more": [text, text]}))
    assert document.is_whole
    assert document.value == {"text": text, "more": [text, text]}
    assert count > 50


@pytest.mark.parametrize("size", [1, 1 << 16])
def test_depth_is_limited_in_windows_and_across_them(size: int) -> None:
    filler = b'"%s",' % (b"x" * size)
    deep = b"[" + filler
    assert read(deep * 199 + b"[]" + b"]" * 199)[0].is_whole
    with pytest.raises(ValueError, match="200 levels"):
        read(deep * 200 + b"[]" + b"]" * 200)
    with pytest.raises(ValueError, match="200 levels"):
        read(b"[" + filler + b"[" * 100_000)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("filler", ["", "x" * 200])
@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ('{"a":1,%s"b":2}', False),
        ('{"a":1,%s"a":2}', True),
        ('{"a":1,%s"\\u0061":2}', True),
        ('{"c":{"a":1,%s"b":":"},"a":1}', False),
        ('{"c":{"a":1,%s"a":2},"b":1}', True),
        ('{"m":[{"a":1},{"a":[{"b":1,%s"b":2}]}]}', False),  # deeper ones decide nothing
    ],
)
def test_a_repeated_name_is_noted(text: str, repeats: bool, filler: str) -> None:
    body = (text % (f'"f":"{filler}",' if filler else "")).encode()
    assert read(body)[0].repeats == repeats
