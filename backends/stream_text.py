"""Measures the text in a streamed event: the UTF-8 bytes of text, reasoning and calls.

Bytes and not characters, because a token is three to five bytes in most scripts. Chunks of chat
completions and completions, events of responses and messages, and parts of Gemini's are read.
Base64 (sound, images) is not text.
"""

from typing import Any

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
            total += _size(delta)
    elif isinstance(delta, dict):  # messages
        total += _said(delta)
    choices = chunk.get("choices")
    if choices:
        for choice in _list(choices):
            said = choice.get("delta")
            total += _said(said if isinstance(said, dict) else choice)
    if "candidates" in chunk:
        for candidate in _list(chunk["candidates"]):
            content = candidate.get("content")
            if isinstance(content, dict):
                total += sum([_said(part) for part in _list(content.get("parts"))])
    return total


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _said(part: dict[str, Any]) -> int:
    total = 0
    for name, value in part.items():
        if not value or name not in _TEXTS:
            continue
        if isinstance(value, str):
            total += _size(value)
        elif name == "tool_calls":
            total += sum([_called(call.get("function")) for call in _list(value)])
        elif name == "function_call":
            total += _called(value)
        elif name == "content":
            total += sum([_said(inner) for inner in _list(value)])
    return total


def _called(function: Any) -> int:
    if not isinstance(function, dict):
        return 0
    texts = (function.get("name"), function.get("arguments"))
    return sum([_size(text) for text in texts if isinstance(text, str)])


def _list(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
