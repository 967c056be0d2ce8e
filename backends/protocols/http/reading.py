"""Reads the answer of a reply of any kind, and its confidence.

The answer is at `answer`, a path into the document or `$headers.NAME`; without it, at `label`,
`answer`, `prediction` or `result`, else the whole document. A text is its own document. Confidence
is read from the first of: a list or an object of `probabilities`, a number at `confidence`.
"""

from collections.abc import Callable
from typing import Any

from tollway.backends.documents import has_gap, media_type, reply_document, shown
from tollway.backends.errors import InvalidAnswer
from tollway.backends.json_path import compile_path
from tollway.backends.protocols import confidence as confidences
from tollway.backends.protocols.http import places
from tollway.backends.sliced_json import Unread
from tollway.backends.types import HttpReply, ModelAnswer

TEXT_BYTES_MAX = 4 << 10  # of a text that is an answer: a label, a line of numbers, a sentence
_ANSWERS = ("label", "answer", "prediction", "result")
_TEXTS = (b"csv", b"xml", b"yaml")

Find = Callable[[HttpReply, Any], Any]
"""Finds a value in (reply, document)."""


class ReplyReader:
    """Reads answers; all paths are optional. Raises ValueError for an invalid path."""

    def __init__(
        self, answer: str | None, confidence: str | None, probabilities: str | None
    ) -> None:
        self._where = answer
        self._answer = find(answer) if answer is not None else _usual_answer
        self._confidence = find(confidence or "confidence")
        self._probabilities = find(probabilities or "probabilities")

    def __call__(self, reply: HttpReply, document: Any) -> ModelAnswer:
        """Return the answer in a document (None: it has none that is read), or in header fields."""
        value = self._answer(reply, document)
        if value is None or value in ("", [], {}):
            raise InvalidAnswer(f"nothing at {self._where}" if self._where else "an empty reply")
        features = self._features(reply, document)
        if isinstance(value, Unread):  # too large to be read
            return ModelAnswer(None, features)
        if has_gap(value):
            raise InvalidAnswer(f"the answer holds null, NaN or infinity: {shown(value)}")
        return ModelAnswer(value, features)

    def _features(self, reply: HttpReply, document: Any) -> confidences.Features:
        probabilities = self._probabilities(reply, document)
        if isinstance(probabilities, dict):
            probabilities = list(probabilities.values())
        if (
            isinstance(probabilities, list)
            and probabilities
            and set(map(type, probabilities)) <= {int, float}
        ):
            return confidences.features(probabilities)
        return confidences.alone(self._confidence(reply, document))


def find(path: str) -> Find:
    """Return the function that finds what is at a path."""
    get = compile_path(path)
    if not path.startswith("$"):
        return lambda reply, document: get(document)
    places.check_reply(path)

    def get_field(reply: HttpReply, document: Any) -> Any:
        value = get({places.HEADERS: places.of_headers(reply.headers)})
        return places.scalar(value) if isinstance(value, str) else value

    return get_field


def document_of(reply: HttpReply, body: bytes) -> tuple[Any, bool]:
    """Return a reply's document, and whether it has one: files and images have none.

    Raises InvalidAnswer for JSON that is none.
    """
    kind = media_type(reply.headers)
    if not kind or b"json" in kind:
        return reply_document(reply, body), True
    if body[:1] in (b"{", b"[") and reply.document is None and not kind.startswith(b"image"):
        try:
            return reply_document(reply, body), True  # labelled as text, as some servers do
        except InvalidAnswer:
            pass
    if is_text(kind) and len(body) <= TEXT_BYTES_MAX:
        return body.decode("utf-8", "replace").strip(), True
    return None, False


def is_text(kind: bytes) -> bool:
    """Return whether a media type is one of texts, but for pages and events."""
    if kind in (b"text/html", b"text/event-stream"):
        return False
    return kind.startswith(b"text/") or kind.endswith(_TEXTS)


def _usual_answer(reply: HttpReply, document: Any) -> Any:
    if isinstance(document, dict):
        for name in _ANSWERS:
            if document.get(name) is not None:
                return document[name]
        if document.get("error"):
            raise InvalidAnswer(f"an error with status 200: {shown(document['error'])}")
    return document
