"""A situation: what the upstream answers, and what its client must see."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.situations.client import Client
from benchmarks.situations.upstream import Answer, Upstream

MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "embeddings": "text-embedding-3-small",
    "completions": "gpt-3.5-turbo-instruct",
}
"""The model that requests name, by dialect or endpoint; all are in a gateway's configuration."""

REST_S = 6.0
"""The wait after a 429: gateways leave an upstream alone for 5 s at most without a longer wish."""

CHAT = "/v1/chat/completions"
USED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@dataclass(frozen=True, slots=True)
class Situation:
    """Something that a real client or server does.

    `check` raises what is wrong: an AssertionError, or what a client hits.
    """

    name: str
    answer: Answer
    check: Callable[[Client, Upstream], object]


def ask(content: object = "hello", **more: Any) -> dict[str, Any]:
    """Return a chat request."""
    return {
        "model": MODELS["openai"],
        "messages": [{"role": "user", "content": content}],
        **more,
    }


def chat(content: str | None = "hi", finish: str = "stop", **more: Any) -> dict[str, Any]:
    """Return a chat completion; `message` adds to its message."""
    message = {"role": "assistant", "content": content, **more.pop("message", {})}
    return {
        **{"id": "chatcmpl-1", "object": "chat.completion", "created": 1},
        "model": MODELS["openai"],
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": USED,
        **more,
    }


def delta(change: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a chunk of a chat stream."""
    return {
        **{"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1},
        "model": MODELS["openai"],
        "choices": [{"index": 0, "delta": change, "finish_reason": finish}],
        **more,
    }


def usage_chunk(**more: Any) -> dict[str, Any]:
    return {**delta({}), "choices": [], "usage": USED, **more}


def same(seen: object, want: object) -> None:
    """Raise if a value is another one."""
    assert seen == want, f"{str(seen)[:120]!r}, not {str(want)[:80]!r}"


def text_of(events: list[Any]) -> str:
    """Return the text of a chat stream."""
    return "".join(
        choice.get("delta", {}).get("content") or ""
        for one in events
        for choice in one.get("choices", [])
    )
