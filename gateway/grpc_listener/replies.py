"""Turns the reply to an inference over REST into a ModelInferResponse.

The outputs are raw bytes if the request was, and typed contents otherwise, whatever form the
backend used. Only FP16 and BF16 have no typed contents: a reply with one of them is raw.
"""

from typing import Any

import orjson

from tollway.backends.documents import load_reply
from tollway.backends.errors import InvalidAnswer
from tollway.backends.protocols.oip.body import split
from tollway.backends.protocols.oip.tensors import TENSORS_MAX
from tollway.backends.types import Headers
from tollway.gateway.grpc_listener import tensors
from tollway.gateway.grpc_listener.schema import Schema

_SIZE = "binary_data_size"


def inferred(schema: Schema, headers: Headers, body: bytes, *, raw: bool) -> Any:
    """Return the message of a reply with status 200; ValueError if it is malformed."""
    head, rest = split(headers, body)
    try:
        document = load_reply(head)
    except InvalidAnswer as exc:
        raise ValueError(str(exc)) from exc
    outputs = document.get("outputs") if isinstance(document, dict) else None
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise ValueError("the reply has no outputs")
    if len(outputs) > TENSORS_MAX:
        raise ValueError(f"the reply has more than {TENSORS_MAX} outputs")
    message = schema.ModelInferResponse(
        model_name=_text(document.get("model_name")),
        model_version=_text(document.get("model_version")),
        id=_text(document.get("id")),
    )
    set_parameters(message.parameters, document.get("parameters"))
    raw = raw or any(str(one.get("datatype")) not in tensors.CONTENTS for one in outputs)
    at = 0
    for output in outputs:
        size = _binary_size(output)
        part = None if size is None else (rest or b"")[at : at + size]
        if part is not None and len(part) != size:
            raise ValueError(f"output {output.get('name')!r}: its {size} bytes are not in the body")
        at += size or 0
        try:
            _add(message, output, part, raw)
        except (TypeError, AttributeError) as exc:
            raise ValueError(f"output {output.get('name')!r}: {exc}") from exc
    return message


def set_parameters(parameters: Any, given: Any) -> None:
    """Set the parameters of a message; a value that is no scalar is set as its JSON."""
    if not isinstance(given, dict):
        return
    for name, value in given.items():
        one = parameters[name]
        if isinstance(value, bool):
            one.bool_param = value
        elif isinstance(value, int):
            field = "int64_param" if value < 1 << 63 else "uint64_param"
            setattr(one, field, value)
        elif isinstance(value, float):
            one.double_param = value
        elif isinstance(value, str):
            one.string_param = value
        else:
            one.string_param = orjson.dumps(value).decode()


def _add(message: Any, output: dict[str, Any], part: bytes | None, raw: bool) -> None:
    """Add an output to a message; `part`: its bytes, if it is binary."""
    datatype = output.get("datatype")
    made = message.outputs.add(
        name=output.get("name"), datatype=datatype, shape=output.get("shape") or ()
    )
    parameters = output.get("parameters")
    if isinstance(parameters, dict):
        set_parameters(made.parameters, {k: v for k, v in parameters.items() if k != _SIZE})
    data = output.get("data", [])
    if raw:
        whole = tensors.pack(str(datatype), data) if part is None else part
        message.raw_output_contents.append(whole)
    else:
        elements = data if part is None else tensors.unpack(str(datatype), part)
        tensors.fill(made.contents, str(datatype), elements)


def _binary_size(output: dict[str, Any]) -> int | None:
    parameters = output.get("parameters")
    size = parameters.get(_SIZE) if isinstance(parameters, dict) else None
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise ValueError(f"output {output.get('name')!r}: binary_data_size is not a size")
    return size


def _text(value: Any) -> str:
    return "" if value is None else str(value)
