"""Members of a JSON object are edited in its text; every other byte stays."""

import json
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tollway.backends import sliced_json
from tollway.backends.json_members import (
    Pieces,
    edited,
    has,
    member_texts,
    quoted,
    repeated,
    with_texts,
)


@pytest.mark.parametrize(
    ("body", "members", "made"),
    [
        (b'{"a":1 }', {"b": b"1e0", "c": b"[ 1]"}, b'{"a":1,"b":1e0,"c":[ 1]}'),
        (b" { } ", {"b": b"1"}, b' {"b":1} '),
        (b'{"b":1,"a":2}', {"a": b"3.0", "c": b"4"}, b'{"b":1,"a":3.0,"c":4}'),
        (b'{"a":{"c":1}}\n', {"c": b"2"}, b'{"a":{"c":1},"c":2}\n'),
        (b'{"a":1 }', {"a": b"2"}, b'{"a":2 }'),
    ],
)
def test_texts_of_members_are_put_last_or_in_their_places(
    body: bytes, members: dict[str, bytes], made: bytes
) -> None:
    assert with_texts(body, members) == made


@pytest.mark.parametrize(
    "body,names,left",
    [
        (b'{"a":1,"b":2,"c":3}', ["b"], b'{"a":1,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', ["a"], b'{"b":2,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', ["b", "c"], b'{"a":1}'),
        (b'{"a":1}', ["a"], b"{}"),
        (b' { "a" : 1 ,\n "b" : [1, {"a": 2}] } ', ["a"], b' { "b" : [1, {"a": 2}] } '),
        (b'{"n":12345678901234567890123,"x":1e99,"t":0}', ["t"],
         b'{"n":12345678901234567890123,"x":1e99}'),
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
    edits = dict.fromkeys(names)
    assert edited(body, edits) == edited(body, edits, orjson.loads(body)) == left


def test_a_digit_too_many_for_an_integer_of_ours_is_no_obstacle() -> None:
    number = b"9" * 10_000
    assert edited(b'{"a":1,"n":' + number + b"}", {"a": None}) == b'{"n":' + number + b"}"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a"}', b'{"a":1', b'{"a":1,}', b"\xff"])
def test_what_is_no_object_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        edited(body, {"a": None})


_VALUES: list[object] = [None, -1.5, "}", 'a"\\', [], {}, [1, {"a": [2]}], {"a": 1, "c": {}}]


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_it_does_what_deleting_keys_of_the_document_does(indent: int | None) -> None:
    rng = Random(5)
    for _ in range(300):
        keys = rng.sample(["a", "b", "c", "d", ""], rng.randrange(6))
        document = {key: rng.choice(_VALUES) for key in keys}
        body = json.dumps(document, indent=indent).encode()
        expected = {key: value for key, value in document.items() if key not in {"a", "c"}}
        assert json.loads(edited(body, {"a": None, "c": None})) == expected
        assert edited(body, {"x": None}) == body


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
    ],
)  # fmt: skip
def test_members_are_set_wherever_they_occur_and_nothing_else(
    body: bytes, names: list[str], left: bytes
) -> None:
    edits = dict.fromkeys(names, 7)
    assert edited(body, edits) == edited(body, edits, orjson.loads(body)) == left


@pytest.mark.parametrize(
    ("body", "edits", "left"),
    [
        (b' {"b":1}', {"a": 7}, b' {"a":7,"b":1}'),
        (b"{ }", {"a": "\u00e9"}, '{"a":"\u00e9" }'.encode()),
        (b'{"b":1}', {"o.x": 1, "o.y": 2, "b": None}, b'{"o":{"x":1,"y":2}}'),
        (b'{"o":null}', {"o.x": 1}, b'{"o":{"x":1}}'),
        (b'{"o":null}', {"o.x": None}, b'{"o":null}'),
        (b'{"o":{"y": 1}}', {"o.x": 1}, b'{"o":{"x":1,"y": 1}}'),
        (b'{"b":1}', {"o.x": None, "a": None, "l.*.x": 1}, b'{"b":1}'),
        (b'{"b":1}', {"o.x": 1, "o": None}, b'{"b":1}'),
        (b'{"o":{"x":0},"b":1}', {"o.x": 1, "o": None}, b'{"b":1}'),
        (b'{"l":[ {"x":0},{"y":[]}, 1,{"x":2} ]}', {"l.*.x": 1},
         b'{"l":[ {"x":1},{"y":[]}, 1,{"x":1} ]}'),
        (b'{"l":[ ]}', {"l.*.x": 1}, b'{"l":[ ]}'),
        (b'{"a":"\\"a\\":","b":{"a":1}}', {"a": 1}, b'{"a":1,"b":{"a":1}}'),
        (b'{"b":{"a":1},"a" :\n"x\\\\" }', {"a": 1}, b'{"b":{"a":1},"a" :\n1 }'),
        (b'{"a":{"x":{"y":"}"}},"b":{"c":1}}', {"a": 1, "b": 2}, b'{"a":1,"b":2}'),
    ],
)  # fmt: skip
def test_members_that_are_missing_come_first(
    body: bytes, edits: dict[str, Any], left: bytes
) -> None:
    assert edited(body, edits) == edited(body, edits, orjson.loads(body)) == left


