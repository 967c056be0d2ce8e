"""What a request to OpenAI's API bounds of the tokens that are billed for it.

A hard budget holds what a call can cost at most, and clients write the requests: so whatever makes
a server read or write more than it seems counts, and what is not understood bounds nothing.
"""

from typing import Any

from backends.types import Details

_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_MANY = ("n", "best_of")
_ELSEWHERE = ("previous_response_id", "conversation", "web_search_options", "chat_template")
_TEXTS = frozenset(("text", "input_text", "output_text", "refusal"))
_OURS = frozenset(("function", "custom"))
"""Tools that the client runs, so that what they find comes in a request of its own."""


def output_tokens(document: dict[str, Any]) -> float:
    """Return the most tokens that a request lets the model write; 0 where it sets no limit.

    Of several limits the largest: servers differ in which of them they heed. It is for each answer,
    and there are as many as are asked for (`best_of`: made and billed, not shown) of each prompt.
    """
    limits = [limit for name in _LIMITS if (limit := document.get(name)) is not None]
    many = [many for name in _MANY if (many := document.get(name)) is not None]
    if not limits or not all(_is_count(value) for value in (*limits, *many)):
        return 0.0
    if "modalities" in document and document["modalities"] != ["text"]:
        return 0.0  # sounds and images cost more a token than any price of text says
    return float(max(limits)) * float(max(many, default=1)) * _prompts(document.get("prompt"))


def further(document: dict[str, Any], target: bytes) -> Details | None:
    """Return what a request bounds of other units than tokens, and the service tier it asks for."""
    if "voice" in document and (spoken := characters(document)) is not None:
        return spoken
    tier = document.get("service_tier")
    if isinstance(tier, str) and tier not in ("auto", "default"):
        return Details(service_tier=tier[:32].lower())
    if b"/images/" in target:
        return Details((("images", float(document["n"]) if _is_count(document.get("n")) else 1.0),))
    return None


def characters(document: Any) -> Details | None:
    """Return the characters of a request for speech; None where it is none."""
    text = document.get("input") if isinstance(document, dict) else None
    return Details((("characters", float(len(text))),)) if isinstance(text, str) and text else None


def is_whole(document: dict[str, Any]) -> bool:
    """Whether all that a model will read stands in a request (0.1 us a message).

    Not what an image or a sound comes to in tokens, nor an earlier response, a stored prompt, or
    what a tool finds that the server runs.
    """
    for name in _ELSEWHERE:
        if document.get(name) is not None:
            return False
    if isinstance(document.get("prompt"), dict):
        return False
    tools = document.get("tools")
    if tools and not (isinstance(tools, list) and all(_type(tool) in _OURS for tool in tools)):
        return False
    for name in ("messages", "input"):
        said = document.get(name)
        if isinstance(said, list):
            for message in said:
                if isinstance(message, dict) and not _is_text(message):
                    return False
    return True


def _is_text(message: dict[str, Any]) -> bool:
    """Whether a message, or an item of a response's input, holds nothing but text."""
    if "type" in message and "content" not in message:
        # An item of a response's input: a call of a function, or its output; else a reference.
        plain = not isinstance(message.get("output"), list)
        return plain and message["type"] in ("function_call", "function_call_output")
    content = message.get("content")
    if isinstance(content, list):
        return all(_type(part) in _TEXTS for part in content)
    return message.get("audio") is None


def _type(value: Any) -> object:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _prompts(prompt: Any) -> float:
    """Return how many prompts a completion is asked for: a list of texts, or of lists of tokens."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return float(len(prompt))
    return 1.0
