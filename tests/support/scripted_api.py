"""A server of OpenAI's API that answers each path with exact bytes, and keeps what it was sent."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson

JSON = b"application/json"
EVENTS = b"text/event-stream"
BROKEN = b"broken"  # the content type of a reply with status 500
MP3 = b"ID3\x04\x00\xff\xfb\x90" + bytes(range(256)) * 400
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
RESPONSE_USAGE = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}


def sse(*events: dict[str, Any] | str) -> bytes:
    """Return the bytes of a stream, with the names of typed events."""
    out = b""
    for event in events:
        if isinstance(event, str):
            out += b"data: %b\n\n" % event.encode()
            continue
        name = b"event: %b\n" % event["type"].encode() if "type" in event else b""
        out += name + b"data: %b\n\n" % orjson.dumps(event)
    return out


def response(status: str = "completed", name: str = "resp_1", **more: Any) -> dict[str, Any]:
    text = {"type": "output_text", "text": "hi", "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    done = status in ("completed", "incomplete")
    return {
        **{"id": name, "object": "response", "created_at": 1, "status": status, "model": "m"},
        "output": [{**message, "content": [text]}] if done else [],
        "usage": RESPONSE_USAGE if done else None,
        **{"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **more},
    }


def chat(**more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "hi"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**whole, "choices": [choice], "usage": USAGE, **more}


def _chunk(**more: Any) -> dict[str, Any]:
    whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**whole, **more}


CHAT_EVENTS = (
    _chunk(choices=[{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]),
    _chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
)
FILE = {
    **{"id": "file-1", "object": "file", "bytes": 3, "created_at": 1, "filename": "a.jsonl"},
    **{"purpose": "batch", "status": "processed"},
}
ITEM = {
    **{"type": "message", "id": "m1", "role": "user", "status": "completed"},
    "content": [{"type": "input_text", "text": "q"}],
}
PAGE = {"object": "list", "has_more": False, "first_id": "m1", "last_id": "m1"}
IMAGE = {"created": 1, "data": [{"b64_json": "AAAA"}]}
IMAGE_USAGE = {"input_tokens": 10, "output_tokens": 40, "total_tokens": 50}
BATCH = {
    **{"id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "created_at": 1},
    **{"status": "validating", "input_file_id": "file-1", "completion_window": "24h"},
}
CONVERSATION = {"id": "conv_1", "object": "conversation", "created_at": 1, "metadata": {}}
UPLOAD = {
    **{"id": "upload_1", "object": "upload", "bytes": 3, "created_at": 1, "expires_at": 2},
    **{"filename": "a.jsonl", "purpose": "batch", "status": "pending"},
}

Reply = tuple[bytes, bytes]
"""A content type and a body."""


def document(value: Any) -> Reply:
    return JSON, orjson.dumps(value)


STREAMS: dict[str, bytes] = {
    "chat/completions": sse(*CHAT_EVENTS, _chunk(choices=[], usage=USAGE), "[DONE]"),
    "responses": sse(
        {"type": "response.created", "response": response("in_progress"), "sequence_number": 0},
        {
            **{"type": "response.output_text.delta", "delta": "hi", "item_id": "msg_1"},
            **{"output_index": 0, "content_index": 0, "sequence_number": 1, "logprobs": []},
        },
        {"type": "response.completed", "response": response(), "sequence_number": 2},
    ),
    "audio/speech": sse(
        {"type": "speech.audio.delta", "audio": "AAAA"},
        {"type": "speech.audio.done", "usage": RESPONSE_USAGE},
    ),
    "audio/transcriptions": sse(
        {"type": "transcript.text.delta", "delta": "hello"},
        {
            **{"type": "transcript.text.done", "text": "hello"},
            "usage": {"type": "tokens", **RESPONSE_USAGE},
        },
    ),
    "images/generations": sse(
        {
            **{"type": "image_generation.partial_image", "b64_json": "AA", "created_at": 1},
            **{"partial_image_index": 0, "size": "auto", "quality": "auto"},
            **{"background": "auto", "output_format": "png"},
        },
        {
            **{"type": "image_generation.completed", "b64_json": "AAAA", "created_at": 1},
            **{"size": "auto", "quality": "auto", "background": "auto", "output_format": "png"},
            "usage": {
                **IMAGE_USAGE,
                "input_tokens_details": {"image_tokens": 0, "text_tokens": 10},
            },
        },
    ),
}
STREAMS["images/edits"] = STREAMS["images/generations"].replace(b"image_generation", b"image_edit")

REPLIES: dict[tuple[str, str], Reply] = {
    ("POST", "chat/completions"): document(chat()),
    ("POST", "completions"): document(
        {
            **{"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"},
            "choices": [{"index": 0, "text": "hi", "finish_reason": "stop", "logprobs": None}],
            "usage": USAGE,
        }
    ),
    ("POST", "embeddings"): document(
        {
            **{"object": "list", "model": "m"},
            "data": [{"object": "embedding", "index": 0, "embedding": "AACAPwAAAAA="}],
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        }
    ),
    ("POST", "audio/transcriptions"): document(
        {"text": "hello", "usage": {"type": "duration", "seconds": 3}}
    ),
    ("POST", "audio/translations"): document({"text": "hello", "duration": 3.0}),
    ("POST", "audio/speech"): (b"audio/mpeg", MP3),
    ("POST", "images/generations"): document({**IMAGE, "usage": IMAGE_USAGE}),
    ("POST", "images/edits"): document(IMAGE),
    ("POST", "images/variations"): document(IMAGE),
    ("POST", "moderations"): document(
        {
            **{"id": "modr-1", "model": "m"},
            "results": [{"flagged": False, "categories": {}, "category_scores": {}}],
        }
    ),
    ("POST", "rerank"): document(
        {"results": [{"index": 0, "relevance_score": 0.9}], "usage": {"total_tokens": 7}}
    ),
    ("POST", "files"): document(FILE),
    ("GET", "files"): document({**PAGE, "data": [FILE]}),
    ("GET", "files/file-1"): document(FILE),
    ("GET", "files/file-1/content"): (b"application/octet-stream", MP3),
    ("DELETE", "files/file-1"): document({"id": "file-1", "object": "file", "deleted": True}),
    ("POST", "uploads"): document(UPLOAD),
    ("POST", "uploads/upload_1/parts"): document(
        {"id": "part_1", "object": "upload.part", "created_at": 1, "upload_id": "upload_1"}
    ),
    ("POST", "uploads/upload_1/complete"): document({**UPLOAD, "status": "completed"}),
    ("POST", "uploads/upload_1/cancel"): document({**UPLOAD, "status": "cancelled"}),
    ("POST", "responses"): document(response()),
    ("POST", "responses/compact"): document(
        {
            **{"id": "cmp_1", "object": "response.compaction", "created_at": 1, "output": []},
            "usage": RESPONSE_USAGE,
        }
    ),
    ("POST", "responses/input_tokens"): document(
        {"object": "response.input_tokens", "input_tokens": 7}
    ),
    ("GET", "responses/resp_1"): document(response()),
    ("DELETE", "responses/resp_1"): document({"id": "resp_1", "deleted": True}),
    ("POST", "responses/resp_1/cancel"): document(response("cancelled")),
    ("GET", "responses/resp_1/input_items"): document({**PAGE, "data": [ITEM]}),
    ("POST", "conversations"): document(CONVERSATION),
    ("GET", "conversations/conv_1"): document(CONVERSATION),
    ("GET", "conversations/conv_1/items"): document({**PAGE, "data": [ITEM]}),
    ("GET", "chat/completions"): document({**PAGE, "data": [chat()]}),
    ("GET", "chat/completions/chatcmpl-1"): document(chat()),
    ("DELETE", "chat/completions/chatcmpl-1"): document(
        {"id": "chatcmpl-1", "object": "chat.completion.deleted", "deleted": True}
    ),
    ("POST", "batches"): document(BATCH),
    ("GET", "batches/batch_1"): document(BATCH),
}
"""What each endpoint replies, by method and path below `/v1`."""


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes


@dataclass
class ScriptedApi:
    """`replies` add to REPLIES, and replace them; `cut`: streams that break off, by path.

    `cut_media`: after how many bytes a file breaks off, by path. `files`: what the list of files
    has, in pages of two.
    """

    replies: dict[tuple[str, str], Reply] = field(default_factory=dict)
    cut: dict[str, bytes] = field(default_factory=dict)
    cut_media: dict[str, int] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    chunk_bytes: int = 4_096

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["path"].removeprefix("/v1").strip("/")
        self.asked.append(Asked(scope["method"], path, dict(scope["headers"]), body))
        kind, reply = self.reply(scope["method"], path, body)
        if path == "files" and self.files:
            kind, reply = self.page(dict(parse_qsl(scope["query_string"].decode())).get("after"))
        status = {b"": 404, BROKEN: 500}.get(kind, 200)
        headers = [(b"content-type", kind or JSON)]
        if kind != EVENTS:
            headers.append((b"content-length", b"%d" % len(reply)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        sent = reply[: self.cut_media.get(path)]
        for at in range(0, len(sent), self.chunk_bytes):
            chunk = sent[at : at + self.chunk_bytes]
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if path not in self.cut and path not in self.cut_media:
            await send({"type": "http.response.body", "body": b""})

    def page(self, after: str | None) -> Reply:
        names = [one["id"] for one in self.files]
        at = names.index(after) + 1 if after else 0
        more = len(names) > at + 2
        return document({"object": "list", "data": self.files[at : at + 2], "has_more": more})

    def reply(self, method: str, path: str, body: bytes) -> Reply:
        """Return the content type (empty: there is nothing) and the body."""
        if path in self.cut:
            return EVENTS, self.cut[path]
        streamed = b'"stream":true' in body.replace(b" ", b"") or b'"sse"' in body
        form = b'name="stream"\r\n\r\ntrue' in body
        if (streamed or form) and path in STREAMS:
            return EVENTS, STREAMS[path]
        missing = b"", orjson.dumps({"error": {"message": f"no {method} {path}", "type": "x"}})
        return {**REPLIES, **self.replies}.get((method, path), missing)
