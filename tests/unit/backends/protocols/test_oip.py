import math
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from tollway.backends.errors import BadRequest, InvalidAnswer
from tollway.backends.protocols.oip import tensors
from tollway.backends.protocols.oip.protocol import OpenInference, match
from tollway.backends.protocols.oip.target import readdress
from tollway.backends.protocols.registry import protocol
from tollway.backends.types import Call, Headers, HttpReply, Payload

HEAD_LENGTH = b"inference-header-content-length"


class NoBody:
    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("a protocol reads no stream")

    async def aclose(self) -> None:
        return None


def tensor(**members: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0], **members}


def parse(document: Any, raw: bytes | None = None) -> Payload:
    head = orjson.dumps(document)
    headers: Headers = [] if raw is None else [(HEAD_LENGTH, b"%d" % len(head))]
    return OpenInference().parse(Call(b"POST", b"/v2/models/m/infer", headers, head + (raw or b"")))


def answered(
    outputs: list[dict[str, Any]], raw: bytes | None = None, where: str | None = None, **more: Any
) -> tuple[Any, tuple[float, ...]]:
    head = orjson.dumps({"outputs": outputs, **more})
    headers: Headers = [] if raw is None else [(HEAD_LENGTH, b"%d" % len(head))]
    body = head + (raw or b"")
    answer = OpenInference(where).answer(Payload(), HttpReply(200, headers, NoBody()), body)
    return answer.value, answer.features


LABEL = {"name": "label", "shape": [1], "datatype": "INT64", "data": [7]}
PROBABILITIES = {
    "name": "probabilities",
    "shape": [1, 4],
    "datatype": "FP32",
    "data": [0.1, 0.7, 0.2, 0.0],
}


# -- paths


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"/v2/models/digits/infer", ("infer", "digits", None)),
        (b"/v2/models/digits/versions/2/infer", ("infer", "digits", "2")),
        (b"/v2/models/digits", ("metadata", "digits", None)),
        (b"/v2/models/digits/versions/2", ("metadata", "digits", "2")),
        (b"/v2/models/digits/ready", ("ready", "digits", None)),
        (b"/v2/models/digits/versions/2/ready", ("ready", "digits", "2")),
        (b"/v2/models/a%2Fb%20c/infer", ("infer", "a/b c", None)),
        (b"/v2/models/infer", ("metadata", "infer", None)),
        (b"/v2/models/digits/config", ("metadata", "digits", None)),
        (b"/v2/models/digits/versions/1/stats", ("metadata", "digits", "1")),
        (b"/v2/models/digits/generate_stream", ("infer", "digits", None)),
        (b"/seldon/ns/v2/models/digits/infer", ("infer", "digits", None)),
        (b"/v2/models/stats", None),
        (b"/v2/models/", None),
        (b"/v2/models/digits/", None),
        (b"/v2/models/digits/versions/infer", ("metadata", "digits", "infer")),
        (b"/v2/models/digits/versions//infer", None),
        (b"/v2/models/digits/infer/x", None),
        (b"/v1/models/digits/infer", None),
        (b"/v2/health/live", None),
        (b"", None),
    ],
)
def test_a_path_says_what_is_asked_of_which_model(
    path: bytes, target: tuple[str, str, str | None] | None
) -> None:
    found = match(path)
    assert (found and (found.what, found.model, found.version)) == target


@pytest.mark.parametrize(
    ("target", "base", "model", "sent"),
    [
        (b"/v2/models/m/infer", b"", "small", b"/v2/models/small/infer"),
        (b"/v2/models/m/infer?a=/b", b"/p", "small", b"/p/v2/models/small/infer?a=/b"),
        (b"/v2/models/m/versions/1/infer", b"", "s", b"/v2/models/s/versions/1/infer"),
        (b"/v2/models/m", b"", "s", b"/v2/models/s"),
        (b"/v2/models/m%20x/infer", b"", None, b"/v2/models/m%20x/infer"),
        (b"/v2/models/m/infer", b"", "a/../b?c", b"/v2/models/a%2F..%2Fb%3Fc/infer"),
        (b"/classify?x=1", b"/p", "s", b"/p/v2/models/s/infer?x=1"),
        (b"/classify", b"/p", None, b"/p/classify"),
        (b"/ns/v2/models/m/infer?a=1", b"/p", None, b"/p/v2/models/m/infer?a=1"),
        (b"/ns/v2/models/m/config", b"", "s", b"/v2/models/s/config"),
        (b"/v2/models/m/generate_stream", b"", "s", b"/v2/models/s/generate_stream"),
    ],
)
def test_only_the_models_name_in_the_path_changes(
    target: bytes, base: bytes, model: str | None, sent: bytes
) -> None:
    assert readdress(target, base, model) == sent


