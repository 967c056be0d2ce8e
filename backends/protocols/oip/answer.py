"""Reads a reply of the Open Inference Protocol: its answer, and its confidence.

The answer is the output called `label` (or as below), else the first output that holds neither
probabilities nor confidence, else the index of the greatest probability. Confidence is read from
the first of: an output of probabilities ([k] or [n, k]), an output `confidence`, the parameter
`confidence`. A batch's answer is the list of its rows' answers, its features are their means.
"""

from collections.abc import Callable
from typing import Any

import orjson

from tollway.backends.documents import SHALLOW_BYTES, has_gap, reply_document, shown
from tollway.backends.errors import InvalidAnswer
from tollway.backends.json_path import Get, compile_path
from tollway.backends.protocols import confidence
from tollway.backends.protocols.oip import tensors
from tollway.backends.protocols.oip.body import HEAD_LENGTH, Tensors, read, split
from tollway.backends.types import Headers, HttpReply, ModelAnswer

LABELS = ("label", "output_label", "class", "prediction", "predict")
PROBABILITIES = ("probabilities", "output_probability", "probability", "probs", "predict_proba")
CONFIDENCE = "confidence"
_NOT_ANSWERS = frozenset((*PROBABILITIES, CONFIDENCE))

Value = Callable[[Any, Tensors], Any]
"""Finds the answer's value in (document, outputs)."""


def answer(value: Value, reply: HttpReply, body: bytes) -> ModelAnswer:
    """Read a reply; InvalidAnswer if it is malformed, an error, or its answer is not finite.

    The contents of other outputs, NaN or empty, do not matter.
    """
    document, outputs = _outputs(reply, body)
    output = value(document, outputs)
    if output.__class__ is not int and output is not None:  # None: too large to be decoded
        if has_gap(output):
            raise InvalidAnswer(f"the answer holds NaN or infinity: {shown(output)}")
        if output == []:
            raise InvalidAnswer("the answer is empty")
    return ModelAnswer(output, _features(document, outputs))


def value_of(where: str | None) -> Value:
    """Return the reader of the answer: an output by its name, or a path into the reply.

    None reads the answer as the module says. Raises ValueError if `where` is neither a name nor a
    path.
    """
    if where is None:
        return _by_default
    get = _path(where)

    def find(document: Any, outputs: Tensors) -> Any:
        if where in outputs.elements:
            return _single(outputs.elements[where])
        value = get(document)
        if value is None:
            raise InvalidAnswer(f"no output and nothing at {where!r}")
        return value

    return find


def _path(where: str) -> Get:
    """Return the path; the name of an output need not be one."""
    try:
        return compile_path(where)
    except ValueError:
        if "[" in where:
            raise
        return lambda document: None


def _outputs(reply: HttpReply, body: bytes) -> tuple[Any, Tensors]:
    if len(body) <= SHALLOW_BYTES and reply.document is None:
        usual = _usual(reply.headers, body)
        if usual is not None:
            return usual
    try:
        head, rest = split(reply.headers, body)
        document = reply_document(reply, head)
        if type(document) is dict and "error" in document and document["error"] is not None:
            raise InvalidAnswer(f"an error with status 200: {shown(document['error'])}")
        outputs = read(document, "outputs", rest)
    except InvalidAnswer:
        raise
    except ValueError as exc:
        raise InvalidAnswer(str(exc)) from exc
    return document, outputs


def _usual(headers: Headers, body: bytes) -> tuple[Any, Tensors] | None:
    """Read a small reply of well-formed tensors, as nearly all are; None if it is not one."""
    for name, _ in headers:
        if name == HEAD_LENGTH:
            return None
    try:
        document = orjson.loads(body)
        entries = document["outputs"]
    except (ValueError, LookupError, TypeError):
        return None
    if type(entries) is not list or document.get("error") is not None:
        return None
    elements = tensors.plain(entries)
    return (document, Tensors(elements)) if elements else None


def _single(elements: list[Any] | None) -> Any:
    return elements[0] if elements is not None and len(elements) == 1 else elements


def _by_default(document: Any, outputs: Tensors) -> Any:
    for name in LABELS:
        if name in outputs.elements:
            if outputs.elements[name] == []:
                raise InvalidAnswer(f"{name!r} is empty")
            return _single(outputs.elements[name])
    for name in outputs.elements:
        if name not in _NOT_ANSWERS:
            return _single(outputs.elements[name])
    for output in document["outputs"]:
        if output["name"] in PROBABILITIES and output["datatype"] in tensors.FLOATS:
            probabilities = _probabilities(outputs.elements[output["name"]])
            return _single(_greatest(probabilities, _classes(output)))
    raise InvalidAnswer("a confidence, and no answer")


def _probabilities(elements: list[Any] | None) -> list[Any] | None:
    if elements is not None and (not elements or has_gap(elements)):
        raise InvalidAnswer("the probabilities are empty or hold NaN or infinity")
    return elements


def _classes(output: dict[str, Any]) -> int:
    return output["shape"][-1] if output["shape"] else 1


def _greatest(elements: list[Any] | None, classes: int) -> list[int] | None:
    """Return the index of each row's greatest element."""
    if elements is None:
        return None
    return [
        max(range(classes), key=elements[at : at + classes].__getitem__)
        for at in range(0, len(elements), classes)
    ]


def _features(document: Any, outputs: Tensors) -> confidence.Features:
    for output in document["outputs"]:
        if output["name"] in PROBABILITIES and output["datatype"] in tensors.FLOATS:
            elements = outputs.elements[output["name"]]
            return confidence.features_of_rows(elements or (), _classes(output))
    if CONFIDENCE in outputs.elements:
        elements = outputs.elements[CONFIDENCE]
        if elements and isinstance(elements[0], int | float):
            return confidence.alone(sum(elements) / len(elements))
    if "parameters" not in document:
        return ()
    parameters = document["parameters"]
    return confidence.alone(parameters.get(CONFIDENCE)) if isinstance(parameters, dict) else ()
