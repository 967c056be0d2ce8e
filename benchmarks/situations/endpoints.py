"""Situations of endpoints beside chat, and of other dialects."""

import base64
import struct
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.situations.client import Client, Reply
from benchmarks.situations.situation import MODELS, Situation, ask, chat, same
from benchmarks.situations.upstream import (
    CHUNKED,
    END,
    Asked,
    Part,
    Upstream,
    chunk,
    event,
    reply,
    stream,
)

MP3 = b"ID3\x04\x00\xff\xfb\x90" + bytes(range(256))
MODEL = MODELS["openai"]
VECTOR = [0.25, -0.5]
PACKED = base64.b64encode(struct.pack("<2f", *VECTOR)).decode()
FORM = "multipart/form-data; boundary=bound"
BATCH = {
    **{"id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "created_at": 1},
    **{"status": "validating", "input_file_id": "file-1", "completion_window": "24h"},
}
FILE = {
    **{"id": "file-1", "object": "file", "bytes": 3, "created_at": 1, "filename": "a.jsonl"},
    **{"purpose": "batch", "status": "processed"},
}
LINE = b"""{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":"""
LINE += b"""{"model":"gpt-4o-mini","messages":[{"role":"user","content":"q"}]}}\n"""
USED = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def response(status: str = "completed", name: str = "resp_1") -> dict[str, Any]:
    text = {"type": "output_text", "text": "hi", "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    return {
        **{"id": name, "object": "response", "created_at": 1, "status": status, "model": MODEL},
        "output": [{**message, "content": [text]}],
        "usage": USED,
        **{"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None},
        **{"incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1.0},
        "top_p": 1.0,
    }


def form(**fields: tuple[str, bytes] | str) -> bytes:
    """Return a multipart form; a file is its name and bytes."""
    out = b""
    for name, value in fields.items():
        file = f'; filename="{value[0]}"' if isinstance(value, tuple) else ""
        data = value[1] if isinstance(value, tuple) else value.encode()
        out += f'--bound\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        out += data + b"\r\n"
    return out + b"--bound--\r\n"


def endpoint(
    name: str,
    path: str,
    body: object,
    answer: list[Part],
    seen: Callable[[Reply], object],
    **headers: str,
) -> Situation:
    """Return a situation of one call, whose reply `seen` must find true."""

    def check(client: Client, _: Upstream) -> None:
        got = client.ask(path, body, **headers)
        assert got.status == 200, f"{got.status} {got.body[:150]!r}"
        assert seen(got), f"{got.body[:150]!r}"

    return Situation(name, lambda _: answer, check)


def _embedded(asked: Asked) -> list[Part]:
    document = asked.document
    packed = document.get("encoding_format") == "base64"
    data = [{"object": "embedding", "index": 0, "embedding": PACKED if packed else VECTOR}]
    usage = {"prompt_tokens": 10, "total_tokens": 10}
    return reply({"object": "list", "model": MODEL, "data": data, "usage": usage})


def embedded(name: str, want: object, **more: Any) -> Situation:
    def check(client: Client, upstream: Upstream) -> None:
        got = client.ask("/v1/embeddings", {"model": MODELS["embeddings"], **more})
        assert got.status == 200, f"{got.status} {got.body[:150]!r}"
        same(got.document["data"][0]["embedding"], want)
        same(upstream.asked[-1].document["input"], more["input"])

    return Situation(name, _embedded, check)


def lifecycle(asked: Asked) -> list[Part]:
    """Answer OpenAI's responses from their creation to their deletion."""
    path = asked.target.partition("?")[0]
    if asked.method == "DELETE":
        return reply({"id": "resp_1", "object": "response", "deleted": True})
    if path.endswith("/cancel"):
        return reply(response("cancelled"))
    if path.endswith("/input_items"):
        item = {"type": "message", "id": "m1", "role": "user", "status": "completed"}
        item |= {"content": [{"type": "input_text", "text": "q"}]}  # type: ignore[dict-item]
        page = {"object": "list", "has_more": False, "first_id": "m1", "last_id": "m1"}
        return reply({**page, "data": [item]})
    return reply(response())


def stored(name: str, method: str, below: str, want: Callable[[Any], bool]) -> Situation:
    """Return a situation of a call about a response that was created before."""

    def check(client: Client, upstream: Upstream) -> None:
        made = client.ask("/v1/responses", {"model": MODEL, "input": "q"})
        assert made.status == 200, f"{made.status} {made.body[:150]!r}"
        path = f"/v1/responses/{made.document['id']}{below}"
        got = client.ask(path, None if method != "POST" else {}, method=method)
        assert got.status == 200, f"{got.status} {got.body[:150]!r}"
        assert want(got.document), f"{got.body[:150]!r}"
        seen = upstream.asked[-1]
        assert seen.method == method and "resp_1" in seen.target, "the upstream was not asked"

    return Situation(name, lifecycle, check)


CREATED = {"type": "response.created", "sequence_number": 0, "response": response("in_progress")}
COMPLETED = {"type": "response.completed", "sequence_number": 2, "response": response()}
WORD = {
    **{"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0},
    **{"content_index": 0, "delta": "hi", "sequence_number": 1, "logprobs": []},
}
RESPONSES = [CHUNKED, *(chunk(event(one, str(one["type"]))) for one in (CREATED, WORD, COMPLETED)),
             END]  # fmt: skip

MESSAGE_USED = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 7}
MESSAGE = {
    **{"id": "msg_1", "type": "message", "role": "assistant", "model": MODELS["anthropic"]},
    "content": [{"type": "text", "text": "hi"}],
    **{"stop_reason": "end_turn", "stop_sequence": None, "usage": MESSAGE_USED},
}
ASK_CLAUDE = {
    "model": MODELS["anthropic"],
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "q"}],
}
TEXT = {"type": "text", "text": ""}
CLAUDE_EVENTS = (
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": TEXT},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
     "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
)  # fmt: skip
CLAUDE_STREAM = [CHUNKED, *(chunk(event(one, str(one["type"]))) for one in CLAUDE_EVENTS), END]
THINKING = {"type": "thinking", "thinking": "hmm", "signature": "c2ln"}

GEMINI = f"/v1beta/models/{MODELS['gemini']}"
ASK_GEMINI = {"contents": [{"role": "user", "parts": [{"text": "q"}]}]}
CANDIDATE = {
    **{"index": 0, "finishReason": "STOP"},
    "content": {"role": "model", "parts": [{"text": "hi"}]},
}
GENERATED: Mapping[str, Any] = {
    "candidates": [CANDIDATE],
    "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
    "modelVersion": MODELS["gemini"],
}
VERSION = {"anthropic_version": "2023-06-01", "dialect": "anthropic"}


def claude_error(client: Client, _: Upstream) -> None:
    got = client.ask("/v1/messages", ASK_CLAUDE, **VERSION)
    same(got.status, 400)
    assert b"upstream says no" in got.body and got.document.get("type") == "error", f"{got.body!r}"


def beta(client: Client, upstream: Upstream) -> None:
    got = client.ask("/v1/messages", ASK_CLAUDE, anthropic_beta="some-beta-2025", **VERSION)
    same(got.status, 200)
    assert "some-beta-2025" in upstream.asked[-1].headers.get("anthropic-beta", ""), "lost"


def azure(client: Client, upstream: Upstream) -> None:
    path = f"/openai/deployments/{MODEL}/chat/completions?api-version=2024-10-21"
    got = client.ask(path, ask())
    assert got.status == 200 and b'"hi"' in got.body, f"{got.status} {got.body[:150]!r}"


ENDPOINTS = (
    endpoint("completions", "/v1/completions", {"model": MODELS["completions"], "prompt": "q"},
             reply({"id": "c", "object": "text_completion", "created": 1,
                    "model": MODELS["completions"],
                    "choices": [{"index": 0, "text": "hi", "finish_reason": "stop",
                                 "logprobs": None}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}),
             lambda got: got.document["choices"][0]["text"] == "hi"),
    embedded("embeddings", VECTOR, input="q"),
    embedded("embeddings in base64", PACKED, input="q", encoding_format="base64"),
    embedded("embeddings of lists of tokens", VECTOR, input=[[1, 2], [3]]),
    endpoint("transcriptions", "/v1/audio/transcriptions",
             form(file=("a.wav", b"RIFFxxxx"), model=MODEL),
             reply({"text": "hello", "usage": {"type": "duration", "seconds": 3}}),
             lambda got: got.document["text"] == "hello", content_type=FORM),
    endpoint("speech, as sound", "/v1/audio/speech",
             {"model": MODEL, "voice": "alloy", "input": "hi"}, reply(MP3, kind="audio/mpeg"),
             lambda got: got.body == MP3),
    endpoint("images", "/v1/images/generations", {"model": MODEL, "prompt": "a cat"},
             reply({"created": 1, "data": [{"b64_json": "AAAA"}],
                    "usage": {"input_tokens": 10, "output_tokens": 400, "total_tokens": 410}}),
             lambda got: got.document["data"][0]["b64_json"] == "AAAA"),
    endpoint("edits of images", "/v1/images/edits",
             form(image=("a.png", b"\x89PNG"), prompt="a cat", model=MODEL),
             reply({"created": 1, "data": [{"b64_json": "AAAA"}]}),
             lambda got: got.document["data"][0]["b64_json"] == "AAAA", content_type=FORM),
    endpoint("moderations", "/v1/moderations", {"model": MODEL, "input": "hi"},
             reply({"id": "m", "model": MODEL, "results": [
                 {"flagged": False, "categories": {}, "category_scores": {}}]}),
             lambda got: got.document["results"][0]["flagged"] is False),
    endpoint("rerank", "/v1/rerank", {"model": MODEL, "query": "q", "documents": ["a"]},
             reply({"id": "r", "results": [{"index": 0, "relevance_score": 0.9}],
                    "usage": {"total_tokens": 10}}),
             lambda got: got.document["results"][0]["relevance_score"] == 0.9),
    endpoint("files", "/v1/files", form(purpose="batch", file=("a.jsonl", LINE)), reply(FILE),
             lambda got: got.document["object"] == "file", content_type=FORM),
    endpoint("batches", "/v1/batches",
             {"input_file_id": "file-1", "endpoint": "/v1/chat/completions",
              "completion_window": "24h"}, reply(BATCH),
             lambda got: got.document["object"] == "batch"),
    Situation("the list of models",
              lambda _: reply({"object": "list", "data": [{"id": MODEL, "object": "model"}]}),
              lambda client, _: same(client.ask("/v1/models", method="GET").document["object"],
                                     "list")),
    endpoint("responses", "/v1/responses", {"model": MODEL, "input": "q"}, reply(response()),
             lambda got: got.document["output"][-1]["content"][0]["text"] == "hi"),
    endpoint("responses, as a stream", "/v1/responses",
             {"model": MODEL, "input": "q", "stream": True}, RESPONSES,
             lambda got: got.events[-1]["type"] == "response.completed"),
    stored("a stored response", "GET", "", lambda d: d["status"] == "completed"),
    stored("a stored response's input", "GET", "/input_items",
           lambda d: d["data"][0]["id"] == "m1"),
    stored("cancelling a response", "POST", "/cancel", lambda d: d["status"] == "cancelled"),
    stored("deleting a response", "DELETE", "", lambda d: d["deleted"] is True),
    Situation("paths of Azure", lambda _: reply(chat()), azure),
)  # fmt: skip

DIALECTS = (
    endpoint("Anthropic's messages", "/v1/messages", ASK_CLAUDE, reply(MESSAGE),
             lambda got: got.document["content"][0]["text"] == "hi"
             and got.document["usage"]["cache_read_input_tokens"] == 7, **VERSION),
    endpoint("Anthropic's messages, as a stream", "/v1/messages", {**ASK_CLAUDE, "stream": True},
             CLAUDE_STREAM, lambda got: got.events[-1]["type"] == "message_stop", **VERSION),
    endpoint("Anthropic's thinking keeps its signature", "/v1/messages", ASK_CLAUDE,
             reply({**MESSAGE, "content": [THINKING, *MESSAGE["content"]]}),
             lambda got: got.document["content"][0] == THINKING, **VERSION),
    endpoint("Anthropic's count of tokens", "/v1/messages/count_tokens",
             {key: value for key, value in ASK_CLAUDE.items() if key != "max_tokens"},
             reply({"input_tokens": 14}), lambda got: got.document["input_tokens"] == 14,
             **VERSION),
    Situation("Anthropic's errors",
              lambda _: reply({"type": "error", "error": {
                  "type": "invalid_request_error", "message": "upstream says no"}}, 400),
              claude_error),
    Situation("Anthropic's betas reach the upstream", lambda _: reply(MESSAGE), beta),
    endpoint("Gemini's generateContent", f"{GEMINI}:generateContent", ASK_GEMINI,
             reply(GENERATED),
             lambda got: got.document["candidates"][0]["content"]["parts"][0]["text"] == "hi",
             dialect="gemini"),
    endpoint("Gemini's stream of events", f"{GEMINI}:streamGenerateContent?alt=sse", ASK_GEMINI,
             stream(GENERATED, done=False),
             lambda got: got.events[-1]["candidates"][0]["content"]["parts"][0]["text"] == "hi",
             dialect="gemini"),
    endpoint("Gemini's countTokens", f"{GEMINI}:countTokens", ASK_GEMINI,
             reply({"totalTokens": 14}), lambda got: got.document["totalTokens"] == 14,
             dialect="gemini"),
)  # fmt: skip
