"""The calendar of a backend: when fewer or more replicas may run, and what multiplies the load.

Times of a schedule are those of the local clock, so "20:00" stays 20:00 when clocks change. The
first entry that applies at an instant decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from tollway.gateway.learning.known_events import KnownEvent


@dataclass(frozen=True, slots=True)
class Entry:
    """Bounds that apply each week from `start` to `end` (minutes of the day) on some days.

    If `end` is not after `start`, the entry lasts into the following day. None leaves a bound.
    """

    days: frozenset[int]
    start: int
    end: int
    least: int | None
    most: int | None

    def applies(self, day: int, minute: int) -> bool:
        """Return whether the entry applies on a weekday (Monday is 0) at a minute of the day."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        began_today = day in self.days and minute >= self.start
        return began_today or ((day - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The fewest and the most replicas."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Calendar:
    """The schedule and the events of a backend."""

    zone: str = "UTC"
    schedule: Sequence[Entry] = ()
    events: Sequence[KnownEvent] = ()

    def bounds(self, usual: Bounds, now_s: float, lead_s: float) -> Bounds:
        """Return the bounds that apply now; those of `lead_s` ahead already widen them upwards.

        So replicas that take `lead_s` to start are there when the night ends.
        """
        now, ahead = self._at(usual, now_s), self._at(usual, now_s + lead_s)
        return Bounds(max(now.least, ahead.least), max(now.most, ahead.most))

    def _at(self, usual: Bounds, time_s: float) -> Bounds:
        local = datetime.fromtimestamp(time_s, ZoneInfo(self.zone))
        minute = 60 * local.hour + local.minute
        for entry in self.schedule:
            if entry.applies(local.weekday(), minute):
                least = usual.least if entry.least is None else entry.least
                most = usual.most if entry.most is None else entry.most
                return Bounds(least, max(least, most))
        return usual

    def event(self, now_s: float, lead_s: float) -> KnownEvent | None:
        """Return the event with the highest factor that is under way or begins within `lead_s`."""
        near = [e for e in self.events if e.start_s - lead_s <= now_s < e.end_s]
        return max(near, key=lambda event: event.factor, default=None)
