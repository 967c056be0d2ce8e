"""What is joined comes apart as it was: for random tensors and rows, in JSON and raw."""

import asyncio
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.batches import call, echoed, tensor, texts
from tollway.backends.batching.oip import OipJoiner
from tollway.backends.batching.parts import Joiner, Part, Unsplittable
from tollway.backends.batching.rows import RowsJoiner
from tollway.backends.protocols.oip.body import HEAD_LENGTH, split
from tollway.backends.protocols.oip.tensors import DTYPES
from tollway.backends.protocols.registry import protocol
from tollway.backends.types import Call, HttpReply

OIP, MLFLOW, PLAIN = OipJoiner(), RowsJoiner(), RowsJoiner()
WIRE = {name: protocol(name) for name in ("http", "mlflow", "plain", "tfserving")}

NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "FP32": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "INT64": st.integers(-(10**18) + 1, 2**63 - 1),
    "UINT8": st.integers(0, 255),
    "BOOL": st.booleans(),
    # A document with these letters is sent alone: they may be a number.
    "BYTES": st.text(st.characters(codec="utf-8"), max_size=5).filter(
        lambda text: "NaN" not in text
    ),
}


@st.composite
def batches(draw: st.DrawFn) -> list[Call]:
    """Draw calls of one kind: several inputs, several dimensions, JSON flat or nested, or raw."""
    kinds = draw(st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, max_size=3))
    tails = [draw(st.lists(st.integers(1, 3), max_size=2)) for _ in kinds]
    forms = [draw(st.sampled_from(["flat", "nested", "raw"])) for _ in kinds]
    made = []
    for number in range(draw(st.integers(2, 5))):
        rows = draw(st.integers(1, 4))
        inputs, raws = [], []
        for at, (kind, tail, form) in enumerate(zip(kinds, tails, forms, strict=True)):
            count = rows * int(np.prod(tail, initial=1))
            data = draw(st.lists(NUMBERS[kind], min_size=count, max_size=count))
            one = {"name": f"i{at}", "datatype": kind, "shape": [rows, *tail]}
            if form == "raw":
                raw = (
                    texts([text.encode() for text in data])
                    if kind == "BYTES"
                    else np.array(data, DTYPES[kind]).tobytes()
                )
                one["parameters"] = {"binary_data_size": len(raw)}
                raws.append(raw)
            elif form == "nested" and tail:
                one["data"] = np.array(data, object).reshape(rows, *tail).tolist()
            else:
                one["data"] = data
            inputs.append(one)
        document: dict[str, Any] = {"inputs": inputs}
        if draw(st.booleans()):
            document["id"] = f"request {number}"
        text = orjson.dumps(document)
        fields = {}
        if raws:
            fields["inference_header_content_length"] = b"%d" % len(text)
        made.append(call(text + b"".join(raws), **fields))
    return made


def parts_of(joiner: Joiner, calls: list[Call]) -> list[Part]:
    parts = [joiner.part(one) for one in calls]
    found = [part for part in parts if part is not None]
    assert len(found) == len(calls)
    assert len({part.key for part in found}) == 1
    return found


async def body_of(reply: HttpReply) -> bytes:
    return await reply.read(1 << 30)


def said(headers: Any, body: bytes) -> tuple[Any, bytes | None]:
    """Return a reply without its id, which the server makes where the client gave none."""
    text, rest = split(headers, body)
    document = orjson.loads(text)
    return document, rest


@given(batches())
def test_a_batch_comes_apart_into_what_each_call_would_have_got_alone(calls: list[Call]) -> None:

    parts = parts_of(OIP, calls)
    joined = echoed(OIP.join(parts, calls[-1]))
    body = asyncio.run(body_of(joined))
    replies = OIP.split(parts, joined.headers, body, [0.0] * len(parts))
    for one, (headers, own) in zip(calls, replies, strict=True):
        alone = echoed(one)
        expected = asyncio.run(body_of(alone))
        assert said(headers, own) == said(alone.headers, expected)


