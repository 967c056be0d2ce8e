"""Events: what an operator should hear of, newest kept, each also logged."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

EVENTS_MAX = 1000  # a page of them is read by a person; the log has them all

log = logging.getLogger("tollway.events")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened once; `kind` is of a closed set, `about` names what it is about."""

    time: float
    kind: str
    about: str
    text: str
    details: dict[str, Any] = field(default_factory=dict)


class Events:
    """The newest events."""

    # The mutable state is the ring of events and the count of all there ever were.

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._ring: deque[Event] = deque(maxlen=EVENTS_MAX)
        self.count = 0

    def add(self, kind: str, about: str, text: str, **details: Any) -> None:
        """Take note of an event, and log it."""
        self.count += 1
        self._ring.append(Event(self._wall(), kind, about, text, details))
        log.warning("%s %s: %s", kind, about, text)

    def newest(self, most: int = EVENTS_MAX) -> list[dict[str, Any]]:
        """Return the newest events, newest first."""
        return [asdict(event) for event in list(self._ring)[::-1][:most]]
