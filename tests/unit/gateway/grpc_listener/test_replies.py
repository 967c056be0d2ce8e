"""A reply over REST, JSON or binary, becomes a ModelInferResponse in the client's form."""

import math
import struct
from typing import Any

import orjson
import pytest

from tollway.backends.types import Headers
from tollway.gateway.grpc_listener.replies import inferred
from tollway.gateway.grpc_listener.schema import Schema

SCHEMA = Schema()


def reply(*outputs: dict[str, Any], raw: bytes = b"", **more: Any) -> tuple[Headers, bytes]:
    head = orjson.dumps({"model_name": "m", "outputs": outputs, **more})
    if not raw:
        return [], head
    return [(b"inference-header-content-length", b"%d" % len(head))], head + raw


def output(datatype: str, data: Any = None, size: int | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"name": "y", "datatype": datatype, "shape": [2]}
    if size is not None:
        return {**made, "parameters": {"binary_data_size": size, "scale": 2.5}}
    return {**made, "data": data}


JSON = [
    ("BOOL", [True, False], b"\1\0"),
    ("INT8", [-128, 127], b"\x80\x7f"),
    ("UINT16", [0, 65535], b"\0\0\xff\xff"),
    ("INT32", [[-1], [1]], struct.pack("<2i", -1, 1)),
    ("UINT64", [0, 2**64 - 1], struct.pack("<2Q", 0, 2**64 - 1)),
    ("INT64", [-(2**63), 2**63 - 1], struct.pack("<2q", -(2**63), 2**63 - 1)),
    ("FP16", [0.5, -2], struct.pack("<2e", 0.5, -2)),
    ("FP32", [0.5, -2.5], struct.pack("<2f", 0.5, -2.5)),
    ("FP64", [0.1, 1], struct.pack("<2d", 0.1, 1)),
    ("BF16", [1.0, -2.0], b"\x80\x3f\x00\xc0"),
    ("BYTES", ["hé", ""], b"\x03\0\0\0h\xc3\xa9\0\0\0\0"),
]


@pytest.mark.parametrize(("datatype", "data", "wanted"), JSON)
def test_json_becomes_raw_for_a_raw_request(datatype: str, data: Any, wanted: bytes) -> None:
    message = inferred(SCHEMA, *reply(output(datatype, data)), raw=True)
    assert list(message.raw_output_contents) == [wanted]
    assert list(message.outputs[0].shape) == [2]


@pytest.mark.parametrize(
    ("field", "datatype", "data", "raw"),
    [
        ("int_contents", "INT8", [-128, 127], b"\x80\x7f"),
        ("uint64_contents", "UINT64", [1, 2], struct.pack("<2Q", 1, 2)),
        ("fp64_contents", "FP64", [0.5, 1.0], struct.pack("<2d", 0.5, 1)),
        ("bool_contents", "BOOL", [True, False], b"\1\0"),
    ],
)
def test_both_forms_become_typed_for_a_typed_request(
    field: str, datatype: str, data: list[Any], raw: bytes
) -> None:
    for given in (reply(output(datatype, data)), reply(output(datatype, size=len(raw)), raw=raw)):
        message = inferred(SCHEMA, *given, raw=False)
        assert list(getattr(message.outputs[0].contents, field)) == data
        assert not message.raw_output_contents


def test_texts_become_bytes() -> None:
    for given in (
        reply(output("BYTES", ["hé", "b"])),
        reply(output("BYTES", size=12), raw=b"\x03\0\0\0h\xc3\xa9\x01\0\0\0b"),
    ):
        message = inferred(SCHEMA, *given, raw=False)
        assert list(message.outputs[0].contents.bytes_contents) == ["hé".encode(), b"b"]


def test_a_datatype_without_typed_contents_makes_the_reply_raw() -> None:
    given = reply(output("FP16", [1.0, 2.0]), output("INT8", [1, 2]))
    message = inferred(SCHEMA, *given, raw=False)
    assert [len(raw) for raw in message.raw_output_contents] == [4, 2]
    assert not message.outputs[1].contents.int_contents


def test_null_is_nan() -> None:
    given = reply(output("FP32", [None, 1.0]))
    [raw] = inferred(SCHEMA, *given, raw=True).raw_output_contents
    [first, _] = inferred(SCHEMA, *given, raw=False).outputs[0].contents.fp32_contents
    assert math.isnan(struct.unpack("<2f", raw)[0])
    assert math.isnan(first)


@pytest.mark.parametrize(
    ("number", "bits"),
    [(1.00390625, 0x3F80), (1.01171875, 0x3F82), (1e39, 0x7F80), (3.4e38, 0x7F80)],
)
def test_bfloats_are_the_nearest_and_ties_go_to_even(number: float, bits: int) -> None:
    message = inferred(SCHEMA, *reply(output("BF16", [number, None])), raw=True)
    assert struct.unpack("<2H", message.raw_output_contents[0]) == (bits, 0x7FC0)


def test_names_and_parameters_pass() -> None:
    parameters = {"a": True, "b": -1, "c": 2**64 - 1, "d": 0.5, "e": "x", "f": [1]}
    given = reply(output("INT8", size=2), raw=b"\1\2", parameters=parameters, model_version=3)
    message = inferred(SCHEMA, *given, raw=True)
    assert (message.model_name, message.model_version) == ("m", "3")
    got = message.parameters
    assert (got["a"].bool_param, got["b"].int64_param) == (True, -1)
    assert (got["c"].uint64_param, got["d"].double_param) == (2**64 - 1, 0.5)
    assert (got["e"].string_param, got["f"].string_param) == ("x", "[1]")
    assert set(message.outputs[0].parameters) == {"scale"}


MALFORMED = [
    ([], b"<html>"),
    ([], b'{"outputs": {}}'),
    ([], b'{"outputs": [7]}'),
    ([], b"[]"),
    reply(output("WORDS", ["a"])),
    reply(output("INT8", ["a", 1])),
    reply(output("BYTES", [1, 2])),
    reply(output("INT64", {"a": 1})),
    reply(output("INT8", size=3), raw=b"\1\2"),
    reply(output("INT8", size=-1), raw=b"\1\2"),
    reply({"name": 1, "datatype": "INT8", "shape": [1], "data": [1]}),
    reply({"name": "y", "datatype": "INT8", "shape": ["a"], "data": [1]}),
    ([(b"inference-header-content-length", b"9999")], b"{}"),
]


@pytest.mark.parametrize("given", [*MALFORMED, reply(output("BYTES", size=2), raw=b"\1\2")])
def test_a_malformed_reply_is_an_error_for_a_typed_request(given: tuple[Headers, bytes]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        inferred(SCHEMA, *given, raw=False)


@pytest.mark.parametrize("given", [*MALFORMED, reply(output("INT8", [1000, 1]))])
def test_a_malformed_reply_is_an_error_for_a_raw_request(given: tuple[Headers, bytes]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        inferred(SCHEMA, *given, raw=True)
