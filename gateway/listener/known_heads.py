"""Heads of requests that were accepted before (`tollway.backends.http.known_heads`)."""

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class KnownHead:
    """A head that was accepted: its part of the ASGI scope.

    `judgement`: what `judge` has made of it, so that it need not judge it again.
    """

    scope: dict[str, Any]
    judge: object = None
    judgement: Any = None
