"""Open Inference Protocol v2, as KServe, Triton and MLServer implement it over HTTP.

Bodies, JSON or with the binary tensor extension, are forwarded unchanged, byte for byte; only the
model's name changes, in the path and in the reply. Device seconds are read from the reply's header
field `x-device-seconds` or its parameter `device_s`. Spec: kserve/open-inference-protocol
(2025-05), and Triton's extension_binary_data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tollway.backends import usage_headers
from tollway.backends.documents import (
    LENIENT_BYTES_MAX,
    is_coded,
    load_reply,
    reply_document,
    request_document,
    shown,
)
from tollway.backends.errors import BadRequest, InvalidAnswer
from tollway.backends.json_members import NO_EDITS, Edits
from tollway.backends.ports import FAILOVER_STATUSES, StreamReader, UnaryProtocol
from tollway.backends.protocols.oip import answer as oip_answer
from tollway.backends.protocols.oip import names, stream
from tollway.backends.protocols.oip import target as oip_target
from tollway.backends.protocols.oip.body import SPECIAL, json_of, read, split
from tollway.backends.protocols.oip.target import STREAMED, OipTarget, match
from tollway.backends.protocols.oip.tensors import name_of
from tollway.backends.types import (
    INFERENCE,
    Call,
    Endpoint,
    Headers,
    HttpReply,
    ModelAnswer,
    Payload,
    Usage,
)

__all__ = ["OipTarget", "OpenInference", "match"]

GENERATE = "generate"
SHARED_MEMORY = b'"shared_memory_region"'
NO_SHARED_MEMORY = (
    "shared memory is not supported: its regions are on the machine of one server, and the gateway "
    "chooses among several; send the tensors in the body"
)
_TYPES = {"id": str, "parameters": dict, "outputs": list}


@dataclass(frozen=True, slots=True, kw_only=True)
class OipCall(Endpoint):
    """A call other than a plain inference: the model that its path asks for, and how it replies."""

    model: str = ""
    is_streamed: bool = False


class OpenInference(UnaryProtocol):
    """The protocol; `answer` selects the answering output, by name or path (see `oip.answer`)."""

    name = "oip"
    renames = True
    failover_statuses = FAILOVER_STATUSES

    def __init__(self, answer: str | None = None) -> None:
        self._value = oip_answer.value_of(answer)

    def text(self, call: Call) -> bytes:
        """Return the JSON text of a request, without its raw tensors."""
        return json_of(call.headers, call.body)

    def paths(self, path: str) -> tuple[str, ...]:
        """Return the paths of the route's model, and those about the server."""
        return oip_target.paths(path)

    def operation(self, path: bytes) -> str:
        """Return what a path asks for; a path that is not of the protocol is an inference."""
        return oip_target.operation(path)

    def server(self, path: bytes, models: Mapping[str, bool], ready: str) -> tuple[int, Any]:
        """Return (status, document) for a path about the server."""
        return oip_target.about_server(path, models, ready)

    def described(self, document: dict[str, Any], path: bytes) -> dict[str, Any]:
        """Return a model's metadata, configuration or statistics, with the name in the path."""
        target = match(path)
        return document if target is None else oip_target.described(document, target.model)

    def readiness(self, path: bytes, is_up: bool) -> tuple[int, Any]:
        """Return (status, document) for a path that asks whether a model is ready."""
        target = match(path)
        document = {"name": target.model if target is not None else "", "ready": is_up}
        return (200, document) if is_up else (503, {**document, "error": "no backend is up"})

    def named(self, path: str) -> str:
        """Return the name of the model in a route's path; empty if it has none."""
        target = match(path.encode())
        return "" if target is None or "{" in path or path.endswith("*") else target.model

    def parse(self, call: Call) -> Payload:
        """Read an inference request and its tensors; raw ones are decoded to `data` too.

        What servers differ about is left to them: the payload has a `fault` then.
        """
        if not call.body and call.method in (b"GET", b"HEAD"):
            return Payload()
        if call.target[-6:] != b"/infer":
            endpoint = _endpoint(call.target)
            if endpoint.name == GENERATE:
                return _generation(call, endpoint)
        else:
            endpoint = INFERENCE
        head, rest = call.body, None
        for name, _ in call.headers:
            if name in SPECIAL:  # rare
                if is_coded(call.headers):
                    return Payload(endpoint=endpoint, fault="it is compressed")
                head, rest = _split(call)
                break
        if not head and rest:  # one raw input, which only the model's metadata describes
            return Payload(None, {"": rest}, endpoint)
        if SHARED_MEMORY in head:
            raise BadRequest(NO_SHARED_MEMORY)
        try:
            document = request_document(call, head)
            tensors = read(document, "inputs", rest)
            if len(document) > 1:
                _check(document)
        except ValueError as exc:
            return _unusual(call, head, endpoint, exc)
        return Payload(document, tensors.raw, endpoint)

    def readdress(
        self, call: Call, base: bytes, model: str | None, payload: Payload
    ) -> tuple[bytes, Edits]:
        """Return (target, edits), with the backend's name of the model in the target."""
        return oip_target.readdress(call.target, base, model), NO_EDITS

    def renamed(self, call: Call, headers: Headers, body: bytes) -> tuple[Headers, bytes]:
        """Return a reply whose `model_name` is what the client asked for."""
        target = match(call.target.partition(b"?")[0])
        return (headers, body) if target is None else names.renamed(headers, body, target.model)

    def follow(self, payload: Payload) -> StreamReader | None:
        """Return a reader of the stream that a request asks for."""
        endpoint = payload.endpoint
        return None if endpoint is INFERENCE else _followed(endpoint)

    def streams(self, payload: Payload) -> bool:
        """Return whether a request asks for a stream."""
        return isinstance(payload.endpoint, OipCall) and payload.endpoint.is_streamed

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the device seconds that a reply reports; None if it reports none."""
        reported = usage_headers.from_headers(reply.headers)
        if reported is not None or b'"device_s"' not in body:
            return reported
        document = reply_document(reply, split(reply.headers, body)[0])
        parameters = document.get("parameters") if isinstance(document, dict) else None
        return usage_headers.from_member(parameters)

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the answer and its confidence (see `oip.answer`), or the text that was generated."""
        if payload.endpoint.name == GENERATE:
            return _generated(reply_document(reply, body))
        return oip_answer.answer(self._value, reply, body)

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the problem with the protocol's own `error`, a string, beside its members."""
        error = problem.get("detail") or problem.get("title") or f"status {status}"
        return b"application/problem+json", orjson.dumps({"error": error, **problem})