def test_what_is_joined_is_itself_a_valid_request() -> None:
    calls = [call(tensor([[1.0, 2.0]])), call(tensor([[3.0, 4.0], [5.0, 6.0]]))]
    parts = parts_of(OIP, calls)
    joined = OIP.join(parts, calls[0])
    document = protocol("oip").parse(joined).data
    assert document["inputs"][0]["shape"] == [3, 2]
    assert document["inputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert "id" not in document


ALONE: dict[str, Any] = {
    "no rows": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [], "data": [1]}]},
    "an empty batch": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 2], "data": []}]},
    "inputs of different lengths": {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]},
            {"name": "y", "datatype": "FP32", "shape": [2], "data": [1, 2]},
        ]
    },
    "a sequence": tensor([[1.0]], parameters={"sequence_id": 7}),
    "one text for all": {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": "a"}]},
}


@pytest.mark.parametrize("name", ALONE)
def test_goes_alone(name: str) -> None:
    assert OIP.part(call(ALONE[name])) is None


DIFFER: dict[str, tuple[Any, Any]] = {
    "another width": (tensor([[1.0]]), tensor([[1.0, 2.0]])),
    "another output": (
        tensor([[1.0]], outputs=[{"name": "a"}]),
        tensor([[1.0]], outputs=[{"name": "b"}]),
    ),
    "another parameter": (
        tensor([[1.0]], parameters={"k": 1}),
        tensor([[1.0]], parameters={"k": 2}),
    ),
    "another datatype": (
        tensor([[1]]),
        {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [1]}]},
    ),
}


@pytest.mark.parametrize("name", DIFFER)
def test_is_not_joined_with(name: str) -> None:
    one, other = (OIP.part(call(document)) for document in DIFFER[name])
    assert one is not None and other is not None and one.key != other.key


def test_a_credential_or_an_unknown_field_keeps_calls_apart_and_a_trace_does_not() -> None:
    plain, traced, keyed = (
        OIP.part(call(tensor([[1.0]]), **fields))
        for fields in ({}, {"traceparent": b"00-1"}, {"authorization": b"Bearer a"})
    )
    assert plain and traced and keyed
    assert plain.key == traced.key != keyed.key


UNSPLIT: dict[str, Any] = {
    "other rows": {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}]},
    "a number about the batch": {
        "parameters": {"confidence": 0.5},
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1, 2]}],
    },
    "no outputs": {"error": "no"},
    "a list": [1, 2],
    "data that is not there": {"outputs": [{"name": "y", "datatype": "FP32", "shape": [2]}]},
    "raw data that is not there": {
        "outputs": [
            {
                "name": "y",
                "datatype": "FP32",
                "shape": [2],
                "parameters": {"binary_data_size": 8},
            }
        ]
    },
}


@pytest.mark.parametrize("name", UNSPLIT)
def test_is_not_split(name: str) -> None:
    parts = parts_of(OIP, [call(tensor([[1.0]])), call(tensor([[2.0]]))])
    with pytest.raises(Unsplittable):
        OIP.split(parts, [], orjson.dumps(UNSPLIT[name]), [0.0, 0.0])


@given(st.binary(max_size=200), st.sampled_from([b"", b"10", b"200"]))
def test_any_bytes_are_split_or_refused(body: bytes, length: bytes) -> None:
    parts = parts_of(OIP, [call(tensor([[1.0]])), call(tensor([[2.0]]))])
    headers = [(HEAD_LENGTH, length)] if length else []
    for joiner in (OIP, PLAIN):
        try:
            joiner.split(parts, headers, body, [0.0, 0.0])
        except Unsplittable:
            continue


def test_raw_texts_are_cut_at_their_own_lengths() -> None:
    raw = texts([b"a", b"", b"long text", b"b"])
    head = orjson.dumps(
        {
            "outputs": [
                {
                    "name": "y",
                    "datatype": "BYTES",
                    "shape": [2, 2],
                    "parameters": {"binary_data_size": len(raw)},
                }
            ]
        }
    )
    parts = parts_of(OIP, [call(tensor([[1.0]])), call(tensor([[2.0]]))])
    headers = [(HEAD_LENGTH, b"%d" % len(head))]
    replies = OIP.split(parts, headers, head + raw, [0.0, 0.0])
    assert [split(*reply)[1] for reply in replies] == [
        texts([b"a", b""]),
        texts([b"long text", b"b"]),
    ]


