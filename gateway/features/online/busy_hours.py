"""Remembers which entities each hour of the week asks for most, to load them before it begins.

It counts one request in SAMPLED. Of each hour the entities seen most are kept; the hours of the
week before last count half as much, and so on.
"""

import json
from collections import Counter

SAMPLED = 16
HOUR_S = 3600.0
HOURS = 168
KEPT = 500  # entities of an hour: with 168 hours about 8 MB
SEEN_MAX = 5_000  # of the current hour, before the rarest go
AHEAD_S = 600.0  # before the hour begins
FADES = 0.5


class BusyHours:
    """The entities of one group by hour of the week, under their pseudonyms."""

    # The mutable state is the counts by hour, and the hour that was counted last.
    def __init__(self) -> None:
        self._counts: dict[int, Counter[str]] = {}
        self._last = -1

    def see(self, digest: str, wall_s: float) -> None:
        """Count an entity that was asked for."""
        hour = int(wall_s // HOUR_S)
        if hour != self._last:
            self._begin(hour)
        counts = self._counts[hour % HOURS]
        counts[digest] += 1
        if len(counts) > SEEN_MAX:
            self._counts[hour % HOURS] = Counter(dict(counts.most_common(KEPT)))

    def _begin(self, hour: int) -> None:
        """Begin an hour: shorten the one before, and let what was counted a week ago fade."""
        before = self._counts.get(self._last % HOURS)
        if before is not None:
            self._counts[self._last % HOURS] = Counter(dict(before.most_common(KEPT)))
        faded = {
            one: count * FADES for one, count in self._counts.get(hour % HOURS, Counter()).items()
        }
        self._counts[hour % HOURS] = Counter({k: int(v) for k, v in faded.items() if v >= 1.0})
        self._last = hour

    def ahead(self, wall_s: float) -> list[str]:
        """Return the entities of the hour that begins within AHEAD_S, seen most first."""
        now, soon = int(wall_s // HOUR_S), int((wall_s + AHEAD_S) // HOUR_S)
        if soon == now:
            return []
        return [one for one, _ in self._counts.get(soon % HOURS, Counter()).most_common(KEPT)]

    def forget(self, digest: str) -> None:
        """Forget an entity in all hours."""
        for counts in self._counts.values():
            counts.pop(digest, None)

    def save(self) -> bytes:
        """Return the state."""
        kept = {hour: dict(one.most_common(KEPT)) for hour, one in self._counts.items()}
        return json.dumps(kept).encode()

    def load(self, state: bytes) -> None:
        """Load saved state. Raises ValueError if it is damaged."""
        saved = json.loads(state)
        self._counts = {
            int(hour) % HOURS: Counter({str(one): int(n) for one, n in counts.items()})
            for hour, counts in saved.items()
        }
        self._last = -1
