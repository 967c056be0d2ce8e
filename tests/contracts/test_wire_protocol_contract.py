"""The contract of a wire protocol, run over every implementation."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wire_cases import CASES, Case
from tollway.backends.errors import BadRequest, InvalidAnswer
from tollway.backends.ports import WireProtocol
from tollway.backends.protocols.registry import ANY_REPLY, PROTOCOLS, protocol
from tollway.backends.types import Call, Headers, HttpReply, Payload

# Members that one or another protocol looks at, in any place and with any value.
KEYS = [
    *(
        "answer",
        "binary_data_size",
        "choices",
        "completion_tokens",
        "confidence",
        "content",
        "data",
    ),
    *("datatype", "delta", "device_s", "embedding", "error", "inputs", "instances", "label"),
    *("logprobs", "message", "messages", "model", "name", "outputs", "parameters", "predictions"),
    *("probabilities", "prompt_tokens", "prompt_tokens_details", "shape", "stream"),
    *("stream_options", "text", "tool_calls", "total_tokens", "usage"),
]
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False)
LEAVES |= st.sampled_from(
    ["", "x", "label", "probabilities", "confidence", "FP32", "INT64", "stop"]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=20,
)
NAMES = st.sampled_from(["label", "probabilities", "confidence", "x"])
TENSORS = st.fixed_dictionaries(
    {"name": NAMES, "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "BOOL"])},
    optional={
        "shape": st.lists(st.integers(0, 3), max_size=2),
        "data": st.lists(LEAVES, max_size=4),
    },
)
DOCUMENTS = (
    VALUES
    | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)
    | st.fixed_dictionaries({"outputs": st.lists(TENSORS, max_size=3)})
    | st.fixed_dictionaries({"choices": st.lists(VALUES, max_size=2)})
    | st.fixed_dictionaries({"predictions": VALUES})
)

PROBLEM = {
    "type": "urn:tollway:problem:budget-exhausted",
    "title": "Budget exhausted",
    "status": 402,
    "detail": "budget 'acme-daily' has $0 left",
    "limit_usd": 10.0,
}


class NoBody:
    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("a protocol reads no stream")

    async def aclose(self) -> None:
        return None


@pytest.fixture(params=sorted(PROTOCOLS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def wire(name: str) -> WireProtocol:
    return protocol(name)


@pytest.fixture
def case(name: str) -> Case:
    return CASES[name]


def call(case: Case, body: bytes | None = None, headers: Headers | None = None) -> Call:
    fields: Headers = [(b"content-type", b"application/json"), *(headers or [])]
    return Call(b"POST", case.target, fields, orjson.dumps(case.request) if body is None else body)


def reply(headers: Headers | None = None) -> HttpReply:
    return HttpReply(200, headers or [], NoBody())


def test_it_goes_by_the_name_it_is_registered_under(wire: WireProtocol, name: str) -> None:
    assert wire.name == name


def test_a_sound_request_is_read_into_its_document(wire: WireProtocol, case: Case) -> None:
    assert wire.parse(call(case)).data == case.request


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b'{"x": NaN}', b"\xff", b"{} {}", b"[" * 100_000]
)
def test_a_body_that_is_not_json_is_a_bad_request_or_passes_unread(
    wire: WireProtocol, case: Case, body: bytes
) -> None:
    if wire.name in ANY_REPLY:
        payload = wire.parse(call(case, body))
        assert bool(payload.data) is (b"NaN" in body)
        assert bool(payload.fault) is (bool(body) and not payload.data)
        return
    with pytest.raises(BadRequest):
        wire.parse(call(case, body))


def test_a_compressed_body_is_refused_with_what_to_do_or_passes(
    wire: WireProtocol, case: Case
) -> None:
    coded = call(case, headers=[(b"content-encoding", b"gzip")])
    if wire.name in (*ANY_REPLY, "oip"):
        assert (wire.parse(coded).data, wire.parse(coded).fault != "") == (None, True)
        return
    with pytest.raises(BadRequest, match="uncompressed"):
        wire.parse(coded)


def test_readdressing_does_not_change_the_original_call(wire: WireProtocol, case: Case) -> None:
    original = call(case)
    before = (original.method, original.target, list(original.headers), original.body)

    wire.readdress(original, b"/base", "other", wire.parse(original))

    assert (original.method, original.target, original.headers, original.body) == before


def test_without_base_and_model_a_call_stays_as_it_is(wire: WireProtocol, case: Case) -> None:
    original = call(case)

    sent = wire.readdress(original, b"", None, wire.parse(original))

    assert sent == (original.target, {})


def test_a_base_path_comes_before_the_target(wire: WireProtocol, case: Case) -> None:
    original = call(case)

    target, _ = wire.readdress(original, b"/base", None, wire.parse(original))

    assert target == b"/base" + case.target


def test_the_same_request_has_the_same_prompt(wire: WireProtocol, case: Case) -> None:
    one, other = (wire.prompt(wire.parse(call(case))) for _ in range(2))

    assert one == other
    assert hash(tuple(one)) == hash(tuple(other))
    assert all(size >= 0 for _, size in one)
    assert bool(one) == case.caches


def test_a_sound_reply_is_answered(wire: WireProtocol, case: Case) -> None:
    answer = wire.answer(Payload(), reply(), orjson.dumps(case.reply))

    assert answer.value == case.answer


@pytest.mark.parametrize(
    "body", [b"", b"{", b"<html>", b'{"error": "out of memory"}', b"{}", b"null", b"[]", b"\xff"]
)
def test_a_reply_without_an_answer_is_recognised(wire: WireProtocol, body: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        wire.answer(Payload(), reply(), body)


def test_a_reply_that_reports_no_usage_has_none(wire: WireProtocol, case: Case) -> None:
    assert wire.usage(Payload(), reply(), orjson.dumps(case.reply)) is None


def test_device_seconds_in_a_header_are_exact_usage(wire: WireProtocol, case: Case) -> None:
    body = orjson.dumps(case.reply)

    told = wire.usage(Payload(), reply([(b"x-device-seconds", b"0.0125")]), body)

    assert told is not None
    assert (told.device_s, told.exact) == (0.0125, True)


def test_device_seconds_that_are_no_number_are_an_error(wire: WireProtocol, case: Case) -> None:
    with pytest.raises(ValueError, match="x-device-seconds"):
        wire.usage(Payload(), reply([(b"x-device-seconds", b"12ms")]), orjson.dumps(case.reply))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"usage" "device_s"', b'["device_s","usage"]'])
def test_usage_of_a_broken_reply_is_unknown_never_a_crash(wire: WireProtocol, body: bytes) -> None:
    with suppress(ValueError):  # at which the gateway charges the quote
        assert wire.usage(Payload(), reply(), body) is None


@given(document=DOCUMENTS, stream=st.booleans())
def test_any_reply_is_an_answer_or_invalid_and_any_usage_a_number_or_an_error(
    document: Any, stream: bool
) -> None:
    fields: Headers = [(b"content-type", b"text/event-stream")] if stream else []
    body = orjson.dumps(document)
    body = b"data: " + body + b"\n\n" if stream else body

    for name in PROTOCOLS:
        wire = protocol(name)
        with suppress(InvalidAnswer):
            features = wire.answer(Payload(), reply(fields), body).features
            assert all(0 <= feature <= 1 for feature in features)
        with suppress(ValueError):
            wire.usage(Payload(), reply(fields), body)


@given(document=DOCUMENTS)
def test_any_request_is_read_and_readdressed_or_a_bad_request(document: Any) -> None:
    for name in PROTOCOLS:
        wire, original = protocol(name), call(CASES[name], orjson.dumps(document))
        with suppress(BadRequest):
            payload = wire.parse(original)
            wire.readdress(original, b"/base", "other", payload)


def test_a_refusal_keeps_every_member_of_its_problem(wire: WireProtocol) -> None:
    content_type, body = wire.error(402, PROBLEM)

    document = orjson.loads(body)
    if wire.name == "anthropic":  # its clients tell an error by its `type`
        assert (content_type, document["type"]) == (b"application/json", "error")
        assert document["error"]["details"]["problem"] == PROBLEM["type"]
        document["type"] = PROBLEM["type"]
    elif wire.name == "gemini":  # its clients take `status` for the name of an error
        assert (content_type, document["error"]["code"]) == (b"application/json", 402)
        assert "status" not in document
        document["status"] = PROBLEM["status"]
    else:
        assert content_type == b"application/problem+json"
    assert PROBLEM.items() <= document.items()
