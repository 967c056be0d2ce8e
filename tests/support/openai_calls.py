"""Calls of the official `openai` client to every endpoint, and what they return."""

from collections.abc import Callable
from typing import Any

import openai

IN, OUT, IMAGE, CHAR, SECOND = 1_000, 10_000, 40_000_000, 15_000, 100_000  # nano-dollars each
"""The prices per token, image, character and second of audio that the costs of calls are for."""

HELLO: Any = [{"role": "user", "content": "hello"}]
WAV = ("a.wav", b"RIFF" + bytes(range(256)) * 40 + b"\r\n--not-a-boundary\r\n")
PNG = ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
Call = Callable[[Any], Any]

BILLED: dict[str, tuple[Call, int | None]] = {
    "chat": (lambda c: c.chat.completions.create(model="m", messages=HELLO), 7 * IN + 3 * OUT),
    "chat, stream": (
        lambda c: c.chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
        ),
        7 * IN + 3 * OUT,
    ),
    "completions": (lambda c: c.completions.create(model="m", prompt="a"), 7 * IN + 3 * OUT),
    "responses": (lambda c: c.responses.create(model="m", input="a"), 7 * IN + 3 * OUT),
    "responses, stream": (
        lambda c: c.responses.create(model="m", input="a", stream=True),
        7 * IN + 3 * OUT,
    ),
    "responses of a stored prompt": (
        lambda c: c.responses.create(prompt={"id": "pmpt_1"}),
        7 * IN + 3 * OUT,
    ),
    "compact": (lambda c: c.responses.compact(model="m", input="a"), 7 * IN + 3 * OUT),
    "embeddings": (lambda c: c.embeddings.create(model="m", input="a"), 7 * IN),
    "embeddings of tokens": (lambda c: c.embeddings.create(model="m", input=[[1, 2], [3]]), 7 * IN),
    "transcription": (lambda c: c.audio.transcriptions.create(model="m", file=WAV), 3 * SECOND),
    "transcription, stream": (
        lambda c: c.audio.transcriptions.create(model="m", file=WAV, stream=True),
        7 * IN + 3 * OUT,
    ),
    "translation": (lambda c: c.audio.translations.create(model="m", file=WAV), 3 * SECOND),
    "speech": (lambda c: c.audio.speech.create(model="m", voice="alloy", input="hello"), 5 * CHAR),
    "speech, stream": (
        lambda c: c.audio.speech.create(
            model="m", voice="alloy", input="hello", stream_format="sse"
        ),
        7 * IN + 3 * OUT,
    ),
    "image": (lambda c: c.images.generate(model="m", prompt="a cat"), 10 * IN + 40 * OUT),
    "image, stream": (
        lambda c: c.images.generate(model="m", prompt="a cat", stream=True, partial_images=1),
        10 * IN + 40 * OUT,
    ),
    "edit": (lambda c: c.images.edit(model="m", prompt="a cat", image=[PNG, PNG]), IMAGE),
    "edit, stream": (
        lambda c: c.images.edit(model="m", prompt="a cat", image=PNG, stream=True),
        10 * IN + 40 * OUT,
    ),
    "variation": (lambda c: c.images.create_variation(image=PNG), IMAGE),
    "moderation": (lambda c: c.moderations.create(input="a"), None),
    "rerank": (
        lambda c: c.post(
            "/rerank", body={"model": "m", "query": "q", "documents": ["a"]}, cast_to=object
        ),
        7 * IN,
    ),
}
"""Calls, and their costs in nano-dollars; None: neither request nor reply tells, an estimate."""

FREE: dict[str, Call] = {
    "retrieve": lambda c: c.responses.retrieve("resp_1"),
    "cancel": lambda c: c.responses.cancel("resp_1"),
    "delete": lambda c: c.responses.delete("resp_1"),
    "input items": lambda c: c.responses.input_items.list("resp_1"),
    "input tokens": lambda c: c.responses.input_tokens.count(model="m", input="a"),
    "upload a file": lambda c: c.files.create(file=("a.jsonl", b"{}\n"), purpose="batch"),
    "files": lambda c: c.files.list(),
    "file": lambda c: c.files.retrieve("file-1"),
    "file content": lambda c: c.files.content("file-1"),
    "delete a file": lambda c: c.files.delete("file-1"),
    "upload": lambda c: c.uploads.create(
        bytes=3, filename="a.jsonl", mime_type="text/jsonl", purpose="batch"
    ),
    "part": lambda c: c.uploads.parts.create("upload_1", data=b"{}\n"),
    "complete": lambda c: c.uploads.complete("upload_1", part_ids=["part_1"]),
    "conversation": lambda c: c.conversations.create(),
    "items of a conversation": lambda c: c.conversations.items.list("conv_1"),
    "stored chats": lambda c: c.chat.completions.list(),
    "stored chat": lambda c: c.chat.completions.retrieve("chatcmpl-1"),
    "delete a stored chat": lambda c: c.chat.completions.delete("chatcmpl-1"),
}


def plain(result: Any) -> Any:
    """Return what a call returned, as values that compare."""
    if hasattr(result, "content") and isinstance(result.content, bytes):
        return result.content
    return result.model_dump() if hasattr(result, "model_dump") else result


async def outcome(client: openai.AsyncOpenAI, call: Call) -> Any:
    result = await call(client)
    if hasattr(result, "__aiter__") and not hasattr(result, "model_dump"):
        return [plain(one) async for one in result]
    return plain(result)


def outcome_now(client: openai.OpenAI, call: Call) -> Any:
    result = call(client)
    if isinstance(result, openai.Stream):
        return [plain(one) for one in result]
    return plain(result)
