"""MLflow scoring: `POST /invocations`, as used by `mlflow models serve` and SageMaker containers.

A request has exactly one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`, and
may have `params`; a reply has `predictions`. The answer of a row of probabilities is the index of
the greatest; the answer of a row that is an object is its `label` or `prediction`. Usage is read
from the header field `x-device-seconds` or from a `usage` member.
"""

from typing import Any

import orjson

from tollway.backends import usage_headers
from tollway.backends.documents import (
    check_coding,
    has_gap,
    load_reply,
    load_request,
    media_type,
    shown,
)
from tollway.backends.json_path import compile_path
from tollway.backends.protocols import confidence
from tollway.backends.types import (
    FAILOVER_STATUSES,
    BadRequest,
    Call,
    HttpReply,
    InvalidAnswer,
    ModelAnswer,
    Payload,
    UnaryProtocol,
    Usage,
)

INPUTS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_PATH = b"/invocations"
_LABELS = ("label", "prediction")
_PROBABILITY = ("probability", "confidence", "score")

_CODES = {400: "BAD_REQUEST", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
_OTHER_CODE = {4: "RESOURCE_EXHAUSTED", 5: "INTERNAL_ERROR"}


class Mlflow(UnaryProtocol):
    """The protocol; `answer` is a path into the reply, by default `predictions`."""

    name = "mlflow"
    failover_statuses = FAILOVER_STATUSES

    def __init__(self, answer: str | None = None) -> None:
        self._where = answer
        self._get = compile_path(answer) if answer is not None else None

    def parse(self, call: Call) -> Payload:
        """Read a request for predictions."""
        if not call.body and call.method in (b"GET", b"HEAD"):
            return Payload()
        check_coding(call.headers)
        kind = media_type(call.headers) or b"application/json"
        if b"json" not in kind:
            raise BadRequest(f"content-type {shown(kind)}: send application/json")
        document = load_request(call.body)
        if not isinstance(document, dict):
            raise BadRequest(f"the document must be an object, not {shown(document)}")
        given = [key for key in INPUTS if document.get(key) is not None]
        if len(given) != 1:
            raise BadRequest(f"give exactly one of {', '.join(INPUTS)}; there are {len(given)}")
        if not isinstance(document.get("params") or {}, dict):
            raise BadRequest(f"params: {shown(document['params'])} must be an object")
        return Payload(document)

    def readdress(self, call: Call, path: bytes, model: str | None, payload: Payload) -> Call:
        """Return the call below `path`; a server of this protocol has one model, so no name."""
        asked, mark, query = call.target.partition(b"?")
        if model is not None and not asked.endswith(_PATH):
            asked = _PATH  # a route may have any path
        target = path.rstrip(b"/") + asked + mark + query
        return Call(call.method, target, call.headers, call.body, payload)

    def usage(self, payload: Payload, reply: HttpReply, body: bytes) -> Usage | None:
        """Return the usage that a reply reports; None if it reports none."""
        told = usage_headers.from_headers(reply.headers)
        if told is not None or b'"usage"' not in body:
            return told
        document = load_reply(body)
        return usage_headers.from_member(
            document.get("usage") if isinstance(document, dict) else None
        )

    def answer(self, payload: Payload, reply: HttpReply, body: bytes) -> ModelAnswer:
        """Read the predictions: the answer is the prediction of a single row, or the list of
        several.
        """
        document = load_reply(body)
        if not isinstance(document, dict):
            raise InvalidAnswer(f"not an object: {shown(document)}")
        if document.get("error_code") is not None or document.get("error") is not None:
            raise InvalidAnswer(f"an error with status 200: {shown(document)}")
        predictions = document.get("predictions")
        if predictions is None or predictions in ([], {}, ""):
            raise InvalidAnswer(f"no predictions: {shown(document)}")
        rows = predictions if isinstance(predictions, list) else [predictions]
        features = _features(rows)
        if self._get is None:
            values = [_value(row, probable=len(features) > 1) for row in rows]
            if has_gap(values):
                raise InvalidAnswer(f"a prediction is null, NaN or infinite: {shown(predictions)}")
            return ModelAnswer(values[0] if len(values) == 1 else values, features)
        value = self._get(document)
        if value is None:
            raise InvalidAnswer(f"nothing at {self._where}")
        return ModelAnswer(value, features)

    def error(self, status: int, problem: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the problem with MLflow's own `error_code` and `message` beside its members."""
        code = _CODES.get(status) or _OTHER_CODE.get(status // 100, "INTERNAL_ERROR")
        message = problem.get("detail") or problem.get("title") or f"status {status}"
        document = {"error_code": code, "message": message, **problem}
        return b"application/problem+json", orjson.dumps(document)


def _value(row: Any, *, probable: bool) -> Any:
    if isinstance(row, dict):
        return next((row[name] for name in _LABELS if row.get(name) is not None), row)
    if probable and isinstance(row, list):
        return row.index(max(row))
    return row


def _features(rows: list[Any]) -> confidence.Features:
    """Return the mean of the rows' confidence features, if all rows have them."""
    if all(isinstance(row, dict) for row in rows):
        found = (next((row[n] for n in _PROBABILITY if n in row), None) for row in rows)
        told = [confidence.alone(each) for each in found]
        return (sum(each[0] for each in told) / len(told),) if all(told) else ()
    classes = len(rows[0]) if isinstance(rows[0], list) else 0
    if classes < 2 or not all(isinstance(row, list) and len(row) == classes for row in rows):
        return ()
    flat = [number for row in rows for number in row]
    if not set(map(type, flat)) <= {int, float}:
        return ()
    return confidence.features_of_rows(flat, classes)
