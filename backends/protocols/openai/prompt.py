"""The prompt of a request to OpenAI's API, in the order in which a model reads it.

Tools and instructions come first, then the messages. A server caches the work on a prefix; requests
with another `prompt_cache_key` use other caches.
"""

from typing import Any

import orjson

from tollway.backends.types import Prompt

BLOCK_CHARS = 1024  # of a text in one piece: servers cache blocks of about this size
PARTS_MAX = 512  # of a prompt; later ones are one part, which nothing is compared to


def parts(document: Any) -> Prompt:
    """Return the parts of a request's prompt; empty if it has none."""
    if not isinstance(document, dict):
        return []
    prompt = document.get("messages") or document.get("prompt") or document.get("input")
    prompt_parts: Prompt = []
    for name in ("prompt_cache_key", "tools", "instructions"):
        if (first := document.get(name)) is not None:
            prompt_parts.append(_part(first))
    if isinstance(prompt, str):
        most = PARTS_MAX * BLOCK_CHARS
        prompt_parts += [
            (prompt[at : at + BLOCK_CHARS], min(BLOCK_CHARS, len(prompt) - at))
            for at in range(0, min(len(prompt), most), BLOCK_CHARS)
        ]
        if len(prompt) > most:
            prompt_parts.append((None, len(prompt) - most))
    elif isinstance(prompt, list):
        prompt_parts += map(_part, prompt[:PARTS_MAX])
        if len(prompt) > PARTS_MAX:
            prompt_parts.append((None, sum(map(_size, prompt[PARTS_MAX:]))))
    return prompt_parts


def _size(value: Any) -> int:
    """Return how many characters the part of a message has."""
    content = value.get("content") if type(value) is dict and len(value) == 2 else None
    return len(content) if type(content) is str else _part(value)[1]


def _part(value: Any) -> tuple[object, int]:
    if isinstance(value, dict) and len(value) == 2:  # nearly all messages: role and content
        role, content = value.get("role"), value.get("content")
        if isinstance(role, str) and isinstance(content, str):
            return (role, content), len(content)
    raw = orjson.dumps(value)
    return raw, len(raw)
