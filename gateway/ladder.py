"""The ladder of a route: whom to ask when a backend fails, down to an answer that needs nobody.

    drawn backend fails -> rungs in their order (or the policy's next best, once) -> last resort

A rung inside the gateway (rules) costs no backend anything and is always taken; one over the wire
takes a retry out of the route's budget. Each request brings a share of a retry in (20 %: one for
every five requests), so that when everything fails the load grows by a fifth and not by two. The
purse is full at the start: the first failures of a quiet route must not wait for traffic.
"""

from collections.abc import Sequence

RETRIES_MAX = 100.0  # Finagle's: ten retries a second over its window of ten seconds
LEAVES_WIRE, LEAVES_LOCAL = 0.5, 0.9
"""How much of the time left one attempt may take while rungs remain: over the wire, or inside."""

RESERVED_MOST_S = 60.0
"""The most time that is kept back for the rungs below: half of the ten minutes that a language
model may take would end a long reply that needs no fallback, and be billed all the same."""


def leaving(now_s: float, until_s: float, *, wired: bool) -> float:
    """Return until when an attempt may take, so that those below it can still be asked.

    `wired`: one of those below is reached over the wire.
    """
    share = LEAVES_WIRE if wired else LEAVES_LOCAL
    return max(now_s + share * (until_s - now_s), until_s - RESERVED_MOST_S)


class Ladder:
    """One route's way down; `rungs` are names of backends, `last_resort` a reply's body."""

    # The mutable state is the purse of retries, and the counts of what came of it.

    def __init__(
        self,
        rungs: Sequence[str] = (),
        last_resort: bytes | None = None,
        *,
        retry_share: float = 0.2,
    ) -> None:
        """`retry_share` is how many retries a request brings in."""
        self.rungs = tuple(rungs)
        self.last_resort = last_resort
        self._share = retry_share
        self._purse = RETRIES_MAX if retry_share else 0.0
        self.made = self.denied = self.resorted = 0

    @property
    def is_declared(self) -> bool:
        """Whether the route promises a way down, for which time has to be left."""
        return bool(self.rungs) or self.last_resort is not None

    def earn(self) -> None:
        """Take note of a request (0.2 us)."""
        if self._purse < RETRIES_MAX:
            self._purse = min(RETRIES_MAX, self._purse + self._share)

    def retry(self) -> bool:
        """Take out one retry; False where there is none left."""
        if self._purse < 1.0:
            self.denied += 1
            return False
        self._purse -= 1.0
        self.made += 1
        return True
