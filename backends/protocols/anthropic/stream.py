"""A streamed message: its text, its usage, and how it stopped.

The first event reports the input, and the last but one all of the usage; its counts are cumulative.
Between them come the blocks of the answer. Events of type `ping` may stand anywhere.
"""

from typing import Any

import orjson

from tollway.backends import openai_errors
from tollway.backends.protocols.openai.stream import Completion, read_whole
from tollway.backends.types import HttpReply

_BLOCKS = ("content_block_start", "content_block_delta")


class MessageEvents(Completion):
    """Follows the events of a message."""

    # The mutable state is, beside that of any stream, whether an event other than a ping has come.
    def __init__(self) -> None:
        super().__init__()
        self._has_begun = False

    def refusal(self) -> tuple[int, bytes]:
        """Return the status and body of a unary reply with the error that the stream reports."""
        document = {"type": "error", **openai_errors.body_of(self.error)}
        return openai_errors.status_of(self.error), orjson.dumps(document, default=repr)

    def _note(self, chunk: dict[str, Any], data: bytes) -> bool:
        """Read an event; return False: none is withheld from the client."""
        kind = chunk.get("type")
        if kind == "ping":
            self.begun = self._has_begun
            return False
        self._has_begun = True
        holder = chunk.get("message") if kind == "message_start" else chunk
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(usage, dict):
            self._note_usage(chunk, usage)
        if kind in _BLOCKS:
            self._note_block(chunk)
        elif kind == "message_delta":
            delta = chunk.get("delta")
            reason = delta.get("stop_reason") if isinstance(delta, dict) else None
            self.finish_reason = str(reason) if reason else self.finish_reason
        elif kind == "message_stop":
            self.done = True
        return False

    def _note_block(self, chunk: dict[str, Any]) -> None:
        delta = chunk.get("delta")
        if not isinstance(delta, dict):
            delta = chunk.get("content_block")
        if not isinstance(delta, dict):
            return
        kind = delta.get("type")
        if kind in ("text", "text_delta"):
            text = delta.get("text")
            if isinstance(text, str) and text:
                self._keep(text)
                self._deltas += 1
        elif kind in ("tool_use", "input_json_delta"):
            self.acted = True
            self._deltas += 1
        elif kind in ("thinking", "thinking_delta"):
            self._deltas += 1


def follow(reply: HttpReply, body: bytes) -> MessageEvents:
    """Follow a whole streamed body."""
    return read_whole(reply, body, MessageEvents())
