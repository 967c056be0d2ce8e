"""What a request to the Gemini API asks for: its bounds, what it needs of a model, its prompt.

Names of members are in camel case or in snake case, as in all of Google's APIs; a request that has
a member in both is not bounded.

    feature       is needed by a request with
    tools         `tools` that are not empty
    vision        inline or stored data of type `image/...` or `video/...`
    audio         such data of type `audio/...`; `AUDIO` among the `responseModalities`
    files         such data of another type; a stored cache
    json_schema   `responseSchema` or `responseJsonSchema`
    json_object   `responseMimeType` of `application/json` without a schema
    reasoning     `thinkingConfig` with a level, or a budget above 0
    logprobs      `responseLogprobs`
    n             `candidateCount` above 1
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from tollway.backends.needs import NOTHING, Needs
from tollway.backends.output import Output
from tollway.backends.protocols.openai.needs import text_tokens
from tollway.backends.types import UNBOUND, Details, Prompt, Usage

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
_KNOWN = frozenset(
    (
        *("contents", "systemInstruction", "tools", "toolConfig", "generationConfig"),
        *("safetySettings", "cachedContent", "serviceTier", "labels", "model", "store"),
        *("content", "requests", "taskType", "title", "outputDimensionality"),
        *("embedContentConfig", "generateContentRequest"),
    )
)
_TEXT_PARTS = frozenset(
    (
        *("text", "thought", "thoughtSignature", "partMetadata"),
        *("functionCall", "functionResponse", "executableCode", "codeExecutionResult"),
    )
)
_OURS = "functionDeclarations"
_KINDS = {"image": "vision", "video": "vision", "audio": "audio"}
_MODALITIES = {"AUDIO": "audio_output_tokens", "IMAGE": "image_output_tokens"}
_READ = (
    *("contents", "content", "parts", "text", "functionCall", "functionResponse", "response"),
    *("args", "name", "requests", "output", "result"),
)

Document = dict[str, Any]


def member(document: Any, name: str) -> Any:
    """Return a member, in camel case or in snake case."""
    if not isinstance(document, dict):
        return None
    value = document.get(name)
    return document.get(snake(name)) if value is None else value


def snake(name: str) -> str:
    """Return a name in snake case."""
    return _CAPITAL.sub("_", name).lower()


def bound(document: Document, body: bytes, *, generates: bool) -> Usage:
    """Return the maximum usage of a request; 0 where the request sets no bound."""
    if unbounded(document):
        return UNBOUND
    config = member(document, "generationConfig")
    answers = _answers(config)
    tier = member(document, "serviceTier")
    tier = tier[:32].lower() if isinstance(tier, str) else ""
    named = tier not in ("", "standard", "unspecified")
    return Usage(
        input_tokens=float(len(body)) if _is_whole(document) else 0.0,
        output_tokens=_limit(config) * answers if generates and not _modality(config) else 0.0,
        exact=False,
        more=Details(service_tier=tier) if named else None,
    )


def output(document: Document, *, generates: bool) -> Output:
    """Return the limit of a request on its answers, and where one can be inserted."""
    config = member(document, "generationConfig")
    holder = "generationConfig"
    if holder not in document and snake(holder) in document:
        holder = snake(holder)
    limit = _limit(config)
    name = "maxOutputTokens"
    if isinstance(config, dict) and name not in config and snake(name) in config:
        name = snake(name)
    budget = _count(member(member(config, "thinkingConfig"), "thinkingBudget"))
    asked = isinstance(config, dict) and config.get(name) is not None
    return Output(
        limits={f"{holder}.{name}": limit} if asked else {},
        answers=float(_answers(config)),
        field=f"{holder}.{name}",
        modality=_modality(config),
        generates=generates,
        # Thinking counts as output: a limit that it uses up leaves no answer.
        least=budget + 1 if not limit or budget < limit else 0,
        unbounded=unbounded(document),
    )


def unbounded(document: Document) -> str:
    """Return what nothing bounds, and what to send instead; empty if all is bounded."""
    for name, value in document.items():
        if value is None:
            continue
        camel = _camel(name)
        if camel not in _KNOWN:
            return f"{name[:64]} may add costs that nothing bounds; send the request without it"
        if camel != name and camel in document:
            return f"{camel} is given twice, as {name} too; send one of them"
    config = member(document, "generationConfig")
    if isinstance(config, dict):
        for name in config:
            if _camel(name) != name and _camel(name) in config:
                return f"{_camel(name)} is given twice, as {name} too; send one of them"
    for number, tool in enumerate(_tools(document)):
        for name in tool:
            if _camel(name) != _OURS:
                return f"nothing bounds tools[{number}].{name[:64]}, which runs at the provider"
    return ""


def needs(document: Any, body: bytes, room: float, *, streams: bool) -> Needs:
    """Return the needs of a request; `room`: a request that certainly fits is not measured."""
    if not isinstance(document, dict):
        return NOTHING
    features = {*_features(document)}
    if streams:
        features.add("streaming")
    if b"ata" in body and (b'"mime' in body):
        features.update(_kinds(document))
    limit = float(_limit(member(document, "generationConfig")))
    tokens = 0.0
    if len(body) + limit > room:
        texts = [member(document, name) for name in ("systemInstruction", "contents", "content")]
        tokens = text_tokens([*texts, document.get("requests")], _READ)
        tokens += text_tokens(document.get("tools"), None)
    return Needs(frozenset(features), tokens, limit)


def prompt(document: Any) -> Prompt:
    """Return the prompt, in the order in which a model reads it."""
    if not isinstance(document, dict):
        return []
    parts: list[Any] = [
        part
        for name in ("cachedContent", "systemInstruction", "tools")
        if (part := member(document, name)) is not None
    ]
    contents = document.get("contents")
    parts += contents if isinstance(contents, list) else [contents] if contents else []
    written = [orjson.dumps(part) for part in parts]
    return [(raw, len(raw)) for raw in written] if contents else []


def _features(document: Document) -> Iterator[str]:
    if document.get("tools"):
        yield "tools"
    config = member(document, "generationConfig")
    if member(config, "responseSchema") or member(config, "responseJsonSchema"):
        yield "json_schema"
    elif member(config, "responseMimeType") == "application/json":
        yield "json_object"
    thinking = member(config, "thinkingConfig")
    budget = member(thinking, "thinkingBudget")
    if member(thinking, "thinkingLevel") or (budget is not None and budget != 0):
        yield "reasoning"
    if member(config, "responseLogprobs") is True:
        yield "logprobs"
    if _answers(config) != 1:
        yield "n"
    if _modality(config) == _MODALITIES["AUDIO"]:
        yield "audio"


def _kinds(document: Document) -> Iterator[str]:
    """Yield the features that the data in contents needs."""
    if member(document, "cachedContent"):
        yield "files"
    for part in _parts(document):
        for name in ("inlineData", "fileData"):
            data = member(part, name)
            if data is not None:
                kind = str(member(data, "mimeType")).partition("/")[0]
                yield _KINDS.get(kind, "files")


def _parts(document: Document) -> Iterator[Any]:
    """Yield the parts of all contents, and of the system instruction."""
    requests = document.get("requests")
    for inner in requests if isinstance(requests, list) else ():
        if isinstance(inner, dict):
            yield from _parts(inner)
    contents = document.get("contents")
    listed = contents if isinstance(contents, list) else [contents]
    for content in (*listed, document.get("content"), member(document, "systemInstruction")):
        parts = content.get("parts") if isinstance(content, dict) else None
        yield from parts if isinstance(parts, list) else [parts] if parts else []


def _is_whole(document: Document) -> bool:
    """Whether a request contains all that a model will read."""
    if member(document, "cachedContent") is not None:
        return False
    for part in _parts(document):
        if isinstance(part, str):
            continue
        if not isinstance(part, dict) or not all(_camel(name) in _TEXT_PARTS for name in part):
            return False
        response = member(part, "functionResponse")
        if isinstance(response, dict) and response.get("parts"):
            return False  # data beside the text
    return True


def _tools(document: Document) -> Iterator[Document]:
    tools = document.get("tools")
    for tool in tools if isinstance(tools, list) else [tools]:
        if isinstance(tool, dict):
            yield tool


def _modality(config: Any) -> str:
    """Return the unit of what is generated beside text; empty for text alone."""
    wanted = member(config, "responseModalities")
    if isinstance(wanted, list):
        for kind in ("IMAGE", "AUDIO"):
            if any(str(one).upper() == kind for one in wanted):
                return _MODALITIES[kind]
        if not all(str(one).upper() == "TEXT" for one in wanted):
            return _MODALITIES["IMAGE"]
    return _MODALITIES["AUDIO"] if member(config, "speechConfig") is not None else ""


def _answers(config: Any) -> int:
    """Return how many answers are generated; 0 if that is unclear."""
    many = member(config, "candidateCount")
    return 1 if many is None else _count(many)


def _limit(config: Any) -> int:
    """Return the maximum tokens of an answer; 0 if the request sets none that can be relied on."""
    return _count(member(config, "maxOutputTokens"))


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join([word[:1].upper() + word[1:] for word in rest])
