"""Turns a ModelInferRequest into the same request over REST: a path, header fields and a body.

A tensor in `raw_input_contents` becomes one of the binary extension, byte for byte. Typed contents
become JSON, except what JSON cannot hold (NaN, infinities, BYTES that are no text) and what is too
large to be worth it: those become binary. Where an input is binary, the outputs are asked for in
binary too. Raw tensors for a server without the extension become JSON as well, as far as it holds
them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from tollway.backends.protocols.oip.body import HEAD_LENGTH
from tollway.backends.protocols.oip.protocol import NO_SHARED_MEMORY
from tollway.backends.protocols.oip.tensors import DECODED_MAX
from tollway.backends.types import Headers
from tollway.gateway.grpc_listener import tensors

_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")
_SHARED = "shared_memory_region"


@dataclass(frozen=True, slots=True)
class RestCall:
    """A request over REST. `raw`: its outputs go back as raw bytes, as its inputs came."""

    path: bytes
    headers: Headers
    body: bytes
    raw: bool


def model_path(name: str, version: str = "", verb: str = "") -> bytes:
    """Return the path of a model; `verb` is the last segment."""
    path = f"/v2/models/{quote(name, safe='')}"
    if version:
        path += f"/versions/{quote(version, safe='')}"
    return (f"{path}/{verb}" if verb else path).encode()


def inference(request: Any, *, as_json: bool = False) -> RestCall:
    """Return the call of an inference; ValueError if the message contradicts itself.

    `as_json`: the model's server does not know the binary extension.
    """
    if not request.model_name:
        raise ValueError("model_name is empty")
    raws: list[bytes] = list(request.raw_input_contents)
    is_raw = bool(raws)
    if is_raw and len(raws) != len(request.inputs):
        counts = f"{len(raws)} tensors for {len(request.inputs)} inputs"
        raise ValueError(f"raw_input_contents has {counts}; shared memory is not supported")
    document: dict[str, Any] = {"id": request.id} if request.id else {}
    parameters = _parameters(request.parameters)
    binary: list[bytes] = []
    document["inputs"] = [
        _tensor(one, raws[at] if is_raw else None, binary, as_json)
        for at, one in enumerate(request.inputs)
    ]
    if request.outputs:
        document["outputs"] = [_output(one, bool(binary)) for one in request.outputs]
    elif binary:
        parameters["binary_data_output"] = True
    if parameters:
        document["parameters"] = parameters
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    path = model_path(request.model_name, request.model_version, "infer")
    if not binary:
        return RestCall(path, [_JSON], head, is_raw)
    length = (HEAD_LENGTH, b"%d" % len(head))
    return RestCall(path, [_BINARY, length], b"".join((head, *binary)), is_raw)


def _tensor(one: Any, raw: bytes | None, binary: list[bytes], as_json: bool) -> dict[str, Any]:
    """Return an input; its bytes, if it has any, are added to `binary`."""
    parameters = _parameters(one.parameters)
    if _SHARED in parameters:
        raise ValueError(NO_SHARED_MEMORY)
    tensor = {"name": one.name, "shape": list(one.shape), "datatype": one.datatype}
    if raw is None:
        raw = _packed(one, tensor)
    elif as_json and (data := tensors.as_json(one.datatype, raw)) is not None:
        tensor["data"], raw = data, None
    if raw is not None:
        parameters["binary_data_size"] = len(raw)
        binary.append(raw)
    if parameters:
        tensor["parameters"] = parameters
    return tensor


def _packed(one: Any, tensor: dict[str, Any]) -> bytes | None:
    """Put typed contents into a JSON tensor; return them as bytes if they do not fit there."""
    field = tensors.CONTENTS.get(one.datatype)
    if field is None:
        known = ", ".join(tensors.CONTENTS)
        why = f"datatype {one.datatype[:80]!r} has no typed contents (only {known} have)"
        raise ValueError(f"input {one.name!r}: {why}; send it in raw_input_contents")
    elements = getattr(one.contents, field)
    if len(elements) > DECODED_MAX or not tensors.is_json(one.datatype, elements):
        return tensors.pack(one.datatype, list(elements))
    is_text = one.datatype == "BYTES"
    tensor["data"] = [text.decode() for text in elements] if is_text else list(elements)
    return None


def _output(one: Any, is_binary: bool) -> dict[str, Any]:
    parameters = _parameters(one.parameters)
    if _SHARED in parameters:
        raise ValueError(NO_SHARED_MEMORY)
    if is_binary:
        parameters["binary_data"] = True
    return {"name": one.name, "parameters": parameters} if parameters else {"name": one.name}


def _parameters(given: Any) -> dict[str, Any]:
    """Return parameters as JSON; those without a value are left out."""
    pairs: Iterable[tuple[str, Any]] = given.items()
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in pairs)
    return {name: getattr(value, field) for name, value, field in chosen if field is not None}