def test_a_length_beyond_the_tensor_is_refused() -> None:
    raw = struct.pack("<I", 1 << 31) + b"a" + texts([b"b"])
    output = {"name": "y", "datatype": "BYTES", "shape": [2]}
    head = orjson.dumps({"outputs": [{**output, "parameters": {"binary_data_size": len(raw)}}]})
    parts = parts_of(OIP, [call(tensor([[1.0]])), call(tensor([[2.0]]))])
    with pytest.raises(Unsplittable):
        OIP.split(parts, [(HEAD_LENGTH, b"%d" % len(head))], head + raw, [0.0, 0.0])


def test_each_reply_has_its_own_id_and_its_own_seconds() -> None:
    calls = [call(tensor([[1.0]], id="mine")), call(tensor([[2.0]])), call(tensor([[3.0]]))]
    parts = parts_of(OIP, calls)
    reply = {
        "id": "of-the-server",
        "parameters": {"device_s": 0.003, "content_type": "np"},
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}],
    }
    headers = [(b"x-device-seconds", b"0.003"), (b"set-cookie", b"a=b"), (b"x-a", b"1")]
    replies = OIP.split(parts, headers, orjson.dumps(reply), [0.001, 0.002, 0.003])
    told = [orjson.loads(body) for _, body in replies]
    assert told[0]["id"] == "mine"
    assert len({one["id"] for one in told} | {"of-the-server"}) == 4
    assert [one["parameters"]["device_s"] for one in told] == [0.001, 0.002, 0.003]
    assert all(fields == [(b"x-a", b"1")] for fields, _ in replies)


# ---------------------------------------------------------------------- rows

ROWS: dict[str, tuple[str, Any, Any]] = {
    "instances": ("mlflow", {"instances": [[1.5]]}, {"instances": [[2.5], [3.5]]}),
    "named instances": (
        "mlflow",
        {"instances": [{"a": 1, "b": "x"}]},
        {"instances": [{"b": "y", "a": 2}]},
    ),
    "inputs": ("mlflow", {"inputs": [[1, 2]]}, {"inputs": [[3, 4]]}),
    "named inputs": (
        "mlflow",
        {"inputs": {"a": [1], "b": ["x"]}},
        {"inputs": {"a": [2], "b": ["y"]}},
    ),
    "a frame": (
        "mlflow",
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"]]}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[2, "y"], [3, "z"]]}},
    ),
    "a numbered frame": (
        "mlflow",
        {"dataframe_split": {"columns": ["a"], "index": [0], "data": [[1]]}},
        {"dataframe_split": {"columns": ["a"], "index": [0, 1], "data": [[2], [3]]}},
    ),
    "records": ("mlflow", {"dataframe_records": [{"a": 1.0}]}, {"dataframe_records": [{"a": 2.0}]}),
    "parameters": (
        "mlflow",
        {"instances": [[1]], "params": {"k": 1}},
        {"instances": [[2]], "params": {"k": 1}},
    ),
    "KServe V1": ("tfserving", {"instances": [[1.5, 2.0]]}, {"instances": [[2.5, 3.0]]}),
    "any server": ("http", [{"a": 1.5}], [{"a": 2.5}]),
    "a plain list": ("plain", [[1.0, 2.0]], [[3.0, 4.0]]),
    "a list of texts": ("plain", ["a"], ["b", "c"]),
    "bare numbers as instances": ("plain", {"instances": [1, 2]}, {"instances": [3]}),
}


def data_of(document: Any) -> Any:
    """Return the rows of a document, as a list."""
    if isinstance(document, list):
        return document
    data = next(value for name, value in document.items() if name != "params")
    if isinstance(data, dict) and "data" in data:
        return data["data"]
    if isinstance(data, dict):
        return [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]
    return data


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_joined_and_come_apart(name: str) -> None:
    kind, *documents = ROWS[name]
    calls = [call(document, wire=WIRE[kind]) for document in documents]
    parts = parts_of(MLFLOW, calls)
    joined = MLFLOW.join(parts, calls[0])
    document = WIRE[kind].parse(joined).data
    rows = data_of(document)
    assert rows == data_of(documents[0]) + data_of(documents[1])
    if name == "a numbered frame":
        assert document["dataframe_split"]["index"] == [0, 1, 2]
    if name == "parameters":
        assert document["params"] == {"k": 1}
    for reply in (rows, {"predictions": rows, "model": "m"}, {"outputs": {"y": rows}}):
        replies = MLFLOW.split(parts, [], orjson.dumps(reply), [0.0, 0.0])
        got = [orjson.loads(body) for _, body in replies]
        assert [data_of(one) if one != [] else one for one in got] == [
            data_of(_of(reply, data_of(each))) for each in documents
        ]


