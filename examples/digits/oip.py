"""Open Inference Protocol v2, as a server reads and writes it: pure, bytes in and bytes out.

Both forms of a tensor: JSON, and raw little-endian bytes after the JSON (the binary tensor data
extension: https://github.com/triton-inference-server/server/blob/main/docs/protocol).
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import CLASSES, PIXELS, Images
from .model import Probabilities

EXTENSIONS = ["binary_tensor_data"]
BATCH_MAX = 4096  # 1 MB of pixels; a larger batch gains nothing more on any device here
DTYPES = {
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


class BadRequest(ValueError):  # noqa: N818 - reads as what happened
    """The request cannot be answered; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """Images [n, 64], and the outputs wanted: names, and which of them as raw bytes."""

    images: Images
    id: str | None
    outputs: dict[str, bool]


def metadata(name: str, version: str, platform: str) -> dict[str, Any]:
    """Describe a model as GET /v2/models/NAME does."""
    return {
        "name": name,
        "versions": [version],
        "platform": platform,
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, PIXELS]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, CLASSES]},
        ],
    }


def parse(body: bytes, json_bytes: str | None) -> Request:
    """Read a request; `json_bytes` is its Inference-Header-Content-Length, None without one."""
    size = len(body) if json_bytes is None else _length(json_bytes, len(body))
    try:
        document = json.loads(body[:size])
    except ValueError as exc:
        raise BadRequest(f"the request is not JSON: {exc}") from None
    if not isinstance(document, dict):
        raise BadRequest("the request must be a JSON object")
    identity = document.get("id")
    if not (identity is None or isinstance(identity, str)):
        raise BadRequest("id must be a string")
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest("there must be exactly one input, image")
    return Request(_images(inputs[0], body[size:]), identity, _outputs(document))


def render(
    model: str, version: str, request: Request, probabilities: Probabilities
) -> tuple[bytes, int | None]:
    """Return (body, bytes of JSON in it); None for the latter where all of it is JSON."""
    tensors = {
        "label": ("INT64", probabilities.argmax(axis=1).astype("<i8")),
        "probabilities": ("FP32", probabilities.astype("<f4")),
    }
    outputs, raw = [], []
    for name, binary in request.outputs.items():
        datatype, values = tensors[name]
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(values.shape)}
        if binary:
            raw.append(values.tobytes())
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            tensor["data"] = _plain(values)
        outputs.append(tensor)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id is not None:
        document["id"] = request.id
    head = json.dumps(document, separators=(",", ":")).encode()
    return head + b"".join(raw), len(head) if raw else None


def _length(text: str, limit: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= limit):
        raise BadRequest(f"Inference-Header-Content-Length must be 0 to {limit}, not {text!r}")
    return int(text)


def _images(tensor: dict[str, Any], raw: bytes) -> Images:
    shape, datatype = tensor.get("shape"), tensor.get("datatype")
    if tensor.get("name") != "image":
        raise BadRequest(f"unexpected input {tensor.get('name')!r}; the input is called image")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise BadRequest(f"datatype {datatype!r} of image is not one of {', '.join(DTYPES)}")
    if not (isinstance(shape, list) and shape and all(type(n) is int for n in shape)):
        raise BadRequest("shape of image must be a list of integers")
    if not (1 <= shape[0] <= BATCH_MAX and shape[1:] in ([PIXELS], [8, 8])):
        raise BadRequest(f"shape of image must be [n, {PIXELS}] with n from 1 to {BATCH_MAX}")
    parameters = tensor.get("parameters") or {}
    values = (
        _from_raw(raw, parameters["binary_data_size"], datatype)
        if isinstance(parameters, dict) and "binary_data_size" in parameters
        else _from_json(tensor.get("data"))
    )
    if values.size != shape[0] * PIXELS:
        raise BadRequest(f"image has {values.size} values, which does not match its shape {shape}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused next
        images = values.astype(np.float32).reshape(-1, PIXELS)
    if not np.isfinite(images).all():
        raise BadRequest("image has values that are not finite numbers")
    return images


def _from_raw(raw: bytes, size: object, datatype: str) -> NDArray[Any]:
    dtype = np.dtype(DTYPES[datatype])
    if type(size) is not int or size != len(raw) or size % dtype.itemsize:
        raise BadRequest(f"binary_data_size {size!r} does not match the {len(raw)} bytes sent")
    return np.frombuffer(raw, dtype)


def _from_json(data: object) -> NDArray[Any]:
    try:
        return np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadRequest("data of image must be numbers") from None


def _outputs(document: dict[str, Any]) -> dict[str, bool]:
    """Return the outputs wanted, in order, and whether each is wanted as raw bytes."""
    default = bool(_parameters(document).get("binary_data_output"))
    wanted = document.get("outputs") or [{"name": "label"}, {"name": "probabilities"}]
    if not (isinstance(wanted, list) and all(isinstance(output, dict) for output in wanted)):
        raise BadRequest("outputs must be a list of objects")
    names = [output.get("name") for output in wanted]
    if unknown := [name for name in names if name not in ("label", "probabilities")]:
        raise BadRequest(
            f"unexpected output {unknown[0]!r}; the outputs are label and probabilities"
        )
    return {
        output["name"]: bool(_parameters(output).get("binary_data", default)) for output in wanted
    }


def _parameters(document: dict[str, Any]) -> dict[str, Any]:
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest("parameters must be an object")
    return parameters


def _plain(values: NDArray[Any]) -> list[Any]:
    """Return numbers for JSON; float32 is written with the digits it has, not float64's."""
    if values.dtype.kind != "f":
        return list(values.tolist())
    return [float(f"{value:.7g}") for value in values.ravel()]
