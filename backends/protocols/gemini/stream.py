"""A streamed answer of the Gemini API: events, or the elements of an array.

Each part is a whole reply with the next piece of the answer, and reports the usage so far.
"""

from contextlib import suppress
from typing import Any

from tollway.backends.documents import EVENT_STREAM
from tollway.backends.protocols.gemini import usage
from tollway.backends.protocols.json_array import Elements
from tollway.backends.protocols.openai.stream import Completion, read_whole
from tollway.backends.stream_text import PARTS_MAX
from tollway.backends.types import HttpReply, Usage

JSON = b"application/json"


class Parts(Completion):
    """Follows the parts of an answer; `is_sse`: they are events."""

    # The mutable state is, beside that of any stream, how many searches were reported.
    def __init__(self, *, is_sse: bool) -> None:
        super().__init__()
        self._templates_left = 0
        self._searches = 0
        self.media_type = EVENT_STREAM if is_sse else JSON
        if not is_sse:
            self._events = Elements()

    @property
    def usage(self) -> Usage:
        """The usage of the answer: as reported, or at least the tokens seen."""
        return usage.with_searches(super().usage, self._searches)

    def _note(self, chunk: dict[str, Any], data: bytes) -> bool:
        """Read a part; return False: none is withheld from the client."""
        with suppress(ValueError):  # counts that are not numbers are ignored
            self._reported_usage = usage.read(chunk) or self._reported_usage
        self._searches = max(self._searches, usage.searches(chunk))
        candidates = chunk.get("candidates")
        for candidate in candidates[:PARTS_MAX] if isinstance(candidates, list) else ():
            if isinstance(candidate, dict):
                self._note_candidate(candidate)
        if "promptFeedback" in chunk and not candidates:
            self._is_final = True  # a blocked prompt has no answer
        return False

    def _note_candidate(self, candidate: dict[str, Any]) -> None:
        for part in parts_of(candidate):
            self._deltas += 1
            self.acted = self.acted or "functionCall" in part or "inlineData" in part
            if candidate.get("index", 0) == 0 and not part.get("thought"):
                self._keep(str(part.get("text") or ""))
        if candidate.get("index", 0) == 0 and candidate.get("finishReason"):
            self.finish_reason = str(candidate["finishReason"])


def parts_of(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a candidate's content."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list):
        return []
    return [part for part in parts[:PARTS_MAX] if isinstance(part, dict)]


def follow(reply: HttpReply, body: bytes, *, is_sse: bool) -> Parts:
    """Follow a whole streamed body."""
    return read_whole(reply, body, Parts(is_sse=is_sse))
