"""The upper bounds in a request to OpenAI's API on the tokens that are billed for it.

A hard budget reserves the maximum cost of a call, and clients write the requests. So everything
that makes a server read or write more than it seems is counted, and a request with anything unknown
is unbounded.
"""

from typing import Any

from tollway.backends.output import (
    FIELDS,
    MAX_COMPLETION_TOKENS,
    MAX_OUTPUT_TOKENS,
    MAX_TOKENS,
    Output,
)
from tollway.backends.types import Details

_LIMITS = FIELDS
_MANY = ("n", "best_of")
_NO_OUTPUT = (b"/embeddings", b"/rerank", b"/score", b"/moderations", b"/tokenize", b"/detokenize")
"""Ends of paths with replies that have no output tokens."""
_ELSEWHERE = ("previous_response_id", "conversation", "web_search_options", "chat_template")
_TEXTS = frozenset(("text", "input_text", "output_text", "refusal"))
_OURS = frozenset(("function", "custom"))
"""Tools that the client runs, so that their results come in a request of its own."""


def output_tokens(document: dict[str, Any]) -> float:
    """Return the maximum tokens that a request lets the model write; 0 if it sets no limit.

    Of several limits it is the largest: servers differ in which they obey. The limit is for each
    answer, and is multiplied by the answers requested (`best_of`: made and billed, not shown) of
    each prompt.
    """
    limits = [limit for name in _LIMITS if (limit := document.get(name)) is not None]
    many = [many for name in _MANY if (many := document.get(name)) is not None]
    if not limits or not all(_is_count(value) for value in (*limits, *many)):
        return 0.0
    if "modalities" in document and document["modalities"] != ["text"]:
        return 0.0  # sounds and images cost more per token than any price of text
    return float(max(limits)) * float(max(many, default=1)) * _prompts(document.get("prompt"))


def output(document: dict[str, Any], target: bytes) -> Output:
    """Return the limits of a request on its answers, their number, and where to insert a limit.

    2 us.
    """
    field = _field(document, target)
    present = [name for name in _heeded(document, field) if name in document]
    present = [name for name in present if document[name] is not None] or present
    limits = {name: document[name] if _is_count(document[name]) else 0 for name in present}
    many = [many for name in _MANY if (many := document.get(name)) is not None]
    answers = float(max(many, default=1)) if all(_is_count(value) for value in many) else 0.0
    return Output(
        limits=limits,
        answers=answers * _prompts(document.get("prompt")),
        field=field,
        modality=_modality(document),
        generates=not target.partition(b"?")[0].endswith(_NO_OUTPUT),
    )


def _field(document: dict[str, Any], target: bytes) -> str:
    """Return the field that limits the output on a path; empty if there is none."""
    if target.partition(b"?")[0].endswith(b"/responses"):
        return MAX_OUTPUT_TOKENS
    if "messages" in document or isinstance(document.get("prompt"), str | list):
        return MAX_TOKENS
    return ""


def _heeded(document: dict[str, Any], field: str) -> tuple[str, ...]:
    """Return the limits that a server reliably enforces, where `field` is its own."""
    if field == MAX_TOKENS and "messages" in document:
        return (MAX_COMPLETION_TOKENS, MAX_TOKENS)
    return (field,) if field else _LIMITS


def _modality(document: dict[str, Any]) -> str:
    """Return the unit of what a request wants generated beside text; empty for text alone."""
    wanted = document.get("modalities")
    if wanted is None or wanted == ["text"]:
        return ""
    audio = isinstance(wanted, list) and all(kind in ("text", "audio") for kind in wanted)
    return "audio_output_tokens" if audio else "image_output_tokens"


def further(document: dict[str, Any], target: bytes) -> Details | None:
    """Return a request's bounds on units other than tokens, and the service tier it requests."""
    if "voice" in document and (spoken := characters(document)) is not None:
        return spoken
    tier = document.get("service_tier")
    if isinstance(tier, str) and tier not in ("auto", "default"):
        return Details(service_tier=tier[:32].lower())
    if b"/images/" in target:
        return Details((("images", float(document["n"]) if _is_count(document.get("n")) else 1.0),))
    return None


def characters(document: Any) -> Details | None:
    """Return the characters of a request for speech; None if it is none."""
    text = document.get("input") if isinstance(document, dict) else None
    return Details((("characters", float(len(text))),)) if isinstance(text, str) and text else None


def is_whole(document: dict[str, Any]) -> bool:
    """Whether a request contains all that a model will read (0.1 us a message).

    It does not contain the number of tokens of an image or a sound, an earlier response, a stored
    prompt, or the results of a tool that the server runs.
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
    """Return the number of prompts of a completion: a list of texts, or of lists of tokens."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return float(len(prompt))
    return 1.0
