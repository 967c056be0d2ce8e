"""What every wire protocol owes the gateway, whatever it speaks."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from backends.registry import PROTOCOLS, protocol
from backends.types import (
    BadRequest,
    Call,
    Headers,
    InvalidAnswer,
    Payload,
    Reply,
    WireProtocol,
)

PROBLEM = {
    "type": "urn:tollway:problem:budget-exhausted",
    "title": "Budget exhausted",
    "status": 402,
    "detail": "budget 'acme-daily' has $0 left",
    "limit_usd": 10.0,
}


@dataclass(frozen=True)
class Case:
    """One protocol's sound request and reply, as documents."""

    target: bytes
    request: dict[str, Any]
    reply: dict[str, Any]
    answer: Any


CASES = {
    "oip": Case(
        b"/v2/models/digits/infer",
        {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2]}]},
        {"outputs": [{"name": "label", "shape": [1], "datatype": "INT64", "data": [7]}]},
        7,
    ),
    "mlflow": Case(b"/invocations", {"instances": [[1, 2]]}, {"predictions": ["spam"]}, "spam"),
    "openai": Case(
        b"/v1/chat/completions",
        {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]},
        {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]},
        "hello",
    ),
    "plain": Case(b"/classify?a=b", {"text": "héllo"}, {"label": "greeting"}, "greeting"),
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


def reply(headers: Headers | None = None) -> Reply:
    return Reply(200, headers or [], NoBody())


def test_it_goes_by_the_name_it_is_registered_under(wire: WireProtocol, name: str) -> None:
    assert wire.name == name


def test_a_sound_request_is_read_into_its_document(wire: WireProtocol, case: Case) -> None:
    assert wire.parse(call(case)).data == case.request


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"x": NaN}', b"\xff", b"{} {}"])
def test_a_body_that_is_not_json_is_a_bad_request(
    wire: WireProtocol, case: Case, body: bytes
) -> None:
    with pytest.raises(BadRequest):
        wire.parse(call(case, body))


def test_a_body_nested_without_end_is_a_bad_request(wire: WireProtocol, case: Case) -> None:
    with pytest.raises(BadRequest):
        wire.parse(call(case, b"[" * 100_000))


def test_a_compressed_body_is_refused_with_what_to_do(wire: WireProtocol, case: Case) -> None:
    with pytest.raises(BadRequest, match="uncompressed"):
        wire.parse(call(case, headers=[(b"content-encoding", b"gzip")]))


def test_readdressing_leaves_the_original_call_alone(wire: WireProtocol, case: Case) -> None:
    original = call(case)
    before = (original.method, original.target, list(original.headers), original.body)

    wire.readdress(original, b"/base", "other", wire.parse(original))

    assert (original.method, original.target, original.headers, original.body) == before


def test_without_base_and_model_a_call_stays_as_it_is(wire: WireProtocol, case: Case) -> None:
    original = call(case)

    sent = wire.readdress(original, b"", None, wire.parse(original))

    assert (sent.method, sent.target, sent.headers, sent.body) == (
        original.method,
        original.target,
        original.headers,
        original.body,
    )


@pytest.mark.parametrize("base", [b"/base", b"/base/"])
def test_a_base_path_comes_before_the_target(wire: WireProtocol, case: Case, base: bytes) -> None:
    original = call(case)

    sent = wire.readdress(original, base, None, wire.parse(original))

    assert sent.target == b"/base" + case.target


def test_a_sound_reply_is_answered(wire: WireProtocol, case: Case) -> None:
    answer = wire.answer(Payload(), reply(), orjson.dumps(case.reply))

    assert answer.value == case.answer


@pytest.mark.parametrize(
    "body", [b"", b"{", b"<html>", b'{"error": "out of memory"}', b"{}", b"null", b"[]", b"\xff"]
)
def test_what_is_no_answer_is_called_so(wire: WireProtocol, body: bytes) -> None:
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


def test_a_refusal_keeps_every_member_of_its_problem(wire: WireProtocol) -> None:
    content_type, body = wire.error(402, PROBLEM)

    assert content_type == b"application/problem+json"
    assert PROBLEM.items() <= orjson.loads(body).items()