_KEYS = st.sampled_from(["a", "b", "model", "o", "x", "A", "\u00e9", "o.x", "", 'a"', "a\\"])
_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text('a\u00e9"\\{[}],: model'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_EDITS = st.dictionaries(
    st.sampled_from(["a", "model", "x", "A", "\u00e9", "o.x", "o.y", "o.o.x", "a.*.b"]),
    st.none() | st.integers(0, 9) | st.text(max_size=3),
    max_size=3,
)


_STYLES = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 1])}
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=250)
@given(document=st.dictionaries(_KEYS, _DOCUMENTS, max_size=6), edits=_EDITS, style=_STYLES)
def test_an_edited_text_reads_as_the_edited_document(
    document: dict[str, Any],
    edits: dict[str, Any],
    style: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = json.dumps(document, **style).encode()
    expected = _edited(document, edits)

    for window in (24, 16 << 10):
        monkeypatch.setattr(sliced_json, "WINDOW", window)
        for known, pieces in ((None, ()), (document, ()), (document, _pieces(body))):
            assert orjson.loads(edited(body, edits, known, pieces)) == expected
    assert orjson.loads(edited(body, edits, document, (), document)) == expected
    for name, value in document.items():
        texts = member_texts(body, name)
        assert [orjson.loads(text) for text in texts] == [value]


@given(st.text(max_size=6), st.lists(_KEYS, max_size=6), st.booleans())
def test_what_is_not_edited_keeps_every_byte(text: str, keys: list[str], escaped: bool) -> None:
    number = "12345678901234567890123"
    members = [f"{json.dumps(key, ensure_ascii=escaped)} :\t{number}" for key in [*keys, "z"]]
    whole = "{ " + "\n, ".join([*members, f' "secret": {json.dumps(text)}', *members]) + " }"
    body = whole.encode()

    changed = edited(body, {"secret": "new"}, orjson.loads(body), _pieces(body))

    assert changed == body.replace(b'"secret": ' + json.dumps(text).encode(), b'"secret": "new"')


def _pieces(body: bytes) -> Pieces:
    reading = sliced_json.slices(body, 200)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            pieces: Pieces = end.value.pieces
            return pieces


def _edited(document: dict[str, Any], edits: dict[str, Any]) -> dict[str, Any]:
    """Return what `edited` promises, on the document."""
    new = dict(document)
    exact = {name: value for name, value in edits.items() if "." not in name or name in new}
    for name, value in edits.items():
        head, _, rest = name.partition(".")
        if not rest or head in exact:
            continue
        held = new.get(head)
        if rest.startswith("*."):
            if isinstance(held, list):
                new[head] = [
                    _edited(one, {rest[2:]: value}) if isinstance(one, dict) and rest[2:] in one
                    else one
                    for one in held
                ]  # fmt: skip
        elif isinstance(held, dict):
            new[head] = _edited(held, {rest: value})
        elif not isinstance(held, list) and value is not None:
            new[head] = _edited({}, {rest: value})
    for name, value in exact.items():
        if value is None:
            new.pop(name, None)
        else:
            new[name] = value
    return new


NAMES = quoted(("model", "n", "max_tokens"))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"model":"a","model":"b"}', "model"),
        (b'{"model":"a","n":1,"model":"a"}', "model"),
        (b'{"n":1,"n" :1}', "n"),
        (b'{ "n" : 1 , \n "x" : {"n": 1}, "n" : 2 }', "n"),
        (b'{"max_tokens":1,"max_tok\\u0065ns":9}', "max_tokens"),
        (b'{"\\u006d\\u006f\\u0064el":"a","model":"b"}', "model"),
        (b'{"max\\u005Ftokens":1,"max\\u005ftokens":9}', "max_tokens"),
        (b'{"x":"\\"n\\":1","n":1,"n":2}', "n"),
        (b'{"model":"a","n":1}', ""),
        (b'{"model":"n","n":1}', ""),
        (b'{"model":"model","x":["n","n"],"n":1}', ""),
        (b'{"model":"a","tools":[{"model":{"n":1}}],"n":1}', ""),
        (b'{"x":1,"x":2,"n":1}', ""),
        (b'{"x":"\\u0065 \\u00e9 n","n":1}', ""),
        (b'{"N":1,"n":1,"n ":1," n":2}', ""),
        (b"{}", ""),
    ],
)
def test_a_name_that_an_object_has_twice_is_found(body: bytes, name: str) -> None:
    assert repeated(body, orjson.loads(body), NAMES) == name


@given(st.data())
def test_repeated_finds_what_a_slow_reader_finds(data: st.DataObject) -> None:
    """However the keys are escaped, and wherever else they occur."""
    keys = data.draw(st.lists(st.sampled_from(("model", "n", "x", "max_tokens")), max_size=5))
    values = ["1", '{"n":1,"model":2}', '"n"', '"\\"n\\":"', "[]"]
    members = [(key, data.draw(st.sampled_from(values))) for key in keys]

    def escaped(key: str) -> str:
        flags = data.draw(st.lists(st.booleans(), min_size=len(key), max_size=len(key)))
        return "".join(
            f"\\u{ord(c):04x}" if flag else c for c, flag in zip(key, flags, strict=True)
        )

    body = "{" + ",".join(f'"{escaped(key)}": {value}' for key, value in members) + "}"
    twice = {key for key in keys if keys.count(key) > 1 and key in NAMES}
    found = repeated(body.encode(), orjson.loads(body), NAMES)
    assert found in twice if twice else not found
