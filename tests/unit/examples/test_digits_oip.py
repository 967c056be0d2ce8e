"""Tensors in JSON and as raw bytes, and invalid requests."""

import json

import numpy as np
import pytest

from examples.digits import oip
from tests.support.digits_fakes import image, request

PROBABILITIES = np.eye(10, dtype=np.float32)[[3, 8]]


def tensor(**more):
    data = image(5)
    return {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": data, **more}


def parse(document, raw=b""):
    head = json.dumps(document).encode()
    return oip.parse(head + raw, str(len(head)))


@pytest.mark.parametrize("shape", [[1, 64], [1, 8, 8]])
@pytest.mark.parametrize("nested", [False, True])
def test_an_image_may_be_flat_or_nested(shape, nested):
    data = np.reshape(image(5), shape).tolist() if nested else image(5)

    parsed = parse({"inputs": [tensor(shape=shape, data=data)]})

    assert parsed.images.shape == (1, 64)
    assert parsed.images.dtype == np.float32
    assert parsed.images[0, 5] == 16


@pytest.mark.parametrize("datatype", sorted(oip.DTYPES))
def test_raw_bytes_of_every_datatype_are_the_same_image(datatype):
    raw = np.array(image(5)).astype(oip.DTYPES[datatype]).tobytes()
    given = tensor(datatype=datatype, parameters={"binary_data_size": len(raw)})
    del given["data"]

    parsed = parse({"inputs": [given]}, raw)

    assert parsed.images[0].tolist() == image(5)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "a JSON object"),
        ({}, "exactly one input"),
        ({"inputs": []}, "exactly one input"),
        ({"inputs": [tensor(), tensor()]}, "exactly one input"),
        ({"inputs": [tensor()], "id": 7}, "id"),
        ({"inputs": [tensor(name="picture")]}, "called image"),
        ({"inputs": [tensor(datatype="BYTES")]}, "datatype"),
        ({"inputs": [tensor(shape=[2, 64])]}, "64 values"),
        ({"inputs": [tensor(shape=[0, 64])]}, "shape"),
        ({"inputs": [tensor(shape=[5000, 64])]}, "shape"),
        ({"inputs": [tensor(shape=[True, 64])]}, "integers"),
        ({"inputs": [tensor(shape=[1, 32])]}, "shape"),
        ({"inputs": [tensor(data=["ink"] * 64)]}, "numbers"),
        ({"inputs": [tensor(data=[[1], [1, 2]])]}, "numbers"),
        ({"inputs": [tensor(data=[1e300] * 64)]}, "finite"),
        ({"inputs": [tensor(data=[10**400] * 64)]}, "numbers"),
        ({"inputs": [tensor(data=[None] * 64)]}, "finite"),
        ({"inputs": [tensor()], "outputs": [{"name": "colour"}]}, "colour"),
        ({"inputs": [tensor()], "outputs": 5}, "outputs"),
        ({"inputs": [tensor()], "parameters": []}, None),
        ({"inputs": [tensor()], "parameters": [1]}, "parameters"),
        ({"inputs": [tensor(parameters={"binary_data_size": 3})]}, "binary_data_size"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(document, why):
    if why is None:
        assert parse(document).images.shape == (1, 64)
        return
    with pytest.raises(oip.BadRequest, match=why):
        parse(document)


@pytest.mark.parametrize("length", ["-1", "x", "999999", "²"])
def test_a_length_of_json_that_cannot_be_is_refused(length):
    with pytest.raises(oip.BadRequest, match="Inference-Header-Content-Length"):
        oip.parse(request(1), length)


def test_outputs_come_as_asked_for_in_their_order():
    parsed = oip.parse(request(1, outputs=[{"name": "probabilities"}]), None)

    body, json_bytes = oip.render("m", "1", parsed, PROBABILITIES)

    (output,) = json.loads(body)["outputs"]
    assert json_bytes is None
    assert output["name"] == "probabilities"
    assert output["data"] == PROBABILITIES.ravel().tolist()


@pytest.mark.parametrize(
    "wanted",
    [
        {"parameters": {"binary_data_output": True}},
        {
            "outputs": [
                {"name": "label", "parameters": {"binary_data": True}},
                {"name": "probabilities", "parameters": {"binary_data": True}},
            ]
        },
    ],
)
def test_raw_outputs_follow_the_json_with_their_sizes(wanted):
    parsed = oip.parse(request(1, 2, **wanted), None)

    body, json_bytes = oip.render("m", "1", parsed, PROBABILITIES)

    label, probabilities = json.loads(body[:json_bytes])["outputs"]
    assert label["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(body[json_bytes:][:16], "<i8").tolist() == [3, 8]
    assert np.frombuffer(body[json_bytes:][16:], "<f4").tolist() == PROBABILITIES.ravel().tolist()
    assert probabilities["shape"] == [2, 10]
