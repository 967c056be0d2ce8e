"""An OpenAI-compatible server that echoes its input: chat, tools, JSON, embeddings, streams.

A token is a word. It caches prompts as real servers do: of a prompt whose first messages it has
answered before, those are reported as cached.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson

Document = dict[str, Any]


@dataclass
class Parrot:
    """`hold`: until it is set no reply is sent, or only the first word of a stream."""

    hold: asyncio.Event | None = None
    calls: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[Document] = field(default_factory=list)
    cache: set[bytes] = field(default_factory=set)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.calls += 1
        document = orjson.loads(body)
        self.asked.append(document)
        if document["model"] == "nobody":
            error = {"message": "no such model", "type": "invalid_request_error"}
            await reply(send, 404, {"error": {**error, "param": "model", "code": None}})
        elif document.get("stream"):
            await self.stream(scope["path"], document, receive, send)
        else:
            if self.hold is not None:
                await self.hold.wait()
            await reply(send, 200, self.answer(scope["path"], document))

    def answer(self, path: str, document: Document) -> Document:
        if path.endswith("/embeddings"):
            texts = document["input"]
            texts = [texts] if isinstance(texts, str) else texts
            return embeddings(texts, document.get("encoding_format"))
        if path.endswith("/responses"):
            return response(document, self.usage(document))
        told, usage = said(document), self.usage(document)
        if path.endswith("/chat/completions"):
            choices = [
                {"index": n, "message": message_of(told), "finish_reason": finish(told)}
                for n in range(document.get("n") or 1)
            ]
            return {**head(document, "chat.completion"), "choices": choices, "usage": usage}
        choices = [{"index": 0, "text": told["content"], "finish_reason": "stop"}]
        return {**head(document, "text_completion"), "choices": choices, "usage": usage}

    async def stream(self, path: str, document: Document, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        leaving = asyncio.ensure_future(receive())
        try:
            async for event in self.events(path, document, leaving):
                await send({"type": "http.response.body", "body": event, "more_body": True})
                self.begun.set()
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()

    async def events(
        self, path: str, document: Document, leaving: "asyncio.Future[Any]"
    ) -> AsyncIterator[bytes]:
        usage = self.usage(document)
        parts = response_parts if path.endswith("/responses") else chat_parts
        for number, part in enumerate(parts(document, usage)):
            if number == 2 and self.hold is not None:
                going = asyncio.ensure_future(self.hold.wait())
                await asyncio.wait({going, leaving}, return_when=asyncio.FIRST_COMPLETED)
                going.cancel()
            if leaving.done():
                self.left.set()
                return
            name = b"event: %b\n" % part["type"].encode() if "type" in part else b""
            yield name + b"data: %b\n\n" % orjson.dumps(part)
        if parts is chat_parts:
            yield b"data: [DONE]\n\n"

    def usage(self, document: Document) -> Document:
        """Count words; the longest beginning of the messages that was seen before is cached."""
        messages = document.get("messages") or [document.get("input") or document.get("prompt")]
        given = cached = 0
        for number, message in enumerate(messages):
            given += words(message)
            beginning = orjson.dumps(messages[: number + 1])
            if beginning in self.cache:
                cached = given
            self.cache.add(beginning)
        made = len(str(said(document)["content"]).split()) or 1
        return {
            "prompt_tokens": given,
            "completion_tokens": made,
            "total_tokens": given + made,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def words(message: Any) -> int:
    text = message.get("content") if isinstance(message, dict) else message
    return len(str(text).split())


def heard(document: Document) -> str:
    """Return the last message."""
    if document.get("messages"):
        return str(document["messages"][-1].get("content"))
    given = document.get("input") or document.get("prompt")
    return str(given[-1]["content"] if isinstance(given, list) else given)


def said(document: Document) -> Document:
    """Return the reply: text, JSON if it was requested, or the call of a tool."""
    text = heard(document)
    tools = document.get("tools")
    last = (document.get("messages") or [{}])[-1]
    if tools and last.get("role") != "tool":
        named = tools[0].get("function", tools[0])["name"]
        return {"content": None, "tool": named, "arguments": orjson.dumps({"text": text}).decode()}
    asked = document.get("response_format") or {}
    if asked.get("type") == "json_object":
        text = orjson.dumps({"said": text}).decode()
    elif asked.get("type") == "json_schema":
        properties = asked["json_schema"]["schema"]["properties"]
        text = orjson.dumps(dict.fromkeys(properties, text)).decode()
    return {"content": text}


def finish(told: Document) -> str:
    return "tool_calls" if "tool" in told else "stop"


def call_of(told: Document) -> Document:
    function = {"name": told["tool"], "arguments": told["arguments"]}
    return {"id": "call_1", "type": "function", "function": function}


def message_of(told: Document) -> Document:
    message = {"role": "assistant", "content": told["content"]}
    return {**message, "tool_calls": [call_of(told)]} if "tool" in told else message


def head(document: Document, kind: str) -> Document:
    return {"id": "parrot-1", "object": kind, "created": 1, "model": document["model"]}


def embeddings(texts: list[str], coding: str | None) -> Document:
    # The client asks for base64 of float32, little-endian: here [1.0, 0.0] for each text.
    vector: Any = "AACAPwAAAAA=" if coding == "base64" else [1.0, 0.0]
    data = [{"object": "embedding", "index": n, "embedding": vector} for n in range(len(texts))]
    given = sum(map(words, texts))
    usage = {"prompt_tokens": given, "total_tokens": given}
    return {"object": "list", "data": data, "model": "parrot", "usage": usage}


def response(document: Document, usage: Document) -> Document:
    text = {"type": "output_text", "text": said(document)["content"], "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    return {
        **{"id": "resp_1", "object": "response", "created_at": 1, "model": document["model"]},
        **{"status": "completed", "error": None, "incomplete_details": None},
        **{"instructions": None, "metadata": {}, "parallel_tool_calls": True, "temperature": 1.0},
        **{"tool_choice": "auto", "tools": [], "top_p": 1.0},
        "output": [{**item, "content": [text]}],
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


def chat_parts(document: Document, usage: Document) -> list[Document]:
    """Return the chunks of a streamed chat."""
    told, first = said(document), head(document, "chat.completion.chunk")
    deltas: list[Document] = [{"role": "assistant", "content": ""}]
    if "tool" in told:
        call = {"index": 0, **call_of(told)}
        deltas.append({"tool_calls": [{**call, "function": {**call["function"], "arguments": ""}}]})
        for piece in (told["arguments"][:5], told["arguments"][5:]):
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    else:
        text = told["content"].split(" ")
        deltas += [{"content": word + " " * (n + 1 < len(text))} for n, word in enumerate(text)]
    parts = [
        {**first, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    parts.append({**first, "choices": [{"index": 0, "delta": {}, "finish_reason": finish(told)}]})
    if (document.get("stream_options") or {}).get("include_usage"):
        parts.append({**first, "choices": [], "usage": usage})
    return parts


def response_parts(document: Document, usage: Document) -> list[Document]:
    """Return the events of a streamed response."""
    whole = response(document, usage)
    item = whole["output"][0]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    empty = {**item["content"][0], "text": ""}
    opened = {**item, "status": "in_progress", "content": []}
    parts: list[Document] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": opened},
        {"type": "response.content_part.added", **at, "part": empty},
    ]
    text = item["content"][0]["text"]
    for word in text.split(" "):
        parts.append({"type": "response.output_text.delta", **at, "delta": word, "logprobs": []})
    parts.append({"type": "response.output_text.done", **at, "text": text, "logprobs": []})
    parts.append({"type": "response.content_part.done", **at, "part": item["content"][0]})
    parts.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    parts.append({"type": "response.completed", "response": whole})
    return [{**part, "sequence_number": n} for n, part in enumerate(parts)]


async def reply(send: Any, status: int, document: Document) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(document)})