def _of(reply: Any, rows: Any) -> Any:
    if isinstance(reply, list):
        return rows
    return {"predictions": rows} if "predictions" in reply else {"outputs": {"y": rows}}


APART: dict[str, tuple[str, Any, Any]] = {
    "integers and fractions": ("mlflow", {"instances": [[1]]}, {"instances": [[1.5]]}),
    "a column of integers and one of fractions": (
        "mlflow",
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 1.5]]}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 1.5]]}},
    ),
    "other columns": (
        "mlflow",
        {"dataframe_split": {"columns": ["a"], "data": [[1]]}},
        {"dataframe_split": {"columns": ["b"], "data": [[1]]}},
    ),
    "other parameters": (
        "mlflow",
        {"instances": [[1]], "params": {"k": 1}},
        {"instances": [[1]], "params": {"k": 2}},
    ),
    "another width": ("plain", [[1, 2]], [[1, 2, 3]]),
    "other names": ("plain", [{"a": 1}], [{"b": 1}]),
}


@pytest.mark.parametrize("name", APART)
def test_rows_of_another_kind_are_not_joined(name: str) -> None:
    kind, *documents = APART[name]
    parts = [MLFLOW.part(call(document, wire=WIRE[kind])) for document in documents]
    assert parts[0] is not None and parts[1] is not None and parts[0].key != parts[1].key


ROWS_ALONE: dict[str, tuple[str, Any]] = {
    "bare numbers": ("plain", [1, 2, 3]),
    "an object": ("plain", {"text": "a"}),
    "a text": ("plain", "a"),
    "nothing": ("plain", []),
    "null": ("mlflow", {"instances": [[None]]}),
    "ragged rows": ("mlflow", {"instances": [[1], [1, 2]]}),
    "ragged columns": ("mlflow", {"inputs": {"a": [1], "b": [1, 2]}}),
    "a frame with names of rows": (
        "mlflow",
        {"dataframe_split": {"columns": ["a"], "index": ["x"], "data": [[1]]}},
    ),
    "a number beyond 64 bits": ("plain", b"[[123456789012345678901234567890]]"),
    "one row as inputs": ("mlflow", {"inputs": [1, 2]}),
}


@pytest.mark.parametrize("name", ROWS_ALONE)
def test_rows_go_alone(name: str) -> None:
    kind, document = ROWS_ALONE[name]
    assert MLFLOW.part(call(document, wire=WIRE[kind])) is None


@pytest.mark.parametrize(
    "reply",
    [
        {"predictions": [1]},
        {"predictions": [1, 2], "confidence": 0.5},
        {"predictions": [1, 2], "classes": ["a", "b"]},
        {"predictions": [1, 2], "usage": {"input_tokens": 3}},
        [1],
        "text",
        {"error": "no"},
    ],
)
def test_a_reply_that_is_not_by_rows_is_not_split(reply: Any) -> None:
    calls = [call([[1]], wire=WIRE["plain"]), call([[2]], wire=WIRE["plain"])]
    with pytest.raises(Unsplittable):
        MLFLOW.split(parts_of(MLFLOW, calls), [], orjson.dumps(reply), [0.0, 0.0])


def test_seconds_in_a_usage_are_divided() -> None:
    calls = [call([[1]], wire=WIRE["plain"]), call([[2]], wire=WIRE["plain"])]
    reply = orjson.dumps({"predictions": [1, 2], "usage": {"device_s": 0.5}})
    replies = MLFLOW.split(parts_of(MLFLOW, calls), [], reply, [0.2, 0.3])
    assert [orjson.loads(body)["usage"]["device_s"] for _, body in replies] == [0.2, 0.3]
