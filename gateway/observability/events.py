"""Events for operators: the newest are kept in memory, and each one is logged."""

import logging
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

EVENTS_MAX = 1000  # enough for a person to read; the log has all events

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened once; `kind` is from a closed set, `about` names the subject."""

    id: str
    time: float
    kind: str
    about: str
    text: str
    details: dict[str, Any] = field(default_factory=dict)


class EventLog:
    """The newest events."""

    # The mutable state is the ring of events, their total count, and the listeners.

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._ring: deque[Event] = deque(maxlen=EVENTS_MAX)
        self._boot = secrets.token_hex(4)
        self._listeners: list[Callable[[Event], None]] = []
        self.count = 0

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event from now on; it must return at once."""
        self._listeners.append(listener)

    def add(self, kind: str, about: str, text: str, **details: Any) -> None:
        """Record an event and log it."""
        self.count += 1
        event = Event(f"{self._boot}-{self.count}", self._wall(), kind, about, text, details)
        self._ring.append(event)
        log.warning("%s %s: %s", kind, about, text)
        for listener in self._listeners:
            listener(event)

    def newest(self, most: int = EVENTS_MAX) -> list[dict[str, Any]]:
        """Return the newest events, newest first."""
        return [asdict(event) for event in list(self._ring)[::-1][:most]]
