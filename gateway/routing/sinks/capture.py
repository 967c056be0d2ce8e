"""Captures a share of the requests, with their prompts and replies, if the operator wants that."""

from collections.abc import Callable
from random import Random
from typing import Any

import orjson

from tollway.backends.documents import header
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.storage.captures import Captures


class CaptureSink:
    """Hands requests to the captures."""

    def __init__(
        self,
        captures: Captures,
        *,
        share: float,
        bytes_max: int,
        wall: Callable[[], float],
        rng: Random,
    ) -> None:
        """Capture a `share` of the requests whose prompt and reply have `bytes_max` at most."""
        self._captures = captures
        self._share = share
        self._bytes_max = bytes_max
        self._wall = wall
        self._rng = rng

    def ended(self, state: RequestState, now_s: float) -> None:
        """Capture a request whose cost is known."""
        held, inference = state.held, state.inference
        if held is None or not state.id or self._rng.random() >= self._share:
            return
        prompt, answer = inference.call.body, held.outcome.answer.value
        size = len(prompt) + len(held.body) + (len(answer) if isinstance(answer, str) else 0)
        if size > self._bytes_max:
            self._captures.dropped += 1
            return
        is_coded = header(held.headers, b"content-encoding") is not None
        record = {
            "id": state.id,
            "time": self._wall(),
            "route": inference.route.name,
            "tenant": inference.tenant,
            "tags": inference.tags,
            "backend": held.backend,
            "status": held.status,
            "cost_nano": state.cost_nano,
            "request": _document(prompt),
            "reply": _document(held.body) if held.body and not is_coded else None,
            "answer": answer if isinstance(answer, str | int | float) else None,
        }
        self._captures.put(record, size)


def _document(body: bytes) -> Any:
    """Return the document of a body (at most `bytes_max` large), or its text; None if neither."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return body.decode()
        except UnicodeDecodeError:
            return None
