"""Measures the text in a streamed event: the UTF-8 bytes of text, reasoning and calls.

Bytes and not characters, because a token is three to five bytes in most scripts. Chunks of chat
completions and completions, events of responses and messages, and parts of Gemini's are read.
Base64 (sound, images) is not text.
"""

from typing import Any

PARTS_MAX = 1 << 10
"""How many choices, parts or calls of one event are read: 1 ms. Providers allow 128 choices."""

_TEXTS = frozenset(
    {
        "content",
        "text",
        "reasoning_content",
        "reasoning",
        "refusal",
        "thinking",  # Anthropic
        "partial_json",
        "tool_calls",
        "function_call",
    }
)


def spoken_bytes(chunk: dict[str, Any]) -> int:
    """Return how many bytes of text an event carries (1 us)."""
    total, delta = 0, chunk.get("delta")
    if isinstance(delta, str):  # responses
        if ".audio.delta" not in str(chunk.get("type")):
            total += size_bytes(delta)
    elif isinstance(delta, dict):  # messages
        total += _text_bytes(delta)
    choices = chunk.get("choices")
    if choices:
        for choice in _list(choices):
            delta = choice.get("delta")
            total += _text_bytes(delta if isinstance(delta, dict) else choice)
    if "candidates" in chunk:
        for candidate in _list(chunk["candidates"]):
            content = candidate.get("content")
            if isinstance(content, dict):
                total += sum([_text_bytes(part) for part in _list(content.get("parts"))])
    return total


def size_bytes(text: str) -> int:
    """Return the length of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _text_bytes(part: dict[str, Any]) -> int:
    total = 0
    for name in part if len(part) <= len(_TEXTS) else _TEXTS:
        value = part.get(name) if name in _TEXTS else None
        if not value:
            continue
        if isinstance(value, str):
            total += size_bytes(value)
        elif name == "tool_calls":
            total += sum([_called(call.get("function")) for call in _list(value)])
        elif name == "function_call":
            total += _called(value)
        elif name == "content":
            total += sum([_text_bytes(inner) for inner in _list(value)])
    return total


def _called(function: Any) -> int:
    if not isinstance(function, dict):
        return 0
    texts = (function.get("name"), function.get("arguments"))
    return sum([size_bytes(text) for text in texts if isinstance(text, str)])


def _list(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [one for one in value[:PARTS_MAX] if isinstance(one, dict)]
