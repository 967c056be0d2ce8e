"""Features of a language model's reply: how sure it was, and whether it did what was asked.

Beside what the protocol reads from a reply (whether it finished, its length, the probabilities of
its tokens), the text itself is read: refusals, hedging, and whether it satisfies the JSON schema or
the tools that the request declared. One number, `sure`, sums them up before any label has come; it
stands where other models' replies have their top probability. All are learned from like any other.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from tollway.backends.texts import signals
from tollway.backends.texts.json_schema import TooMuchWork, violation
from tollway.backends.types import ModelAnswer
from tollway.record import record

TEXT_BYTES_MAX = 256 << 10  # of an answer that is checked against a schema: a millisecond
UNTOLD = 0.75  # the assumed probability of a token where none is reported
_DOUBTED = 0.3  # what is left of `sure` where a verifier says 0
_UNFINISHED, _REFUSED, _HEDGED, _VIOLATED = 0.5, 0.4, 0.8, 0.1  # what is left of `sure`
MEAN, LOWEST = 2, 3  # of the features of an answer: see the protocols of language models


@record
class Demand:
    """What a request demands of its answer: JSON, a JSON Schema, or calls of the tools it names.

    `schema` is None if only JSON is demanded. `tools`: the schemas of the arguments, by name.
    """

    is_json: bool = False
    schema: Any = None
    tools: tuple[tuple[str, Any], ...] = ()


NOTHING = Demand()


class TextFeatures:
    """Computes the features of replies on a route of language models."""

    def __init__(self, *, verifies: bool = False) -> None:
        """`verifies`: whether replies are verified by a backend."""
        self._verifies = verifies

    def __call__(
        self,
        request: Any,
        replies: Sequence[tuple[str, ModelAnswer]],
        verified: float | None = None,
    ) -> tuple[float, float, float, float, tuple[float, ...]]:
        """Return (sure, lowest, told, agreeing, more) of the last reply; `more` has a fixed length.

        `request` is its document, as the protocol read it. `sure`: the mean probability of its
        tokens, lowered by signs of trouble. `lowest`: the least probability of a token; 0 if
        `told` is 0: none were reported. `agreeing`: how far it agrees with the replies before it.
        `verified`: how likely it is right, if a verifier says so.
        """
        _, answer = replies[-1]
        demand = demanded(request)
        text = answer.value if isinstance(answer.value, str) else ""
        features = answer.features
        finished = features[0] if features else 0.0
        length = features[1] if len(features) > 1 else 0.0
        told = len(features) > LOWEST
        refuses, hedges = signals.refuses(text), signals.hedges(text)
        checked = demand is not NOTHING and not answer.is_partial
        violated = checked and not satisfied(demand, answer.value)
        sure = features[MEAN] if told else UNTOLD
        if not (finished or answer.is_partial):
            sure *= _UNFINISHED
        sure *= 1.0 - (1.0 - _REFUSED) * refuses
        sure *= 1.0 - (1.0 - _HEDGED) * hedges
        if violated:
            sure *= _VIOLATED
        if verified is not None:
            sure *= _DOUBTED + (1.0 - _DOUBTED) * verified
        earlier = [other.value for _, other in replies[:-1]]
        agreeing = sum(_agreement(other, answer.value) for other in earlier)
        more: tuple[float, ...] = (
            finished,
            length,
            refuses,
            hedges,
            float(checked),
            float(violated),
            float(answer.is_partial),
            float(bool(answer.value) and not text),  # calls of tools
        )
        if self._verifies:
            more = (*more, float(verified is not None), 0.5 if verified is None else verified)
        lowest = features[LOWEST] if told else 0.0
        return sure, lowest, float(told), agreeing / len(earlier) if earlier else 0.0, more


def _agreement(one: Any, other: Any) -> float:
    if isinstance(one, str) and isinstance(other, str):
        return signals.agreement(one, other)
    return float(one is not None and one == other)


def demanded(request: Any) -> Demand:
    """Return what a request's document demands of its answer, in any dialect of language models."""
    if not isinstance(request, dict):
        return NOTHING
    tools = tuple(_tools(request))
    told = request.get("response_format")  # chat completions
    if told is None and isinstance(shape := request.get("text"), dict):
        told = shape.get("format")  # responses
    if told is None and isinstance(shape := request.get("output_config"), dict):
        told = shape.get("format")  # messages
    if isinstance(told, dict):
        kind = told.get("type")
        inner = told.get("json_schema")
        schema = (inner if isinstance(inner, dict) else told).get("schema")
        if kind in ("json_schema", "json_object"):
            return Demand(True, schema if kind == "json_schema" else None, tools)
    config = request.get("generationConfig") or request.get("generation_config")  # Gemini
    if isinstance(config, dict):
        schema = config.get("responseJsonSchema") or config.get("response_json_schema")
        mime = config.get("responseMimeType") or config.get("response_mime_type")
        if schema is not None or mime == "application/json":
            return Demand(True, schema, tools)
    return Demand(tools=tools) if tools else NOTHING


def _tools(request: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the names and the schemas of the tools that a request declares."""
    listed = request.get("tools")
    found: list[tuple[str, Any]] = []
    for one in listed[:128] if isinstance(listed, list) else ():  # as many as providers allow
        function = one.get("function", one) if isinstance(one, dict) else None
        if isinstance(function, dict) and isinstance(name := function.get("name"), str):
            found.append((name, function.get("parameters") or function.get("input_schema")))
    return found


def satisfied(demand: Demand, value: Any) -> bool:
    """Return whether an answer satisfies a demand. What cannot be decided counts as satisfied."""
    try:
        if isinstance(value, str):
            return not demand.is_json or not _breach(demand.schema, value)
        calls = value if isinstance(value, list) else [value]
        return all(_call_fits(dict(demand.tools), one) for one in calls)
    except TooMuchWork:
        return True


def _breach(schema: Any, text: str) -> bool:
    if len(text) > TEXT_BYTES_MAX:
        return False
    try:
        value = orjson.loads(text)
    except ValueError:
        return True
    return schema is not None and bool(violation(schema, value))


def _call_fits(tools: dict[str, Any], call: Any) -> bool:
    """Return whether a call is of a declared tool, with arguments that its schema allows."""
    if not isinstance(call, dict):
        return not tools
    function = call.get("function", call)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or name not in tools:
        return not tools
    arguments = function.get("arguments", function.get("input", function.get("args")))
    if isinstance(arguments, str):
        return not _breach(tools[name], arguments)
    return tools[name] is None or not violation(tools[name], arguments)
