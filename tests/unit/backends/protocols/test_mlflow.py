from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tollway.backends.protocols.mlflow import Mlflow
from tollway.backends.types import (
    BadRequest,
    Call,
    Headers,
    HttpReply,
    InvalidAnswer,
    ModelAnswer,
    Payload,
    Usage,
)

SPLIT = {"columns": ["a"], "data": [[1]]}


class NoBody:
    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("a protocol reads no stream")

    async def aclose(self) -> None:
        return None


def parse(document: Any, headers: Headers | None = None) -> Payload:
    return Mlflow().parse(Call(b"POST", b"/invocations", headers or [], orjson.dumps(document)))


def answered(document: Any, where: str | None = None) -> ModelAnswer:
    body = orjson.dumps(document)
    return Mlflow(where).answer(Payload(), HttpReply(200, [], NoBody()), body)


@pytest.mark.parametrize(
    "document",
    [
        {"dataframe_split": SPLIT},
        {"dataframe_records": [{"a": 1}], "params": {"k": 1}},
        {"instances": [[1]], "inputs": None},
        {"inputs": {"a": [1]}, "params": None},
    ],
)
def test_each_way_to_give_inputs_is_read(document: Any) -> None:
    assert parse(document).data == document


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "exactly one of .*; there are 0"),
        ({"inputs": [1], "instances": [1]}, "there are 2"),
        ([1], "must be an object"),
        ({"inputs": [1], "params": [1]}, "params: .* must be an object"),
    ],
)
def test_a_request_gives_its_inputs_in_one_way(document: Any, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        parse(document)


def test_csv_is_refused_with_what_to_send() -> None:
    with pytest.raises(BadRequest, match="send application/json"):
        parse({"inputs": [1]}, [(b"content-type", b"text/csv")])


@pytest.mark.parametrize(
    ("predictions", "value", "features"),
    [
        ([7], 7, ()),
        (["a", "b"], ["a", "b"], ()),
        ([[0.2, 0.8]], 1, (0.8, 0.6, 0.7219281)),
        ([[0.0, 1.0], [1.0, 0.0]], [1, 0], (1.0, 1.0, 0.0)),
        ([[3.5, 4.0]], [3.5, 4.0], ()),
        ([{"label": "x", "probability": 0.75}], "x", (0.75,)),
        ([{"prediction": 0, "score": 0.5}, {"prediction": 1, "score": 1}], [0, 1], (0.75,)),
        ([{"a": 1}], {"a": 1}, ()),
        (3.5, 3.5, ()),
        ([0], 0, ()),
    ],
)
def test_predictions_are_the_answer(
    predictions: Any, value: Any, features: tuple[float, ...]
) -> None:
    answer = answered({"predictions": predictions})

    assert (answer.value, answer.features) == (value, pytest.approx(features))


def test_the_settings_can_say_where_the_answer_is() -> None:
    document = {"predictions": [{"species": "cat", "probability": 0.5}]}

    assert answered(document, "predictions[0].species") == ModelAnswer("cat", (0.5,))
    with pytest.raises(InvalidAnswer, match="nothing at"):
        answered(document, "predictions[1].species")


@pytest.mark.parametrize(
    "document",
    [
        {"predictions": []},
        {"predictions": None},
        {"predictions": [None]},
        {"error_code": "BAD_REQUEST", "message": "no"},
        {"predictions": [1], "error": "x"},
        [1],
    ],
)
def test_no_predictions_are_no_answer(document: Any) -> None:
    with pytest.raises(InvalidAnswer):
        answered(document)


@pytest.mark.parametrize(
    ("target", "model", "sent"),
    [
        (b"/invocations", None, b"/base/invocations"),
        (b"/invocations?a=1", "m", b"/base/invocations?a=1"),
        (b"/spam?a=1", "m", b"/base/invocations?a=1"),
        (b"/spam", None, b"/base/spam"),
    ],
)
def test_a_server_of_one_model_needs_no_name(target: bytes, model: str | None, sent: bytes) -> None:
    call = Call(b"POST", target, [], b"{}")

    assert Mlflow().readdress(call, b"/base", model, Payload()).target == sent


def test_usage_may_be_a_member() -> None:
    body = orjson.dumps({"predictions": [1], "usage": {"device_s": 0.5}})

    assert Mlflow().usage(Payload(), HttpReply(200, [], NoBody()), body) == Usage(device_s=0.5)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "BAD_REQUEST"), (402, "RESOURCE_EXHAUSTED"), (503, "INTERNAL_ERROR")],
)
def test_a_refusal_has_mlflows_own_members_too(status: int, code: str) -> None:
    document = orjson.loads(Mlflow().error(status, {"title": "No", "detail": "why"})[1])

    assert (document["error_code"], document["message"]) == (code, "why")
