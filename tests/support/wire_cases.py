"""A valid request and reply of each wire protocol."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One protocol's sound request and reply, as documents."""

    target: bytes
    request: dict[str, Any]
    reply: dict[str, Any]
    answer: Any
    caches: bool = False
    """Whether a server may cache its prompt."""


CASES = {
    "anthropic": Case(
        b"/v1/messages",
        {
            "model": "claude",
            "max_tokens": 16,
            "system": [{"type": "text", "text": "Hi.", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": "hi"}],
        },
        {
            "type": "message",
            "content": [{"type": "text", "text": "hello"}],
            "stop_reason": "end_turn",
        },
        "hello",
        caches=True,
    ),
    "oip": Case(
        b"/v2/models/digits/infer",
        {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2]}]},
        {"outputs": [{"name": "label", "shape": [1], "datatype": "INT64", "data": [7]}]},
        7,
    ),
    "gemini": Case(
        b"/v1beta/models/gemini:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
        {"candidates": [{"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}]},
        "hello",
        caches=True,
    ),
    "mlflow": Case(b"/invocations", {"instances": [[1, 2]]}, {"predictions": ["spam"]}, "spam"),
    "openai": Case(
        b"/v1/chat/completions",
        {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]},
        {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]},
        "hello",
        caches=True,
    ),
    "http": Case(b"/classify?a=b", {"text": "héllo"}, {"label": "greeting"}, "greeting"),
    "tfserving": Case(
        b"/v1/models/m:predict", {"instances": [[1, 2]]}, {"predictions": ["spam"]}, "spam"
    ),
    "plain": Case(b"/classify?a=b", {"text": "héllo"}, {"label": "greeting"}, "greeting"),
}
