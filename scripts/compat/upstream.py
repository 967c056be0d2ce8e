"""Answers the SDKs' questions in OpenAI's, Anthropic's and Google's formats, with exact bytes."""

import json
from collections.abc import Iterator
from typing import Any

from benchmarks.situations.upstream import CHUNKED, END, Asked, Part, Upstream, chunk, event, reply

TEXT, SUNNY, CAT, NO = (
    "h\u00e9llo \u5317\u4eac",
    "It is sunny in Rome.",
    "a cat",
    "upstream says no",
)
ROME = json.dumps({"city": "Rome", "degrees": 21})
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Erk"
    "Jggg=="
)
WEATHER = "get_weather"
SLOW_EVENTS, PAUSE_S = 200, 0.05
COUNT: dict[str, Any] = {"total_tokens": 15}
CHAT_USED = {"prompt_tokens": 10, "completion_tokens": 5, **COUNT}
USED = {"input_tokens": 10, "output_tokens": 5, **COUNT}
RESULTS = (b'"role":"tool"', b'"function_call_output"', b'"tool_result"', b'"functionResponse"')
"""What marks a tool's result, in each format."""


def intent(asked: Asked) -> tuple[str, str]:
    """Return what to answer: `text` and the text, `call` and its arguments, `slow` or `fail`."""
    body = asked.body.replace(b'": ', b'":')
    tool = named(asked.document)
    said = "text", TEXT
    if b"say no" in body:
        said = "fail", NO
    elif b"count slowly" in body:
        said = "slow", ""
    elif any(mark in body for mark in RESULTS):
        said = "text", SUNNY
    elif b"look at this" in body:
        sent = body.replace(b"-", b"+").replace(b"_", b"/")  # the alphabet differs by SDK
        said = "text", CAT if PNG.rstrip("=").encode() in sent else "no image came"
    elif b"where are 21 degrees?" in body:
        said = "call" if tool else "text", ROME
    elif b"the weather?" in body and tool == WEATHER:
        said = "call", '{"city": "Rome"}'
    return said


def named(document: Any) -> str:
    """Return the name of a request's first tool; empty if it has none."""
    for tool in document.get("tools") or []:
        if "functionDeclarations" in tool:
            return str(tool["functionDeclarations"][0]["name"])
        return str(tool.get("function", tool)["name"])
    return ""


def answer(asked: Asked, upstream: Upstream) -> list[Part]:
    """Answer a request, by its path."""
    path = asked.target.partition("?")[0]
    if path == "/counts":
        own = sum(one.target == "/counts" for one in upstream.asked)
        return reply({"asked": len(upstream.asked) - own, "cut": upstream.cut})
    if asked.method == "GET":  # the gateway asks for the list of models
        return reply({"object": "list", "data": []})
    kind, said = intent(asked)
    streams = "stream" in path if ":" in path else bool(asked.document.get("stream"))
    if path.endswith("/chat/completions"):
        return _chat(asked, kind, said, streams)
    if path.endswith("/responses"):
        return _response(asked, kind, said, streams)
    if path.endswith("/messages"):
        return _message(asked, kind, said, streams)
    return _generated(asked, kind, said, streams)


def _stream(events: Iterator[bytes], slow: bool) -> list[Part]:
    out: list[Part] = [CHUNKED]
    for one in events:
        out += [chunk(one), PAUSE_S if slow else 0.0]
    return [*out, END]


def _halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


def _words(kind: str, text: str) -> list[str]:
    return [f"{n} " for n in range(SLOW_EVENTS)] if kind == "slow" else _halves(text)


