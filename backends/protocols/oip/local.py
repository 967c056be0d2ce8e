"""Serves inferences of the Open Inference Protocol inside the gateway: from rows to a reply."""

from itertools import chain
from typing import Any

import orjson

from tollway.backends.protocols.oip import tensors
from tollway.backends.protocols.oip.answer import CONFIDENCE
from tollway.backends.protocols.oip.target import match
from tollway.backends.rules.ruling import Ruling
from tollway.backends.sliced_json import UNREAD, Unread
from tollway.backends.types import Call, Headers, Payload


def rows(payload: Payload) -> list[Any]:
    """Return a batch as documents of one row each; a request that is no batch is the only row.

    The inputs of a batch have the same first dimension; texts are a batch in one dimension, numbers
    in two. Data comes out flat. Empty if the batch is empty, or if an input has a fault or was too
    large to be decoded.
    """
    document = payload.data
    if payload.fault or any(
        isinstance(tensor.get("data", UNREAD), Unread) for tensor in document["inputs"]
    ):
        return []
    inputs = [_flat(tensor) for tensor in document["inputs"]]
    counts = {_batch(tensor) for tensor in inputs}
    if counts == {1} or len(counts) > 1:
        return [{**document, "inputs": inputs}]
    count = counts.pop()
    return [
        {**document, "inputs": [_row(tensor, at, count) for tensor in inputs]}
        for at in range(count)
    ]


def reply(call: Call, rulings: list[Ruling]) -> tuple[Headers, bytes]:
    """Return (fields, body) of the reply to an inference, given a ruling on each of its rows.

    Outputs: `label` [n]; where all rows have them, `probabilities` [n, k] and `confidence` [n]; of
    these the requested ones. The mean confidence is a parameter too, so that it is always sent.
    """
    request = call.payload.data if isinstance(call.payload.data, dict) else {}
    document: dict[str, Any] = {"model_name": ""}
    target = match(call.target.partition(b"?")[0])
    if target is not None:
        document["model_name"] = target.model
        if target.version is not None:
            document["model_version"] = target.version
    if request.get("id") is not None:
        document["id"] = request["id"]
    confidences = [v.confidence for v in rulings if v.confidence is not None]
    if len(confidences) == len(rulings):
        document["parameters"] = {CONFIDENCE: sum(confidences) / len(confidences)}
    wanted = {output["name"] for output in request.get("outputs") or ()}
    outputs = _outputs(rulings, confidences)
    document["outputs"] = [o for o in outputs if o["name"] in wanted] or outputs
    return [(b"content-type", b"application/json")], orjson.dumps(document)


def _outputs(rulings: list[Ruling], confidences: list[float]) -> list[dict[str, Any]]:
    count = len(rulings)
    outputs = [_tensor("label", [count], [ruling.answer for ruling in rulings])]
    classes = {len(ruling.probabilities) for ruling in rulings}
    if len(classes) == 1 and classes != {0}:
        flat = list(chain.from_iterable(ruling.probabilities for ruling in rulings))
        outputs.append(_tensor("probabilities", [count, classes.pop()], flat))
    if len(confidences) == count:
        outputs.append(_tensor(CONFIDENCE, [count], confidences))
    return outputs


def _batch(tensor: dict[str, Any]) -> int:
    shape: list[int] = tensor["shape"]
    return shape[0] if len(shape) > 1 or (shape and tensor["datatype"] == "BYTES") else 1


def _flat(tensor: dict[str, Any]) -> dict[str, Any]:
    data = tensor["data"]
    if isinstance(data, str):  # MLServer's single text; its shape counts characters
        return {**tensor, "shape": [1], "data": [data]}
    if data and isinstance(data[0], list):
        return {**tensor, "data": tensors.values(tensor, tensor["name"], tensors.DECODED_MAX)}
    return tensor


def _row(tensor: dict[str, Any], at: int, count: int) -> dict[str, Any]:
    flat: list[Any] = tensor["data"]
    size = len(flat) // count
    shape = [1, *tensor["shape"][1:]]
    return {**tensor, "shape": shape, "data": flat[at * size : (at + 1) * size]}


def _tensor(name: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    kinds = set(map(type, data))
    if kinds <= {bool}:
        datatype = "BOOL"
    elif kinds <= {int}:
        datatype = "INT64"
    elif kinds <= {int, float}:
        datatype = "FP64"
    else:
        datatype, data = "BYTES", [str(value) for value in data]
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def describe(call: Call) -> tuple[Headers, bytes] | None:
    """Return (fields, body) of the rules' metadata; None for other questions."""
    target = match(call.target.partition(b"?")[0])
    if target is None or target.verb not in (b"", b"ready"):
        return None
    outputs = [{"name": "label", "datatype": "BYTES", "shape": [-1]}]
    document = {
        "name": target.model,
        "platform": "tollway_rules",
        "versions": [],
        "inputs": [],
        "outputs": outputs,
    }
    return [(b"content-type", b"application/json")], orjson.dumps(document)