# -- requests


@pytest.mark.parametrize("name", sorted(tensors.DTYPES))
def test_every_datatype_is_read_as_json_and_as_bytes(name: str) -> None:
    array = np.array([[0, 1], [1, 0]], tensors.DTYPES[name])
    described = {"name": "x", "shape": [2, 2], "datatype": name}

    as_json = parse({"inputs": [{**described, "data": array.tolist()}]})
    raw = array.tobytes()
    binary = parse({"inputs": [{**described, "parameters": {"binary_data_size": len(raw)}}]}, raw)

    assert as_json.data["inputs"][0]["data"] == [[0, 1], [1, 0]]
    assert binary.data["inputs"][0]["data"] == [0, 1, 1, 0]
    assert binary.binary == {"x": raw}


def test_sixteen_bit_brain_floats_are_decoded() -> None:
    raw = b"".join(np.float32(x).tobytes()[2:] for x in (1.0, -2.5))

    described = tensor(datatype="BF16", parameters={"binary_data_size": 4})
    del described["data"]
    payload = parse({"inputs": [described]}, raw)

    assert payload.data["inputs"][0]["data"] == [1.0, -2.5]


def test_texts_are_read_as_json_and_as_bytes() -> None:
    raw = b"\x02\x00\x00\x00hi\x00\x00\x00\x00"
    described = {"name": "t", "shape": [2], "datatype": "BYTES"}

    binary = parse({"inputs": [{**described, "parameters": {"binary_data_size": 10}}]}, raw)

    assert binary.data["inputs"][0]["data"] == ["hi", ""]
    assert parse({"inputs": [{**described, "data": ["hi", ""]}]}).binary == {}


def test_raw_and_json_inputs_may_stand_side_by_side() -> None:
    one = {"shape": [1], "datatype": "FP32"}
    raw = np.array([1.0, 2.0], "<f4").tobytes()

    payload = parse(
        {
            "inputs": [
                {"name": "a", **one, "parameters": {"binary_data_size": 4}},
                {"name": "b", **one, "data": [5]},
                {"name": "c", **one, "parameters": {"binary_data_size": 4}},
            ]
        },
        raw,
    )

    assert payload.binary == {"a": raw[:4], "c": raw[4:]}
    assert [i["data"] for i in payload.data["inputs"]] == [[1.0], [5], [2.0]]


def test_a_raw_input_too_large_to_look_at_is_passed_on_undecoded() -> None:
    count = tensors.DECODED_MAX + 1

    payload = parse(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [count],
                    "datatype": "UINT8",
                    "parameters": {"binary_data_size": count},
                }
            ]
        },
        bytes(count),
    )

    assert "data" not in payload.data["inputs"][0]
    assert len(payload.binary["x"]) == count


def test_a_request_of_raw_bytes_only_is_passed_on() -> None:
    call = Call(b"POST", b"/v2/models/m/infer", [(HEAD_LENGTH, b"0")], b"\x00\x01")

    payload = OpenInference().parse(call)

    assert (payload.data, payload.binary) == (None, {"": b"\x00\x01"})