def _chat(asked: Asked, kind: str, said: str, streams: bool) -> list[Part]:
    if kind == "fail":
        return reply({"error": {"message": NO, "type": "invalid_request_error", "param": None,
                                "code": "nope"}}, 400)  # fmt: skip
    function = {"name": named(asked.document), "arguments": said}
    call = {"id": "call_1", "type": "function", "function": function}
    finish = "tool_calls" if kind == "call" else "stop"
    base = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o-mini"}
    if not streams:
        message = {"role": "assistant", "content": said, "refusal": None}
        if kind == "call":
            message |= {"content": None, "tool_calls": [call]}  # type: ignore[dict-item]
        choice = {"index": 0, "finish_reason": finish, "message": message, "logprobs": None}
        return reply({**base, "object": "chat.completion", "choices": [choice], "usage": CHAT_USED})

    def one(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event({**base, "object": "chat.completion.chunk", "choices": [choice]})

    def events() -> Iterator[bytes]:
        yield one({"role": "assistant", "content": ""})
        if kind == "call":
            yield one({"tool_calls": [{"index": 0, **call}]})
        else:
            yield from (one({"content": word}) for word in _words(kind, said))
        yield one({}, finish)
        if (asked.document.get("stream_options") or {}).get("include_usage"):
            yield event({**base, "object": "chat.completion.chunk", "choices": [],
                         "usage": CHAT_USED})  # fmt: skip
        yield event(b"[DONE]")

    return _stream(events(), kind == "slow")


def _response(asked: Asked, kind: str, said: str, streams: bool) -> list[Part]:
    if kind == "fail":
        return reply({"error": {"message": NO, "type": "invalid_request_error", "param": None,
                                "code": "nope"}}, 400)  # fmt: skip
    if kind == "call":
        item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "status": "completed",
                "name": named(asked.document), "arguments": said}  # fmt: skip
    else:
        content = [{"type": "output_text", "text": said, "annotations": [], "logprobs": []}]
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                "content": content}  # type: ignore[dict-item] # fmt: skip
    whole = {
        **{"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-4o-mini"},
        **{"status": "completed", "output": [item], "parallel_tool_calls": True, "tools": []},
        **{"tool_choice": "auto", "error": None, "incomplete_details": None, "metadata": {}},
        "usage": {**USED, "input_tokens_details": {"cached_tokens": 0},
                  "output_tokens_details": {"reasoning_tokens": 0}},
    }  # fmt: skip
    if not streams:
        return reply(whole)

    def events() -> Iterator[bytes]:
        begun = {**whole, "status": "in_progress", "output": []}
        seen: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
        at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": "", "annotations": []}
        seen.append({"type": "response.output_item.added", "output_index": 0,
                     "item": {**item, "status": "in_progress", "content": []}})  # fmt: skip
        seen.append({"type": "response.content_part.added", **at, "part": part})
        for word in _words(kind, said):
            seen.append({"type": "response.output_text.delta", **at, "delta": word, "logprobs": []})
        seen.append({"type": "response.output_item.done", "output_index": 0, "item": item})
        seen.append({"type": "response.completed", "response": whole})
        for n, one in enumerate(seen):
            yield event({**one, "sequence_number": n}, one["type"])

    return _stream(events(), kind == "slow")


def _message(asked: Asked, kind: str, said: str, streams: bool) -> list[Part]:
    if kind == "fail":
        error = {"type": "invalid_request_error", "message": NO}
        return reply({"type": "error", "error": error}, 400)
    text: dict[str, Any] = {"type": "text", "text": said}
    if kind == "call":
        text = {"type": "tool_use", "id": "toolu_1", "name": named(asked.document),
                "input": json.loads(said)}  # fmt: skip
    stop = "tool_use" if kind == "call" else "end_turn"
    whole = {
        **{"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"},
        **{"content": [text], "stop_reason": stop, "stop_sequence": None},
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    if not streams:
        return reply(whole)
    head = {**whole, "content": [], "stop_reason": None}
    ends = {"stop_reason": stop, "stop_sequence": None}
    empty = {"type": "text", "text": ""}
    seen: list[dict[str, Any]] = [
        {"type": "message_start", "message": head},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        *({"type": "content_block_delta", "index": 0,
           "delta": {"type": "text_delta", "text": word}} for word in _words(kind, said)),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ends, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]  # fmt: skip
    return _stream((event(one, one["type"]) for one in seen), kind == "slow")


def _generated(asked: Asked, kind: str, said: str, streams: bool) -> list[Part]:
    if kind == "fail":
        return reply({"error": {"code": 400, "message": NO, "status": "INVALID_ARGUMENT"}}, 400)

    def one(part: dict[str, Any], last: bool) -> dict[str, Any]:
        content = {"role": "model", "parts": [part]}
        ends = {"finishReason": "STOP"} if last else {}
        count = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
        return {"candidates": [{"index": 0, "content": content, **ends}],
                "usageMetadata": count, "modelVersion": "gemini-2.5-flash"}  # fmt: skip

    if not streams:
        call = {"name": named(asked.document), "args": json.loads(said)} if kind == "call" else None
        return reply(one({"functionCall": call} if call else {"text": said}, True))
    words = _words(kind, said)
    seen = (event(one({"text": word}, n == len(words) - 1)) for n, word in enumerate(words))
    return _stream(seen, kind == "slow")
