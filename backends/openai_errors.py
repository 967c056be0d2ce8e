"""Errors that a stream reports in an event, and the statuses they correspond to.

A server that has sent its head cannot send another status, so the error comes as an event:

    {"error": {"message", "type", "code"}}, or a text    OpenAI, Azure, vLLM, OpenRouter, TGI
    {"type": "error", "error": {...}}                    Anthropic
    {"type": "error", "code", "message", "param"}        OpenAI's responses
    {"object": "error", "message", "type", "code"}       vLLM before 0.10, SGLang
    [{"error": {"code", "message", "status"}}]           Gemini

If no member is a status, it follows from the names of types and codes; without a known name it is
500.
"""

from typing import Any

from tollway.backends.documents import shown

UNKNOWN = 500
TEXT_CHARS_MAX = 1_000
"""Limit of an error where it is logged and journalled."""

_NAMES = {
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "BadRequestError": 400,
    "INVALID_ARGUMENT": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "UNAUTHENTICATED": 401,
    "billing_error": 402,
    "permission_error": 403,
    "PERMISSION_DENIED": 403,
    "not_found_error": 404,
    "NotFoundError": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "timeout_error": 504,
    "DEADLINE_EXCEEDED": 504,
    "overloaded_error": 529,
}
_STATUS_MEMBERS = ("code", "status", "status_code", "http_status")
_NAME_MEMBERS = ("code", "type", "status")


def error_in(event: Any) -> Any:
    """Return the error that an event reports; None if it reports none (0.1 us)."""
    if isinstance(event, list):
        return error_in(event[0]) if event and isinstance(event[0], dict) else None
    if not isinstance(event, dict):
        return None
    if error := event.get("error"):
        return error
    if event.get("type") == "error" or event.get("object") == "error":
        return {name: event[name] for name in ("message", "type", "param", "code") if name in event}
    return None


def status_of(error: Any) -> int:
    """Return the status that corresponds to an error."""
    if not isinstance(error, dict):
        return UNKNOWN
    for member in _STATUS_MEMBERS:
        status = error.get(member)
        if isinstance(status, str) and len(status) == 3 and status.isdecimal():
            status = int(status)
        if type(status) is int and 400 <= status <= 599:
            return status
    for member in _NAME_MEMBERS:
        name = error.get(member)
        if isinstance(name, str) and name in _NAMES:
            return _NAMES[name]
    return UNKNOWN


def text_of(error: object) -> str:
    """Return an error as a text, shortened."""
    text = error if isinstance(error, str) else shown(error, TEXT_CHARS_MAX)
    return text[:TEXT_CHARS_MAX]


def body_of(error: Any) -> dict[str, Any]:
    """Return the document of a reply with this error."""
    if isinstance(error, dict):
        return {"error": error}
    message = error if isinstance(error, str) else f"the stream reports an error: {text_of(error)}"
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}