BINARY = {"name": "x", "shape": [1], "datatype": "FP32"}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"inputs": []}, "at least one"),
        ({"inputs": [3]}, "must be an object, not 3"),
        ({"inputs": [tensor(name=None)]}, "name must be a string, not None"),
        ({"inputs": [tensor(), tensor()]}, "'x' is given twice"),
        ({"inputs": [tensor(datatype="FLOAT")]}, r"'x': datatype 'FLOAT' is not one of .*FP32"),
        ({"inputs": [tensor(datatype=["FP32"])]}, "is not one of"),
        ({"inputs": [tensor(shape=[3])]}, r"'x': shape \[3\] needs 3 elements, data has 2"),
        ({"inputs": [tensor(shape=[2, -1])]}, r"shape \[2, -1\] must hold integers of at least 0"),
        ({"inputs": [tensor(shape=[2.0])]}, "must hold integers"),
        ({"inputs": [tensor(shape=[True, 2])]}, "must hold integers"),
        ({"inputs": [tensor(shape=2)]}, "must be a list of dimensions"),
        ({"inputs": [tensor(shape=[1] * 33)]}, "must be a list of dimensions"),
        ({"inputs": [tensor(shape=[1 << 40, 1 << 40])]}, "more elements than can be counted"),
        ({"inputs": [tensor(data=None)]}, "data must be a list"),
        ({"inputs": [{**BINARY}]}, "data must be a list"),
        ({"inputs": [tensor(data=[1.0, None])]}, "'x': data holds None, which is not FP32"),
        ({"inputs": [tensor(data=[1.0, "2"])]}, "data holds '2', which is not FP32"),
        ({"inputs": [tensor(data=[1.0, True])]}, "data holds True"),
        ({"inputs": [tensor(datatype="INT8", data=[1, 2.5])]}, "data holds 2.5, which is not INT8"),
        ({"inputs": [tensor(datatype="UINT8", data=[1, 256])]}, r"does not fit UINT8 \(0 to 255\)"),
        ({"inputs": [tensor(datatype="BYTES", data=["a", 1])]}, "data holds 1, which is not BYTES"),
        ({"inputs": [tensor(data=[[[1.0, 2.0]]])]}, "nested deeper than its shape"),
        ({"inputs": [tensor()], "id": 3}, "id: 3 is of the wrong type"),
        ({"inputs": [tensor()], "parameters": []}, "parameters: .* wrong type"),
        ({"inputs": [tensor()], "outputs": [{}]}, "name must be a string"),
        ({"inputs": [tensor(parameters=3)]}, "parameters 3 must be an object"),
        ({"inputs": [{**BINARY, "parameters": {"binary_data_size": 4}}]}, "are not in the body"),
    ],
)
def test_an_unusual_request_passes_with_its_fault(document: Any, says: str) -> None:
    """Servers differ: MLServer compares no shapes, reads null as NaN and takes no inputs at all."""
    payload = parse(document)

    assert re.search(says, payload.fault)
    assert payload.data == document


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", r"must be an object, not \[\]"),
        (b"{}", "inputs: must be a list of at least one tensor, not None"),
        (b'{"inputs": 3}', "inputs: must be a list"),
        (b"{", "not JSON"),
        (b"", "the body is empty"),
        (b"\x93NUMPY", "not JSON"),
        (
            b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32",'
            b' "parameters": {"shared_memory_region": "r"}}]}',
            "shared memory is not supported",
        ),
    ],
)
def test_what_no_server_takes_is_refused_with_the_reason(body: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        OpenInference().parse(Call(b"POST", b"/v2/models/m/infer", [], body))


def test_nan_and_compressed_bodies_pass() -> None:
    nan = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}'
    one = OpenInference().parse(Call(b"POST", b"/v2/models/m/infer", [], nan))
    coded: Headers = [(b"content-encoding", b"gzip")]
    other = OpenInference().parse(Call(b"POST", b"/v2/models/m/infer", coded, b"\x1f\x8b"))

    assert math.isnan(one.data["inputs"][0]["data"][0])
    assert (one.fault != "", other.data, other.fault) == (True, None, "it is compressed")


def renamed(document: Any, tail: bytes = b"", path: bytes = b"/v2/models/digits/infer") -> bytes:
    head = document if isinstance(document, bytes) else orjson.dumps(document)
    headers: Headers = [(HEAD_LENGTH, b"%d" % len(head))] if tail else []
    call = Call(b"POST", path, [], b"")
    fields, body = OpenInference().renamed(call, headers, head + tail)
    if tail:
        length = int(dict(fields)[HEAD_LENGTH])
        assert body[length:] == tail
        body = body[:length]
    return body


