"""Suspicions: failures of a backend that the requests themselves may have caused, by caller.

Theory of operation. A 500 says that a request failed, not why. Where the same request would fail at
any server, its caller must not shut the backend for others; where the server is broken, callers
should not have to find out again and again. Nobody can tell from one caller's failures, so each
caller that fails rests by itself, from the fifth failure in a row on (`breaker` counts) if several
callers have failed, else from the 25th. A caller that has not failed is let through at once, as the
trial: one success clears everybody.

So callers with bad requests, however many up to CALLERS_MAX, cost nobody else a refusal, and a
broken server costs each of its callers one failed call. Beyond CALLERS_MAX callers without a
success in between the breaker opens for everybody.
"""

from dataclasses import dataclass

SOLE_FAILURES = 25
"""Failures in a row of one caller, where no other fails: half of the breaker's window. Where a
gateway has one caller only, nobody else can make the trial."""

CALLERS_MAX = 16
"""That many independent callers are not all wrong, and each costs a broken backend one call more
before it is left alone."""


@dataclass(slots=True)
class Suspect:
    """One caller whose calls failed; its mutable state is how often, and its rest."""

    failures: int = 0
    excused: bool = False
    rested_until_s: float = 0.0
    pause_s: float = 0.0
    probing: bool = False

    def rest(self, now_s: float, pause_s: float, pause_max_s: float) -> None:
        """Have it wait; twice as long as before where a probe failed. Calls that were under way
        say nothing new.
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
    """Who has failed since the last success, and who rests."""

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
        """Have a caller wait."""
        suspect = self.callers.get(caller)
        if suspect is not None:
            suspect.rest(now_s, self._pause_s, self._pause_max_s)

    def allows(self, now_s: float, caller: str) -> bool:
        """Say whether a caller may call now."""
        suspect = self.callers.get(caller)
        return suspect is None or now_s >= suspect.rested_until_s

    def probe(self, now_s: float, caller: str) -> None:
        """Take note that a caller calls: where it rested, this is its only call for a pause."""
        suspect = self.callers.get(caller)
        if suspect is not None and suspect.pause_s:
            suspect.probing = True
            suspect.rested_until_s = now_s + suspect.pause_s

    def clear(self) -> None:
        """Forget all of them: the backend has answered."""
        self.callers.clear()

    def excuse(self) -> None:
        """Hold what failed until now against its callers alone, and end the rests of others."""
        for suspect in self.callers.values():
            suspect.excused = True
            if suspect.failures < SOLE_FAILURES:
                suspect.pause_s = suspect.rested_until_s = 0.0

    def take(self) -> int:
        """Forget all of them; return how many failures there were."""
        failures = sum(suspect.failures for suspect in self.callers.values())
        self.callers.clear()
        return failures

    def shared(self, caller: str) -> int:
        """Return how many failures count against the backend where this caller fails: 0 where
        only one caller has failed, or this one is excused.
        """
        suspect = self.callers.get(caller)
        if suspect is not None and suspect.excused:
            return 0
        counted = [one.failures for one in self.callers.values() if not one.excused]
        return sum(counted) if len(counted) > 1 else 0

    def is_often(self, caller: str) -> bool:
        """Whether a caller has failed so often in a row that it rests whatever others do."""
        suspect = self.callers.get(caller)
        return suspect is not None and suspect.failures >= SOLE_FAILURES

    @property
    def are_full(self) -> bool:
        """Whether no more callers are told apart."""
        return len(self.callers) >= CALLERS_MAX

    @property
    def rested_until_s(self) -> float:
        """When the first of those that rest may call again."""
        return min((one.rested_until_s for one in self.callers.values() if one.pause_s), default=0)
