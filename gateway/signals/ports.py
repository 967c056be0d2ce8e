"""The port of signals: what a hook sees of an answer, and what it returns.

A hook runs off the request path. It returns a score in [0, 1], or None if it has nothing to say of
an answer; it raises HookFailed if it could not score. It never runs what a model wrote inside the
gateway.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from tollway.gateway.routing.request_state import RequestState


class HookFailed(Exception):  # noqa: N818 - reads as what happened
    """A hook could not score an answer: it took too long, it died, or it said something else."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One backend's reply to a request.

    `text` is the answer as the route's protocol reads it; of a JSON answer, its document as text.
    `body` is the whole reply, empty for a stream. `request` is the request's document.
    `state` is the request's, for hooks that call backends; `is_held`: the client got this reply.
    """

    decision: str
    route: str
    tenant: str
    backend: str
    text: str
    body: bytes
    request: Any
    state: RequestState = field(repr=False)
    is_held: bool = True

    def document(self) -> dict[str, Any]:
        """Return what an operator's own program gets to know."""
        return {
            "decision": self.decision,
            "route": self.route,
            "backend": self.backend,
            "request": self.request,
            "answer": self.text,
        }


class Hook(Protocol):
    """Scores answers."""

    @property
    def name(self) -> str:
        """The signal's name."""

    async def score(self, answer: Answer) -> float | None:
        """Return a score in [0, 1]; None for no opinion. Raises HookFailed."""

    async def aclose(self) -> None:
        """Release what it holds."""


@dataclass(frozen=True, slots=True)
class RouteHooks:
    """The hooks of a route, and how many of its answers each scores.

    `every`: hooks of the replies a cascade did not accept, too. `shares`: by name, the share of
    the answers that a hook scores. `users`: the name of the signal that users' next requests give,
    within `window_s`; empty if they are not looked at. `heard`: the tenants whose own word of an
    answer counts, None for all.
    """

    every: tuple[Hook, ...] = ()
    held: tuple[Hook, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    users: str = ""
    window_s: float = 0.0
    heard: frozenset[str] | None = None

    def said(self, tenant: str, feedback: float | None) -> float | None:
        """Return what a tenant says of an answer itself; None if nothing, or it is not heard."""
        return feedback if self.heard is None or tenant in self.heard else None


def encoded(document: Any) -> bytes:
    """Return a document as JSON. Raises HookFailed if it cannot be written.

    A client's document may be nested more deeply than can be written, or have half characters.
    """
    try:
        return orjson.dumps(document)
    except TypeError as exc:
        raise HookFailed(f"the request cannot be passed on: {exc}") from exc


def checked(score: Any, name: str) -> float | None:
    """Return a score that a program gave; None for no opinion. Raises HookFailed."""
    if score is None:
        return None
    is_number = isinstance(score, int | float)
    if not is_number or not 0 <= score <= 1:
        raise HookFailed(f"signal {name!r} gave {str(score)[:40]!r}, not a number from 0 to 1")
    return float(score)