@pytest.mark.parametrize(
    ("head", "new"),
    [
        (b'{"model_name":"s","outputs":[]}', b'{"model_name":"digits","outputs":[]}'),
        (b' { "model_name" : "s"}', b' { "model_name" : "digits"}'),
        (b'{"id":"1","model_name":"s","n":1e400}', b'{"id":"1","model_name":"digits","n":1e400}'),
        (
            b'{"parameters":{"model_name":"s"},"model_name":"s"}',
            b'{"parameters":{"model_name":"s"},"model_name":"digits"}',
        ),
        (b'{"outputs":[{"data":["\\"model_name\\":"]}]}', None),
        (b'{"model_name":7}', b'{"model_name":"digits"}'),
        (b'{"error":"no"}', None),
        (b"not json", None),
        (b"", None),
        (b'{"a":"' + b"x" * 70_000 + b'","model_name":"s"}', b"digits"),
    ],
)
def test_replies_name_the_model_that_was_asked_for(head: bytes, new: bytes | None) -> None:
    for tail in (b"", b"\x00raw"):
        got = renamed(head, tail)
        if new == b"digits":
            assert got == head.replace(b'"s"', b'"digits"')
        else:
            assert got == (head if new is None else new)


def test_names_are_written_as_json() -> None:
    assert renamed({"model_name": "s"}, path=b"/v2/models/a%22b%C3%A9/infer") == (
        '{"model_name":"a\\"bé"}'.encode()
    )


def test_a_stream_names_the_model_that_was_asked_for() -> None:
    call = Call(b"POST", b"/v2/models/llm/generate_stream", [], b'{"text_input": "hi"}')
    wire = OpenInference()
    payload = wire.parse(call)
    reader = wire.follow(payload)
    assert reader is not None
    assert wire.streams(payload)
    events = [b'data: {"model_name":"s","text_output":"%b"}\n\n' % text for text in (b"a", b"b")]
    cut = b"".join(events)

    passed = b"".join(reader.feed(cut[at : at + 7]) for at in range(0, len(cut), 7))

    assert passed + reader.close() == cut.replace(b'"s"', b'"llm"')
    assert reader.answer().value == "ab"


def test_a_generated_text_is_the_answer() -> None:
    wire = OpenInference()
    payload = wire.parse(Call(b"POST", b"/v2/models/llm/generate", [], b'{"text_input": "hi"}'))
    body = b'{"model_name":"s","text_output":"hello"}'

    assert not wire.streams(payload)
    assert payload.data == {"text_input": "hi"}
    assert wire.answer(payload, HttpReply(200, [], NoBody()), body).value == "hello"


@pytest.mark.parametrize(
    ("described", "raw", "says"),
    [
        ({"parameters": {"binary_data_size": 8}}, b"1234", "8 bytes of binary data are not in"),
        ({"parameters": {"binary_data_size": 8}}, b"12345678", "needs 4 bytes, there are 8"),
        ({"parameters": {"binary_data_size": 4}}, b"12345", "1 bytes at the end of the body"),
        ({"parameters": {"binary_data_size": -4}}, b"", "must be an integer from 0"),
        ({"parameters": {"binary_data_size": 4.0}}, b"1234", "must be an integer from 0"),
        ({"parameters": {"binary_data_size": 4}, "data": [1]}, b"1234", "both data and binary"),
        (
            {"parameters": {"binary_data_size": 6}, "datatype": "BYTES"},
            b"\x03\x00\x00\x00ab",
            "extends beyond the tensor",
        ),
        (
            {"parameters": {"binary_data_size": 2}, "datatype": "BYTES"},
            b"\x03\x00",
            "extends beyond the tensor",
        ),
        (
            {"parameters": {"binary_data_size": 8}, "datatype": "BYTES"},
            bytes(8),
            "needs 1 elements, the bytes have 2",
        ),
    ],
)
def test_raw_tensors_that_do_not_fit_have_a_fault(
    described: dict[str, Any], raw: bytes, says: str
) -> None:
    assert re.search(says, parse({"inputs": [{**BINARY, **described}]}, raw).fault)


@pytest.mark.parametrize("length", [b"-1", b"x", b"", b"999", b"1e2", b"9" * 5000, b"+2", b" 2"])
def test_a_head_length_that_is_none_is_refused(length: bytes) -> None:
    with pytest.raises(BadRequest, match="inference-header-content-length"):
        OpenInference().parse(Call(b"POST", b"/", [(HEAD_LENGTH, length)], b"{}"))


KEYS = ["name", "shape", "datatype", "data", "inputs", "parameters", "binary_data_size"]
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
)


