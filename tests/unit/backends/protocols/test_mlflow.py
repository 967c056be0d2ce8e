from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tollway.backends.errors import InvalidAnswer
from tollway.backends.protocols.mlflow import Mlflow
from tollway.backends.types import Call, Headers, HttpReply, ModelAnswer, Payload, Usage

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
    ("kind", "body"),
    [
        (b"text/csv", b"a,b\n1,2\n"),
        (b"application/json", b'{"inputs": [1], "instances": [1]}'),
        (b"application/json", b'{"messages": [{"role": "user", "content": "hi"}]}'),
        (b"application/json", b'{"inputs": [NaN]}'),
        (b"application/json; format=pandas-split", b'{"columns": ["a"], "data": [[1]]}'),
        (b"application/x-parquet", b"PAR1"),
        (b"application/json", b"{"),
    ],
)
def test_every_body_is_left_to_the_server(kind: bytes, body: bytes) -> None:
    call = Call(b"POST", b"/invocations", [(b"content-type", kind)], body)
    wire = Mlflow()

    assert wire.readdress(call, b"", None, wire.parse(call)) == (b"/invocations", {})


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
        (b"/spam", None, b"/base/invocations"),
        (b"/odd/invocations?a=1", None, b"/base/invocations?a=1"),
    ],
)
def test_a_server_of_one_model_needs_no_name(target: bytes, model: str | None, sent: bytes) -> None:
    call = Call(b"POST", target, [], b"{}")

    assert Mlflow().readdress(call, b"/base", model, Payload()) == (sent, {})


def test_the_servers_own_paths_are_free_and_beside_the_route() -> None:
    wire = Mlflow(path="/odd/invocations")
    call = Call(b"GET", b"/odd/version", [])

    payload = wire.parse(call)

    assert payload.endpoint.is_free
    assert wire.readdress(call, b"/base", None, payload) == (b"/base/version", {})
    assert not wire.parse(Call(b"POST", b"/odd/version", [])).endpoint.is_free


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
