"""Open Inference Protocol v2, as KServe, Triton and MLServer implement it over HTTP.

Bodies, JSON or with the binary tensor extension, are forwarded unchanged, byte for byte; only the
model's name in the path changes. Device seconds are read from the reply's header field
`x-device-seconds` or its parameter `device_s`. Spec: kserve/open-inference-protocol (2025-05), and
Triton's extension_binary_data.
"""

from typing import Any

import orjson

from tollway.backends import usage_headers
from tollway.backends.documents import check_coding, load_reply, load_request, shown
from tollway.backends.protocols.oip import answer as oip_answer
from tollway.backends.protocols.oip import target as oip_target
from tollway.backends.protocols.oip.body import read, split
from tollway.backends.protocols.oip.target import OipTarget, match
from tollway.backends.protocols.oip.tensors import name_of
from tollway.backends.types import (
    FAILOVER_STATUSES,
    BadRequest,
    Call,
    HttpReply,
    ModelAnswer,
    Payload,
    UnaryProtocol,
    Usage,
)

__all__ = ["OipTarget", "OpenInference", "match"]

_TYPES = {"id": str, "parameters": dict, "outputs": list}


class OpenInference(UnaryProtocol):
    """The protocol; `answer` selects the answering output, by name or path (see `oip.answer`)."""

    name = "oip"
    failover_statuses = FAILOVER_STATUSES

    def __init__(self, answer: str | None = None) -> None:
        self._value = oip_answer.value_of(answer)

    def parse(self, call: Call) -> Payload:
        """Read an inference request and check its tensors; raw ones are decoded to `data` too."""
        if not call.body and call.method in (b"GET", b"HEAD"):
            return Payload()
        check_coding(call.headers)
        try:
            head, rest = split(call.headers, call.body)
            if not head and rest:  # one raw input, which only the model's metadata describes
                return Payload(None, {"": rest})
            document = load_request(head)
            tensors = read(document, "inputs", rest)
            _check(document)
        except ValueError as exc:
            raise BadRequest(str(exc)) from exc
        return Payload(document, tensors.raw)

    def readdress(self, call: Call, path: bytes, model: str | None, payload: Payload) -> Call:
        """Return the call below `path`, with the backend's name of the model."""
        target = oip_target.readdress(call.target, path, model)
        return Call(call.method, target, call.headers, call.body, payload)

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the device seconds that a reply reports; None if it reports none."""
        told = usage_headers.from_headers(reply.headers)
        if told is not None or b'"device_s"' not in body:
            return told
        document = load_reply(split(reply.headers, body)[0])
        parameters = document.get("parameters") if isinstance(document, dict) else None
        return usage_headers.from_member(parameters)

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the answer and its confidence (see `oip.answer`)."""
        return oip_answer.answer(self._value, reply.headers, body)

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the problem with the protocol's own `error`, a string, beside its members."""
        error = problem.get("detail") or problem.get("title") or f"status {status}"
        return b"application/problem+json", orjson.dumps({"error": error, **problem})


def _check(document: dict[str, Any]) -> None:
    for key, kind in _TYPES.items():
        value = document.get(key)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{key}: {shown(value)} is of the wrong type")
    for output in document.get("outputs") or ():
        name_of(output)