@given(DOCUMENTS, st.binary(max_size=16))
def test_any_document_is_read_or_refused_and_never_crashes(document: Any, raw: bytes) -> None:
    for wrapped in (document, {"inputs": [document]}, {"inputs": [{**BINARY, "data": document}]}):
        with suppress(BadRequest):
            parse(wrapped, raw)


def test_a_shape_of_many_dimensions_is_not_multiplied() -> None:
    """The product of 20,000 large dimensions takes 500 times as long as reading the document."""
    body = orjson.dumps({"inputs": [tensor(shape=[2**63 - 1] * 20_000)]})
    started_s = time.process_time()
    for _ in range(10):
        orjson.loads(body)
    read_s = (time.process_time() - started_s) / 10
    started_s = time.process_time()
    payload = OpenInference().parse(Call(b"POST", b"/v2/models/m/infer", [], body))
    assert "must be a list of dimensions" in payload.fault
    assert time.process_time() - started_s < 50 * read_s


def test_an_error_shows_little_of_what_the_client_sent() -> None:
    assert len(parse({"inputs": [tensor(datatype="x" * 10_000)]}).fault) < 400


# -- replies


def test_an_answer_is_its_label_and_what_its_probabilities_say() -> None:
    value, features = answered([PROBABILITIES, LABEL])

    top, margin, entropy = features
    assert (value, top, margin) == (7, 0.7, pytest.approx(0.5))
    expected = -(0.1 * math.log(0.1) + 0.7 * math.log(0.7) + 0.2 * math.log(0.2)) / math.log(4)
    assert entropy == pytest.approx(expected)


def test_a_reply_of_probabilities_alone_answers_with_the_likeliest() -> None:
    assert answered([PROBABILITIES])[0] == 1
    batch = {**PROBABILITIES, "shape": [2, 2], "data": [0.9, 0.1, 0.2, 0.8]}
    assert answered([batch]) == ([0, 1], pytest.approx((0.85, 0.7, 0.5954618)))


def test_the_first_output_answers_where_none_is_called_label() -> None:
    score = {"name": "score", "shape": [1, 1], "datatype": "FP32", "data": [[0.25]]}

    assert answered([PROBABILITIES, score])[0] == 0.25


@pytest.mark.parametrize(
    ("where", "value"),
    [("score", 0.25), ("outputs[1].data[0]", 0.25), ("outputs[0].data", [7]), ("label", 7)],
)
def test_the_settings_can_say_what_answers(where: str, value: Any) -> None:
    score = {"name": "score", "shape": [1], "datatype": "FP32", "data": [0.25]}

    assert answered([LABEL, score], where=where)[0] == value


def test_a_configured_answer_that_is_not_there_is_no_answer() -> None:
    for where in ("score", "outputs[3].data[0]"):
        with pytest.raises(InvalidAnswer, match="nothing at"):
            answered([LABEL], where=where)
    with pytest.raises(ValueError, match="cannot read the path"):
        protocol("oip", answer="outputs[x")


def test_raw_outputs_are_read_like_json_ones() -> None:
    label = np.array([7], "<i8").tobytes()
    probabilities = np.array([0.1, 0.7, 0.2, 0.0], "<f4").tobytes()
    outputs = [
        {"name": "label", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 8}},
        {
            "name": "probabilities",
            "shape": [1, 4],
            "datatype": "FP32",
            "parameters": {"binary_data_size": 16},
        },
    ]

    value, features = answered(outputs, label + probabilities)

    assert value == 7
    assert features == pytest.approx(answered([PROBABILITIES])[1], abs=1e-6)
    assert answered(outputs, label + probabilities, where="outputs[0].data[0]")[0] == 7


@pytest.mark.parametrize(
    ("more", "features"),
    [
        ({"parameters": {"confidence": 0.8}}, (0.8,)),
        ({"parameters": {"confidence": 1.8}}, ()),
        ({"parameters": {"confidence": "high"}}, ()),
        ({"parameters": None}, ()),
        ({}, ()),
    ],
)
def test_confidence_may_be_a_parameter(more: dict[str, Any], features: tuple[float, ...]) -> None:
    assert answered([LABEL], **more)[1] == features


