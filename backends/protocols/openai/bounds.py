"""The upper bounds in a request to OpenAI's API on the tokens that are billed for it.

A hard budget reserves the maximum cost of a call, and clients write the requests. So everything
that makes a server read or write more than it seems is counted, and a request with anything unknown
is unbounded.
"""

from functools import lru_cache
from typing import Any

from tollway.backends.output import (
    FIELDS,
    MAX_COMPLETION_TOKENS,
    MAX_TOKENS,
    Output,
)
from tollway.backends.protocols.openai.endpoints import ApiEndpoint
from tollway.backends.types import Details

_LIMITS = FIELDS
_LIMITED = frozenset(_LIMITS)
_MANY = ("n", "best_of")
_ANSWERS = frozenset((*_MANY, "prompt"))
_OF_OUTPUT = frozenset((*_LIMITS, *_ANSWERS, "modalities"))
_ELSEWHERE = frozenset(
    (
        *("previous_response_id", "conversation", "web_search_options", "chat_template"),
        *("image", "images", "mask", "video"),
    )
)
_DIGITS_MAX = 10
_TEXTS = frozenset(("text", "input_text", "output_text", "refusal"))
_OURS = frozenset(("function", "custom"))
"""Tools that the client runs, so that their results come in a request of its own."""


def output_tokens(document: dict[str, Any]) -> float:
    """Return the maximum tokens that a request lets the model write; 0 if it sets no limit.

    Of several limits it is the largest: servers differ in which they obey. The limit is for each
    answer, and is multiplied by the answers requested (`best_of`: made and billed, not shown) of
    each prompt.
    """
    if _LIMITED.isdisjoint(document):  # most requests
        return 0.0
    limits = [limit for name in _LIMITS if (limit := document.get(name)) is not None]
    many = [many for name in _MANY if (many := document.get(name)) is not None]
    if not limits or not all(_is_count(value) for value in (*limits, *many)):
        return 0.0
    if "modalities" in document and document["modalities"] != ["text"]:
        return 0.0  # sounds and images cost more per token than any price of text
    return float(max(limits)) * float(max(many, default=1)) * _prompts(document.get("prompt"))


def output(document: dict[str, Any], endpoint: ApiEndpoint) -> Output:
    """Return the limits of a request on its answers, their number, and where to insert a limit.

    1 us, 0.5 us for most requests, which say nothing of it.
    """
    field, limits = _field(document, endpoint), {}
    if _OF_OUTPUT.isdisjoint(document):
        return _plain(field, endpoint.generates)
    if not _LIMITED.isdisjoint(document):
        present = [name for name in _heeded(document, field) if name in document]
        present = [name for name in present if document[name] is not None] or present
        limits = {name: document[name] if _is_count(document[name]) else 0 for name in present}
    answers = 1.0
    if not _ANSWERS.isdisjoint(document):
        many = [many for name in _MANY if (many := document.get(name)) is not None]
        answers = float(max(many, default=1)) if all(_is_count(value) for value in many) else 0.0
        answers *= _prompts(document.get("prompt"))
    return Output(
        limits=limits,
        answers=answers,
        field=field,
        modality=_modality(document),
        generates=endpoint.generates,
    )


@lru_cache(64)
def _plain(field: str, generates: bool) -> Output:
    """Return what a request without limits asks for: one answer of text."""
    return Output(limits={}, answers=1.0, field=field, generates=generates)


def _field(document: dict[str, Any], endpoint: ApiEndpoint) -> str:
    """Return the field that limits the output at an endpoint; empty if there is none."""
    if endpoint.is_known:
        return endpoint.limit_field
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
    if "modalities" not in document or document["modalities"] in (None, ["text"]):
        return ""
    wanted = document["modalities"]
    audio = isinstance(wanted, list) and all(kind in ("text", "audio") for kind in wanted)
    return "audio_output_tokens" if audio else "image_output_tokens"


def further(document: dict[str, Any], endpoint: ApiEndpoint) -> Details | None:
    """Return a request's bounds on units other than tokens, and the service tier it requests."""
    spoken = endpoint.unit == "characters" or (not endpoint.is_known and "voice" in document)
    if spoken and (spoken_chars := characters(document)) is not None:
        return spoken_chars
    if endpoint.unit == "images":
        return _images(document.get("n"))
    if "service_tier" in document:
        tier = document["service_tier"]
        if isinstance(tier, str) and tier not in ("auto", "default"):
            return Details(service_tier=tier[:32].lower())
    return None


def _images(many: Any) -> Details | None:
    """Return the images that a request asks for, one if it does not say; None if that is unclear.

    In a form, numbers are texts.
    """
    if isinstance(many, str) and many.isascii() and many.isdigit() and len(many) < _DIGITS_MAX:
        many = int(many)
    if many is not None and not _is_count(many):
        return None
    return Details((("images", float(many or 1)),))


def characters(document: Any) -> Details | None:
    """Return the characters of a request for speech; None if it is none."""
    text = document.get("input") if isinstance(document, dict) else None
    return Details((("characters", float(len(text))),)) if isinstance(text, str) and text else None


def is_whole(document: dict[str, Any]) -> bool:
    """Whether a request contains all that a model will read (0.1 us a message).

    It does not contain the number of tokens of an image or a sound, an earlier response, a stored
    prompt, or the results of a tool that the server runs.
    """
    if not _ELSEWHERE.isdisjoint(document):
        for name in _ELSEWHERE:
            if document.get(name) is not None:
                return False
    if "prompt" in document and isinstance(document["prompt"], dict):
        return False
    tools = document.get("tools")
    if tools and not (isinstance(tools, list) and all(_type(tool) in _OURS for tool in tools)):
        return False
    for name in ("messages", "input"):
        if name in document and isinstance(document[name], list):
            for message in document[name]:
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
