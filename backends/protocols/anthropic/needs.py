"""What a request to Anthropic's Messages API needs of a model, and its prompt.

feature       is needed by a request with
tools         `tools` that are not empty
vision        a block of type `image`
files         a block of type `document` or `container_upload`
json_schema   `output_config.format` or `output_format`
reasoning     `thinking` that is not disabled
streaming     `stream`
"""

from collections.abc import Iterator
from typing import Any

import orjson

from tollway.backends.needs import NOTHING, Needs
from tollway.backends.protocols.openai.needs import text_tokens
from tollway.backends.types import Prompt

_BLOCKS = {"image": "vision", "document": "files", "container_upload": "files"}
_WORDS = tuple([b'"%b"' % kind.encode() for kind in _BLOCKS])
_READ = ("content", "text", "thinking", "input", "name", "system", "source", "title")
"""Where messages hold text; `data` of images and documents is not estimated."""


def needs(document: Any, body: bytes, room: float) -> Needs:
    """Return the needs of a request; `room`: a request that certainly fits is not measured."""
    if not isinstance(document, dict):
        return NOTHING
    features = {*_fields(document)}
    if any(word in body for word in _WORDS):
        features.update(_blocks(document))
    limit = document.get("max_tokens")
    output = float(limit) if type(limit) is int and limit > 0 else 0.0
    tokens = 0.0
    if len(body) + output > room:
        tokens = text_tokens(document.get("tools"), None)
        tokens += text_tokens([document.get("system"), document.get("messages")], _READ)
    return Needs(frozenset(features), tokens, output)


def _fields(document: dict[str, Any]) -> Iterator[str]:
    if document.get("tools"):
        yield "tools"
    config = document.get("output_config")
    if document.get("output_format") or (isinstance(config, dict) and config.get("format")):
        yield "json_schema"
    thinking = document.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") != "disabled":
        yield "reasoning"
    if document.get("stream") is True:
        yield "streaming"


def _blocks(document: dict[str, Any]) -> Iterator[str]:
    """Yield the features that the blocks of messages and of tool results need."""
    rest: list[Any] = [document.get("messages")]
    while rest:
        one = rest.pop()
        if isinstance(one, list):
            rest += one
        elif isinstance(one, dict):
            kind = one.get("type")
            if isinstance(kind, str) and kind in _BLOCKS:
                yield _BLOCKS[kind]
            rest.append(one.get("content"))


def prompt(document: Any) -> Prompt:
    """Return the prompt, in the order in which a model reads it; empty if nothing is cached.

    A prompt is cached up to a block marked with `cache_control`: what comes after the last one is
    one part. A mark on the request itself is one on its last block.
    """
    if not isinstance(document, dict):
        return []
    parts: Prompt = []
    marked = 0
    for part in _ordered(document):
        raw = orjson.dumps(part)
        marks = b'"cache_control"' in raw
        parts.append((orjson.dumps(_unmarked(part)) if marks else raw, len(raw)))
        marked = len(parts) if marks else marked
    if document.get("cache_control"):
        marked = len(parts)
    if not marked:
        return []
    rest = parts[marked:]
    if rest:
        parts[marked:] = [(tuple([raw for raw, _ in rest]), sum([size for _, size in rest]))]
    return parts


def _ordered(document: dict[str, Any]) -> Iterator[Any]:
    """Yield the parts of a prompt: tools, system, and the blocks of messages."""
    for name in ("tools", "system"):
        held = document.get(name)
        if isinstance(held, list):
            yield from held
        elif held is not None:
            yield held
    messages = document.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            yield from ([message.get("role"), block] for block in content)
        else:
            yield message


def _unmarked(part: Any) -> Any:
    """Return a part without its mark: a later request marks another block, and reads the same."""
    if isinstance(part, list):
        return [_unmarked(one) for one in part]
    if isinstance(part, dict) and "cache_control" in part:
        return {name: value for name, value in part.items() if name != "cache_control"}
    return part