def test_confidence_may_be_an_output() -> None:
    confidence = {"name": "confidence", "shape": [2], "datatype": "FP32", "data": [0.5, 1.0]}

    assert answered([LABEL, confidence])[1] == (0.75,)
    with pytest.raises(InvalidAnswer, match="no answer"):
        answered([confidence])


def test_logits_under_the_name_of_probabilities_give_no_features() -> None:
    for data in ([-1.0, 3.0, 2.0, 0.0], [0.5, 0.5, 0.5, 0.5]):
        assert answered([LABEL, {**PROBABILITIES, "data": data}])[1] == ()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_nan_and_infinity_are_no_answer(bad: float, datatype: str) -> None:
    raw = np.array([1.0, bad], tensors.DTYPES[datatype]).tobytes()
    output = {"name": "y", "shape": [2], "datatype": datatype}

    with pytest.raises(InvalidAnswer, match="NaN or infinity"):
        answered([{**output, "parameters": {"binary_data_size": len(raw)}}], raw)


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ([], "at least one tensor"),
        ([{**LABEL, "data": []}], "needs 1 elements, data has 0"),
        ([{**LABEL, "data": [1, 2]}], "needs 1 elements, data has 2"),
        ([{**LABEL, "shape": [0], "data": []}], "'label' is empty"),
        ([{**LABEL, "data": [None]}], "data holds None"),
        ([{**LABEL, "datatype": "FP32", "data": [None]}], "data holds None"),
        ([LABEL, LABEL], "is given twice"),
    ],
)
def test_an_empty_or_misshapen_output_is_no_answer(outputs: list[Any], says: str) -> None:
    with pytest.raises(InvalidAnswer, match=says):
        answered(outputs)


def test_an_error_with_status_200_is_no_answer() -> None:
    with pytest.raises(InvalidAnswer, match="an error with status 200: 'out of memory'"):
        answered([LABEL], error="out of memory")


@pytest.mark.parametrize(
    ("parameters", "device_s"),
    [({"device_s": 0.003}, 0.003), ({"other": 1}, None), ({}, None), (None, None)],
)
def test_device_seconds_may_be_a_parameter_of_the_reply(
    parameters: Any, device_s: float | None
) -> None:
    body = orjson.dumps({"outputs": [LABEL], "parameters": parameters})

    usage = OpenInference().usage(Payload(), HttpReply(200, [], NoBody()), body)

    assert (usage.device_s if usage else None) == device_s


def test_device_seconds_that_are_no_number_are_no_usage() -> None:
    body = orjson.dumps({"outputs": [LABEL], "parameters": {"device_s": "3 ms"}})

    with pytest.raises(ValueError, match="device_s"):
        OpenInference().usage(Payload(), HttpReply(200, [], NoBody()), body)


# -- an unchanged client


@pytest.mark.parametrize("binary", [True, False])
def test_what_tritonclient_sends_is_read(binary: bool) -> None:
    pixels = np.arange(4, dtype=np.float32).reshape(1, 4)
    image = InferInput("image", [1, 4], "FP32")
    image.set_data_from_numpy(pixels, binary_data=binary)
    texts = InferInput("texts", [2], "BYTES")
    texts.set_data_from_numpy(np.array([b"a", "é".encode()], dtype=object), binary_data=binary)

    body, head_length = InferenceServerClient.generate_request_body(
        [image, texts], outputs=[InferRequestedOutput("label", binary_data=binary)]
    )
    headers: Headers = [(HEAD_LENGTH, str(head_length).encode())] if head_length else []
    payload = OpenInference().parse(Call(b"POST", b"/v2/models/digits/infer", headers, bytes(body)))

    assert np.ravel(payload.data["inputs"][0]["data"]).tolist() == [0.0, 1.0, 2.0, 3.0]
    assert payload.data["inputs"][1]["data"] == ["a", "é"]
    assert set(payload.binary) == ({"image", "texts"} if binary else set())


def test_tritonclient_shows_a_refusals_reason() -> None:
    _, body = OpenInference().error(
        402, {"title": "Budget exhausted", "status": 402, "detail": "no money"}
    )

    class Response:
        status_code = 402
        text = body.decode()

        def read(self) -> bytes:
            return body

    with pytest.raises(triton.InferenceServerException, match="no money"):
        triton._utils._raise_if_error(Response())
