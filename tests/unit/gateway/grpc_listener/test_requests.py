"""A ModelInferRequest becomes a request that the REST protocol reads as the same tensors."""

import math

import orjson
import pytest

from tollway.backends.protocols.oip.protocol import OpenInference
from tollway.backends.protocols.oip.tensors import DECODED_MAX
from tollway.backends.types import Call
from tollway.gateway.grpc_listener.requests import inference, model_path
from tollway.gateway.grpc_listener.schema import Schema

SCHEMA = Schema()


def typed(datatype: str, field: str, elements: list, **more):
    request = SCHEMA.ModelInferRequest(model_name="m", **more)
    made = request.inputs.add(name="x", datatype=datatype, shape=[len(elements)])
    getattr(made.contents, field).extend(elements)
    return request


def read(request):
    """Return the tensors as the gateway's REST protocol reads them."""
    call = inference(request)
    payload = OpenInference().parse(Call(b"POST", call.path, list(call.headers), call.body))
    assert not payload.fault
    return payload


def test_the_path_has_the_name_and_the_version_encoded() -> None:
    assert model_path("a/b c", "1", "infer") == b"/v2/models/a%2Fb%20c/versions/1/infer"


def test_typed_contents_are_json() -> None:
    call = inference(typed("INT64", "int64_contents", [1, -2], id="q", model_version="7"))
    assert (call.path, call.raw) == (b"/v2/models/m/versions/7/infer", False)
    assert call.headers == [(b"content-type", b"application/json")]
    tensor = {"name": "x", "shape": [2], "datatype": "INT64", "data": [1, -2]}
    assert orjson.loads(call.body) == {"id": "q", "inputs": [tensor]}


@pytest.mark.parametrize(
    ("datatype", "field", "elements"),
    [
        ("FP32", "fp32_contents", [1.5, math.inf]),
        ("FP64", "fp64_contents", [-math.inf, 0.1]),
        ("INT64", "int64_contents", [7] * (DECODED_MAX + 1)),
    ],
)
def test_what_json_cannot_hold_or_should_not_is_binary(
    datatype: str, field: str, elements: list
) -> None:
    request = typed(datatype, field, elements)
    request.outputs.add(name="y")
    call, payload = inference(request), read(request)
    assert not call.raw, "the client still gets typed contents"
    assert payload.data["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]
    if len(elements) <= DECODED_MAX:
        assert payload.data["inputs"][0]["data"] == elements
    else:
        assert len(payload.binary["x"]) == 8 * len(elements)


def test_bytes_that_are_no_text_are_binary() -> None:
    payload = read(typed("BYTES", "bytes_contents", [b"a", b"\xff"]))
    assert payload.binary["x"] == b"\x01\0\0\0a\x01\0\0\0\xff"


def test_raw_tensors_stay_as_they_are_and_ask_for_raw_ones() -> None:
    request = SCHEMA.ModelInferRequest(model_name="m")
    for name in "ab":
        request.inputs.add(name=name, datatype="FP16", shape=[1])
    request.raw_input_contents.extend([b"\0\x3c", b"\0\xbc"])
    payload = read(request)
    assert payload.binary == {"a": b"\0\x3c", "b": b"\0\xbc"}
    assert payload.data["parameters"] == {"binary_data_output": True}
    assert inference(request).raw


@pytest.mark.parametrize(
    ("datatype", "raw", "data"),
    [
        ("FP32", b"\xcd\xcc\xcc\x3d", [0.1]),
        ("FP16", b"\x00\x3c", [1.0]),
        ("UINT8", b"\xff", [255]),
        ("BOOL", b"\x01", [True]),
        ("BYTES", b"\x02\0\0\0h\xc3", None),
        ("BYTES", b"\x01\0\0\0h", ["h"]),
        ("FP32", b"\x00\x00\xc0\x7f", None),
        ("BF16", b"\x80\x3f", None),
        ("INT32", b"\x01", None),
    ],
)
def test_raw_tensors_become_json_for_a_server_without_binary_ones(
    datatype: str, raw: bytes, data: list | None
) -> None:
    request = SCHEMA.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=datatype, shape=[1])
    request.raw_input_contents.append(raw)
    call = inference(request, as_json=True)
    assert call.raw, "the client still gets raw outputs"
    if data is None:  # what JSON does not hold stays binary
        assert call.body.endswith(raw)
    else:
        document = orjson.loads(call.body)
        assert document["inputs"][0]["data"] == data
        assert "parameters" not in document


def test_parameters_of_every_kind_are_json() -> None:
    request = typed("BOOL", "bool_contents", [True])
    parameters = request.parameters
    parameters["a"].bool_param = False
    parameters["b"].int64_param = -(2**63)
    parameters["c"].string_param = "ü"
    parameters["d"].double_param = 0.5
    parameters["e"].uint64_param = 2**64 - 1
    parameters["f"].SetInParent()
    document = orjson.loads(inference(request).body)
    assert document["parameters"] == {
        "a": False,
        "b": -(2**63),
        "c": "ü",
        "d": 0.5,
        "e": 2**64 - 1,
    }


def shared():
    request = typed("BOOL", "bool_contents", [True])
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return request


def shared_output():
    request = typed("BOOL", "bool_contents", [True])
    request.outputs.add(name="y").parameters["shared_memory_region"].string_param = "r"
    return request


def too_few():
    request = typed("BOOL", "bool_contents", [True])
    request.inputs.add(name="y", datatype="BOOL", shape=[1])
    request.raw_input_contents.append(b"\1")
    return request


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (SCHEMA.ModelInferRequest(), "model_name is empty"),
        (shared(), "shared memory"),
        (shared_output(), "shared memory"),
        (too_few(), "1 tensors for 2 inputs"),
        (typed("FP16", "fp32_contents", [1.0]), "raw_input_contents"),
        (typed("WORDS", "bytes_contents", [b"a"]), "'WORDS' has no typed contents"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(request_, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        inference(request_)