def _endpoint(target: bytes) -> Endpoint:
    """Return what a path that is not simply that of an inference asks for."""
    asked = match(target.partition(b"?")[0])
    if asked is None or asked.verb == b"infer":
        return INFERENCE
    streamed = asked.verb in STREAMED
    name = GENERATE if asked.verb.startswith(b"generate") else "infer"
    return OipCall(name=name, model=asked.model, is_streamed=streamed)


def _followed(endpoint: Endpoint) -> StreamReader | None:
    streamed = isinstance(endpoint, OipCall) and endpoint.is_streamed
    return (
        stream.EventReader(endpoint.model) if isinstance(endpoint, OipCall) and streamed else None
    )


def _generation(call: Call, endpoint: Endpoint) -> Payload:
    """Read a request of Triton's generate extension: any document."""
    if is_coded(call.headers):
        return Payload(endpoint=endpoint, fault="it is compressed")
    return Payload(request_document(call, call.body), endpoint=endpoint)


def _generated(document: Any) -> ModelAnswer:
    text = document.get("text_output") if isinstance(document, dict) else None
    if text is None:
        raise InvalidAnswer("no text_output")
    return ModelAnswer(text)


def _split(call: Call) -> tuple[bytes, bytes | None]:
    try:
        return split(call.headers, call.body)
    except ValueError as exc:
        raise BadRequest(str(exc)) from exc


def _unusual(call: Call, head: bytes, endpoint: Endpoint, why: ValueError) -> Payload:
    """Return the payload of a request that is not as it should be, but that a server may take.

    MLServer does not compare data with shapes, Triton reads NaN, both take no inputs at all.
    """
    try:
        document = request_document(call, head)
    except BadRequest:
        if len(head) > LENIENT_BYTES_MAX and (b"NaN" in head or b"Infinity" in head):
            return Payload(endpoint=endpoint, fault=str(why))
        try:
            document = load_reply(head)  # as a lenient server does
        except InvalidAnswer:
            raise BadRequest(str(why)) from why
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise BadRequest(str(why)) from why
    return Payload(document, endpoint=endpoint, fault=str(why))


def _check(document: dict[str, Any]) -> None:
    for key, kind in _TYPES.items():
        value = document.get(key)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{key}: {shown(value)} is of the wrong type")
    for output in document.get("outputs") or ():
        name_of(output)
