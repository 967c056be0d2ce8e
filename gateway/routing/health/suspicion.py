"""Suspicions: failures of a backend that the requests themselves may have caused, by caller.

Theory of operation. A 500 says that a request failed, not why. If the request would fail at any
server, its caller must not block the backend for others. If the server is broken, callers should
not have to discover it again and again. One caller's failures cannot tell the two apart, so each
failing caller rests separately: from the fifth failure in a row (counted by `circuit_breaker`) if
several callers have failed, else from the 25th. A caller that has not failed is let through at
once, as the trial: one success clears everybody.

So up to CALLERS_MAX callers with bad requests cost nobody else a refusal, and a broken server costs
each of its callers one failed call. Beyond CALLERS_MAX callers without a success in between, the
breaker opens for everybody.
"""

from dataclasses import dataclass

SOLE_FAILURES = 25
"""Failures in a row after which a sole failing caller rests: half of the breaker's window. If a
gateway has only one caller, nobody else can make the trial."""

CALLERS_MAX = 16
"""So many independent callers are not all wrong, and each one sends a broken backend one more call
before the breaker opens."""


@dataclass(slots=True)
class Suspect:
    """One caller whose calls failed; its mutable state is its failure count and its rest."""

    failures: int = 0
    excused: bool = False
    rested_until_s: float = 0.0
    pause_s: float = 0.0
    probing: bool = False

    def rest(self, now_s: float, pause_s: float, pause_max_s: float) -> None:
        """Begin a rest, twice as long as before if a probe failed.

        Failures of calls that were already in progress do not count.
        """
        if not self.pause_s:
            self.pause_s = pause_s
        elif not self.probing:
            return
        else:
            self.pause_s = min(pause_max_s, 2 * self.pause_s)
        self.probing = False
        self.rested_until_s = now_s + self.pause_s


class Suspicions:
    """The callers that have failed since the last success, and their rests."""

    # The mutable state is the callers.
    __slots__ = ("_pause_max_s", "_pause_s", "callers")

    def __init__(self, *, pause_s: float, pause_max_s: float) -> None:
        self._pause_s = pause_s
        self._pause_max_s = pause_max_s
        self.callers: dict[str, Suspect] = {}

    def add(self, caller: str) -> bool:
        """Count a caller's failure; return whether it had failed before."""
        suspect = self.callers.get(caller)
        known = suspect is not None
        if suspect is None:
            if self.are_full:
                return False
            suspect = self.callers[caller] = Suspect()
        suspect.failures += 1
        return known

    def rest(self, now_s: float, caller: str) -> None:
        """Make a caller rest."""
        suspect = self.callers.get(caller)
        if suspect is not None:
            suspect.rest(now_s, self._pause_s, self._pause_max_s)

    def allows(self, now_s: float, caller: str) -> bool:
        """Return whether a caller may call now."""
        suspect = self.callers.get(caller)
        return suspect is None or now_s >= suspect.rested_until_s

    def probe(self, now_s: float, caller: str) -> None:
        """Record a caller's call; after a rest it is the only one until the pause ends."""
        suspect = self.callers.get(caller)
        if suspect is not None and suspect.pause_s:
            suspect.probing = True
            suspect.rested_until_s = now_s + suspect.pause_s

    def clear(self) -> None:
        """Drop all suspicions: the backend has answered."""
        self.callers.clear()

    def excuse(self) -> None:
        """Blame past failures on their callers alone, and end rests below SOLE_FAILURES."""
        for suspect in self.callers.values():
            suspect.excused = True
            if suspect.failures < SOLE_FAILURES:
                suspect.pause_s = suspect.rested_until_s = 0.0

    def take(self) -> int:
        """Drop all suspicions and return the number of failures."""
        failures = sum(suspect.failures for suspect in self.callers.values())
        self.callers.clear()
        return failures

    def shared(self, caller: str) -> int:
        """Return how many failures count against the backend when this caller fails.

        0 if only one caller has failed or this one is excused.
        """
        suspect = self.callers.get(caller)
        if suspect is not None and suspect.excused:
            return 0
        counted = [one.failures for one in self.callers.values() if not one.excused]
        return sum(counted) if len(counted) > 1 else 0

    def is_often(self, caller: str) -> bool:
        """Whether a caller has failed so often in a row that it rests regardless of others."""
        suspect = self.callers.get(caller)
        return suspect is not None and suspect.failures >= SOLE_FAILURES

    @property
    def are_full(self) -> bool:
        """Whether no more callers can be tracked."""
        return len(self.callers) >= CALLERS_MAX

    @property
    def rested_until_s(self) -> float:
        """When the first resting caller may call again."""
        return min((one.rested_until_s for one in self.callers.values() if one.pause_s), default=0)
