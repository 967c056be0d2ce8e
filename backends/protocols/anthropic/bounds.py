"""The upper bounds in a request to Anthropic's Messages API on what is billed for it.

Theory of operation. A token is at least a byte, so the length of a request bounds its input if it
contains all that the model reads: not the size of images and documents in tokens, nor what tools
find that the provider runs. Output is bounded by `max_tokens`, thinking included. A tool that the
provider runs has the model sampled again after each use, with the whole prompt: with `max_uses`
tools may be used n times, so the prompt is read and an answer is written n + 1 times. A tool
without `max_uses`, and any field that is not known here, leaves a request without a bound.
"""

from collections.abc import Iterator
from typing import Any

from tollway.backends.output import MAX_TOKENS, Output
from tollway.backends.types import UNBOUND, Details, Usage

_KNOWN = frozenset(
    (
        *("model", "max_tokens", "messages", "system", "stop_sequences", "stream", "metadata"),
        *("temperature", "top_k", "top_p", "tools", "tool_choice", "thinking", "cache_control"),
        *("output_config", "output_format", "service_tier", "speed", "inference_geo"),
        *("diagnostics", "container"),
    )
)
"""The members that bring no further model, tool or sample into a request."""

_TEXT = frozenset(("text", "thinking", "redacted_thinking", "tool_use", "search_result"))
_TEXT_SOURCES = frozenset(("text", "content"))
_OURS = ("bash_", "text_editor_")
"""Tools that the client runs and the provider describes to the model."""

TOOL_TOKENS = 1_000
"""The documented cost of tools beyond their own text: up to 530 tokens once a request has any, and
up to 700 for each of the tools in `_OURS`.
"""

_LIMITED = ("web_search_", "web_fetch_")
"""Tools that the provider runs, as many times as `max_uses` says. A search is charged, a fetch is
not.
"""
CACHE_5M, CACHE_1H = "cache_write_5m_tokens", "cache_write_1h_tokens"


def usage(document: dict[str, Any], body: bytes) -> Usage:
    """Return the maximum usage of a request; 0 where the request sets no bound."""
    if unbounded(document):
        return UNBOUND
    times = _times(document)
    inputs = float(len(body) + _described(document)) if _is_whole(document) else 0.0
    units = []
    if times > 1:
        inputs = 0.0
        units.append(("searches", float(_uses(document, "web_search_"))))
    if inputs and (unit := written_as(body)):
        units.append((unit, inputs))
    tier = _tier(document)
    return Usage(
        input_tokens=inputs,
        output_tokens=float(_limit(document) * times),
        exact=False,
        more=Details(tuple(units), service_tier=tier) if units or tier else None,
    )


def output(document: dict[str, Any], body: bytes) -> Output:
    """Return the limit of a request on its answer."""
    thinking = document.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    budget, limit = budget if type(budget) is int else 0, _limit(document)
    return Output(
        limits={MAX_TOKENS: limit},
        answers=float(_times(document)),
        field=MAX_TOKENS,
        # A limit that thinking alone could use up is refused.
        least=budget + 1 if 0 < budget < limit else 0,
        samples=_times(document),
        written_as=written_as(body),
        unbounded=unbounded(document),
    )


def unbounded(document: dict[str, Any]) -> str:
    """Return what nothing bounds, and what to send instead; empty if all is bounded."""
    for name, value in document.items():
        if name not in _KNOWN and value is not None:
            return f"{name[:64]} may add calls that nothing bounds; send the request without it"
    for number, tool in enumerate(_tools(document)):
        kind = _type(tool)
        if kind.startswith(_LIMITED):
            if _limited_uses(tool) is None:
                return (
                    f"tools[{number}] ({kind[:64]}) runs at the provider as often as the model "
                    "likes; set its max_uses"
                )
        elif not _is_ours(kind):
            return f"nothing bounds tools[{number}] ({kind[:64]}), which runs at the provider"
    return ""


def written_as(body: bytes) -> str:
    """Return the unit as which all input of a request may be written to a cache; empty if none."""
    if b'"cache_control"' not in body:
        return ""
    return CACHE_1H if b'"1h"' in body else CACHE_5M


def _limit(document: dict[str, Any]) -> int:
    """Return the maximum tokens of an answer; 0 if the request's limit cannot be relied on."""
    limit = document.get(MAX_TOKENS)
    if type(limit) is not int or limit < 0:
        return 0
    return max(limit, 1)  # 0 only fills the prompt cache


def _times(document: dict[str, Any]) -> int:
    """Return how often the model may be sampled."""
    return 1 + _uses(document, _LIMITED)


def _uses(document: dict[str, Any], kinds: str | tuple[str, ...]) -> int:
    tools = [tool for tool in _tools(document) if _type(tool).startswith(kinds)]
    return sum([_limited_uses(tool) or 0 for tool in tools])


def _limited_uses(tool: dict[str, Any]) -> int | None:
    uses = tool.get("max_uses")
    return uses if type(uses) is int and uses > 0 else None


def _tools(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    tools = document.get("tools")
    if isinstance(tools, list):
        yield from (tool for tool in tools if isinstance(tool, dict))


def _is_ours(kind: str) -> bool:
    """Whether the client runs a tool, so that its result comes in a request of its own."""
    return (
        not kind
        or kind == "custom"
        or kind.startswith((*_OURS, "memory_", "computer_", "browser_toolset_"))
    )


def _described(document: dict[str, Any]) -> int:
    """Return the tokens with which the provider describes tools, beyond the text of the request."""
    return sum(TOOL_TOKENS * (2 if first == 0 else 1) for first, _ in enumerate(_tools(document)))


def _is_whole(document: dict[str, Any]) -> bool:
    """Whether a request contains all that a model will read."""
    for tool in _tools(document):
        kind = _type(tool)
        if kind and kind != "custom" and not kind.startswith(_OURS):
            return False
    if document.get("container") is not None:
        return False
    messages = document.get("messages")
    contents = [document.get("system")]
    if isinstance(messages, list):
        contents += [one.get("content") for one in messages if isinstance(one, dict)]
    return all(map(_is_text, contents))


def _is_text(content: Any) -> bool:
    """Whether a content is nothing but text."""
    if not isinstance(content, list):
        return True  # a text, or what the provider refuses
    for block in content:
        kind = _type(block)
        if kind in _TEXT:
            continue
        if kind == "tool_result":
            if not _is_text(block.get("content")):
                return False
        elif kind == "document":
            source = block.get("source")
            inner = source.get("content") if isinstance(source, dict) else None
            if _type(source) not in _TEXT_SOURCES or not _is_text(inner):
                return False
        else:
            return False
    return True


def _type(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else ""


def _tier(document: dict[str, Any]) -> str:
    """Return the service tier that a request asks for; empty for the standard one."""
    return "fast" if document.get("speed") == "fast" else ""
