"""Keys are equal for the same request, and for no other."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tollway.backends.protocols.registry import protocol
from tollway.backends.types import Call
from tollway.gateway.caching.determinism import is_deterministic
from tollway.gateway.caching.keys import (
    ALWAYS_MATTER,
    BODY_BYTES_MAX,
    REMEMBERED,
    Keys,
    ignored_members,
)
from tollway.gateway.caching.plan import CachePlan

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
CHAT_PATH = b"/v1/chat/completions"


def plan(name: str = "openai", **more: Any) -> CachePlan:
    ignored = ignored_members(name, ())
    return CachePlan(b"v1", name, 60.0, **{"ignored": ignored, "headers": ALWAYS_MATTER, **more})


def call(body: bytes, name: str = "openai", target: bytes = CHAT_PATH, **headers: str) -> Call:
    fields = [(key.replace("_", "-").encode(), text.encode()) for key, text in headers.items()]
    made = Call(b"POST", target, [(b"content-type", b"application/json"), *fields], body)
    made.payload = protocol(name).parse(made)
    return made


def key(document: Any, tenant: str = "t", of: CachePlan | None = None, **headers: str) -> Any:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return Keys().of(of or plan(), call(body, **headers), tenant)


@pytest.mark.parametrize(
    "same",
    [
        orjson.dumps(CHAT, option=orjson.OPT_INDENT_2),
        dict(reversed(CHAT.items())),
        {**CHAT, "user": "someone"},
        {**CHAT, "metadata": {"a": 1}},
        orjson.dumps(CHAT).replace(b'"hi"', b'"\\u0068i"'),
    ],
    ids=["white space", "order", "user", "metadata", "escapes"],
)
def test_what_does_not_matter_does_not_change_a_key(same: Any) -> None:
    assert key(same) == key(CHAT) is not None


@pytest.mark.parametrize(
    "other",
    [
        {**CHAT, "model": "n"},
        {**CHAT, "temperature": 0.0, "max_tokens": 5},
        {**CHAT, "stream": True},
        {**CHAT, "messages": [{"role": "user", "content": "Hi"}]},
        {**CHAT, "seed": 1},
    ],
)
def test_what_matters_does(other: Any) -> None:
    assert key(other) != key(CHAT)
    assert key(other) is not None


def test_integers_beyond_64_bits_stay_distinct() -> None:
    one, two = (orjson.dumps(CHAT)[:-1] + b',"seed":%d}' % number for number in (2**64, 2**64 + 1))
    assert key(one) != key(two)


def test_a_name_that_is_there_twice_is_compared_as_bytes() -> None:
    once = orjson.dumps({**CHAT, "x": 2})
    twice = orjson.dumps(CHAT)[:-1] + b',"x":1,"x":2}'
    assert key(twice) != key(once)
    assert key(twice) == key(twice)


def test_tenants_routes_and_header_fields_are_part_of_a_key() -> None:
    assert key(CHAT, "one") != key(CHAT, "two")
    public = plan(is_public=True)
    assert key(CHAT, "one", public) == key(CHAT, "two", public) != key(CHAT, "one")
    assert key(CHAT, of=replace(plan(), version=b"v2")) != key(CHAT)
    assert key(CHAT, openai_beta="x") != key(CHAT)
    assert key(CHAT, x_request_id="x") == key(CHAT)


def test_parts_of_a_key_cannot_be_shifted_into_each_other() -> None:
    keys = Keys()
    one = call(orjson.dumps(CHAT), target=CHAT_PATH + b"?a=1")
    two = call(orjson.dumps(CHAT), target=CHAT_PATH)
    two.headers.insert(0, (b"accept", b"?a=1"))
    assert keys.of(plan(), one, "t") != keys.of(plan(), two, "t")


@pytest.mark.parametrize(
    ("name", "target", "document", "expected"),
    [
        ("openai", CHAT_PATH, CHAT, True),
        ("openai", CHAT_PATH, {**CHAT, "temperature": 0.1}, False),
        ("openai", CHAT_PATH, {**CHAT, "temperature": None}, False),
        ("openai", b"/v1/embeddings", {"model": "m", "input": "x"}, True),
        ("anthropic", b"/v1/messages", {**CHAT, "max_tokens": 1}, True),
        ("anthropic", b"/v1/messages", {**CHAT, "max_tokens": 1, "temperature": 1}, False),
        (
            "gemini",
            b"/v1beta/models/g:generateContent",
            {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"temperature": 0}},
            True,
        ),
        (
            "gemini",
            b"/v1beta/models/g:generateContent",
            {"contents": [{"parts": [{"text": "x"}]}]},
            False,
        ),
        ("gemini", b"/v1beta/models/g:embedContent", {"content": {"parts": []}}, True),
        ("mlflow", b"/invocations", {"inputs": [1]}, True),
        ("http", b"/predict", {"x": 1}, True),
        ("http", b"/generate", {"inputs": "x", "parameters": {"temperature": 0.5}}, False),
    ],
)
def test_a_request_that_samples_has_no_key_unless_told(
    name: str, target: bytes, document: Any, expected: bool
) -> None:
    made = call(orjson.dumps(document), name, target)
    assert is_deterministic(name, made.payload) is expected
    assert (Keys().of(plan(name), made, "t") is not None) is expected
    assert Keys().of(plan(name, always=True), made, "t") is not None


def test_a_request_about_objects_of_a_server_has_no_key() -> None:
    stored = call(orjson.dumps({**CHAT, "store": True}))
    assert Keys().of(plan(), stored, "t") is None


def test_the_keys_remembered_are_bounded() -> None:
    keys = Keys()
    for number in range(REMEMBERED + 10):
        keys.of(plan("http"), call(b'{"x":%d}' % number, "http", b"/p"), "t")
    assert len(keys._recent) == REMEMBERED


def test_a_body_that_takes_long_to_hash_has_no_key() -> None:
    def sized(count: int) -> Call:
        return call(b'{"x":"%b"}' % (b"x" * count), "http", b"/p")

    assert Keys().of(plan("http"), sized(BODY_BYTES_MAX), "t") is None
    assert Keys().of(plan("http"), sized(100_000), "t") is not None


def test_no_body_passes_for_part_of_a_head_or_for_a_document() -> None:
    of = plan("http")
    shifted = call(b"\x003:x-a\x001:b", "http", b"/p")
    shifted.headers = []
    plain = call(b"", "http", b"/p")
    plain.headers = [(b"x-a", b"b")]
    named = replace(of, headers=ALWAYS_MATTER | {b"x-a"})
    assert Keys().of(named, shifted, "t") != Keys().of(named, plain, "t")
    document = call(b'{"x": 1}', "http", b"/p")
    text = call(b'canonical\x00{"x":1}', "http", b"/p")
    assert Keys().of(of, document, "t") != Keys().of(of, text, "t")


def test_bodies_of_other_codings_have_other_keys() -> None:
    plain, coded = call(b'{"x":1}', "http", b"/p"), call(b'{"x":1}', "http", b"/p")
    coded.headers = [*coded.headers, (b"content-encoding", b"gzip")]
    assert Keys().of(plan("http"), plain, "t") != Keys().of(plan("http"), coded, "t")
