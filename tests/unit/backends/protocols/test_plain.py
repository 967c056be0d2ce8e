from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tollway.backends.errors import InvalidAnswer
from tollway.backends.protocols.plain import Plain
from tollway.backends.protocols.registry import protocol
from tollway.backends.types import Call, Headers, HttpReply, ModelAnswer, Payload, Usage


class NoBody:
    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("a protocol reads no stream")

    async def aclose(self) -> None:
        return None


def answered(document: Any, **where: str) -> ModelAnswer:
    body = orjson.dumps(document)
    return Plain(**where).answer(Payload(), HttpReply(200, [], NoBody()), body)


def used(document: Any, headers: Headers | None = None) -> Usage | None:
    return Plain().usage(Payload(), HttpReply(200, headers or [], NoBody()), orjson.dumps(document))


@pytest.mark.parametrize("document", [{"a": [1]}, [1, 2], "text", 3.5, True, None])
def test_any_json_document_is_a_request(document: Any) -> None:
    assert Plain().parse(Call(b"POST", b"/", [], orjson.dumps(document))).data == document


def test_a_request_without_a_body_has_no_document() -> None:
    assert Plain().parse(Call(b"GET", b"/", [])).data is None
    assert Plain().parse(Call(b"POST", b"/", [])).data is None


@pytest.mark.parametrize(
    ("document", "where", "value"),
    [
        ({"label": "cat"}, {}, "cat"),
        ({"prediction": 0}, {}, 0),
        ({"answer": False}, {}, False),
        ({"other": 3}, {}, {"other": 3}),
        ("cat", {}, "cat"),
        (0.0, {}, 0.0),
        ({"label": "cat", "result": {"name": "dog"}}, {"answer": "result.name"}, "dog"),
        ({"predictions": [[3, 4]]}, {"answer": "predictions[0][1]"}, 4),
        ({"items": [{"id": 1}, {"id": 2}]}, {"answer": "items[*].id"}, [1, 2]),
        ({"label": "a", "error": None}, {}, "a"),
    ],
)
def test_the_answer_is_where_the_settings_say(
    document: Any, where: dict[str, str], value: Any
) -> None:
    assert answered(document, **where).value == value


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"label": "cat"}, {"answer": "result.name"}),
        ({"label": None}, {"answer": "label"}),
        ({"label": ""}, {}),
        ({"label": []}, {}),
        ("", {}),
        ({"error": "busy", "code": 3}, {}),
    ],
)
def test_nothing_where_the_answer_should_be_is_no_answer(
    document: Any, where: dict[str, str]
) -> None:
    with pytest.raises(InvalidAnswer):
        answered(document, **where)


@pytest.mark.parametrize(
    ("document", "where", "features"),
    [
        ({"label": 1, "confidence": 0.9}, {}, (0.9,)),
        ({"label": 1, "sure": {"p": 1}}, {"confidence": "sure.p"}, (1.0,)),
        ({"label": 1, "probabilities": [0.5, 0.5]}, {}, (0.5, 0.0, 1.0)),
        ({"label": 1, "probabilities": {"a": 1.0, "b": 0.0}}, {}, (1.0, 1.0, 0.0)),
        ({"label": 1, "probabilities": [0.25]}, {}, (0.75, 0.5, 0.8112781)),
        ({"label": 1, "p": [1, 0]}, {"probabilities": "p"}, (1.0, 1.0, 0.0)),
        ({"label": 1, "probabilities": [5, 1], "confidence": 0.9}, {}, ()),
        ({"label": 1, "probabilities": ["a"], "confidence": 0.9}, {}, (0.9,)),
        ({"label": 1, "confidence": 90}, {}, ()),
        ({"label": 1, "confidence": "high"}, {}, ()),
        ({"label": 1}, {}, ()),
        ([1, 2], {}, ()),
    ],
)
def test_confidence_becomes_features(
    document: Any, where: dict[str, str], features: tuple[float, ...]
) -> None:
    assert answered(document, **where).features == pytest.approx(features)


def test_usage_is_read_from_a_header_or_a_member() -> None:
    assert used({"label": 1}) is None
    assert used({"usage": None}) is None
    assert used({"usage": {"note": "x"}}) is None
    assert used([{"usage": 1}]) is None
    assert used({}, [(b"x-device-seconds", b"0.5")]) == Usage(device_s=0.5)
    assert used({"usage": {"device_s": 0.25, "input_tokens": 7, "output_tokens": 2}}) == Usage(
        device_s=0.25, input_tokens=7, output_tokens=2
    )


@pytest.mark.parametrize("count", ["seven", "1_000", True, [7]])
def test_usage_that_is_no_number_is_an_error(count: Any) -> None:
    with pytest.raises(ValueError, match="input_tokens"):
        used({"usage": {"input_tokens": count}})


def test_a_refusal_is_a_problem_as_it_is() -> None:
    problem = {"type": "about:blank", "title": "No", "status": 402, "detail": "d", "scope": "x"}

    content_type, body = protocol("plain").error(402, problem)

    assert content_type == b"application/problem+json"
    assert orjson.loads(body) == {**problem, "error": "d"}


@pytest.mark.parametrize(
    "options", [{"answer": "a..b"}, {"confidence": "["}, {"probabilities": "."}]
)
def test_a_path_that_cannot_be_read_is_refused_at_start(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot read the path"):
        protocol("plain", **options)


def test_an_unknown_protocol_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"must be one of .*oip.*plain"):
        protocol("grpc")
    with pytest.raises(ValueError, match="does not support confidence"):
        protocol("oip", confidence="x")
