"""The prompt of a request to OpenAI's API, in the order in which a model reads it.

Tools and instructions come first, then the messages. A server caches the work on a prefix; requests
with another `prompt_cache_key` use other caches.
"""

from typing import Any

import orjson

from tollway.backends.types import Prompt

BLOCK_CHARS = 1024  # of a text in one piece: servers cache blocks of about this size


def parts(document: Any) -> Prompt:
    """Return the parts of a request's prompt; empty if it has none."""
    if not isinstance(document, dict):
        return []
    said = document.get("messages") or document.get("prompt") or document.get("input")
    found: Prompt = []
    for name in ("prompt_cache_key", "tools", "instructions"):
        if (first := document.get(name)) is not None:
            found.append(_part(first))
    if isinstance(said, str):
        found += [
            (said[at : at + BLOCK_CHARS], min(BLOCK_CHARS, len(said) - at))
            for at in range(0, len(said), BLOCK_CHARS)
        ]
    elif isinstance(said, list):
        found += [_part(message) for message in said]
    return found


def _part(value: Any) -> tuple[object, int]:
    if isinstance(value, dict) and len(value) == 2:  # nearly all messages: role and content
        role, content = value.get("role"), value.get("content")
        if isinstance(role, str) and isinstance(content, str):
            return (role, content), len(content)
    raw = orjson.dumps(value)
    return raw, len(raw)
