"""The ladder of a route: whom to ask when a backend fails, down to an answer that needs nobody.

    drawn backend fails -> rungs in their order (or the policy's next best, once) -> last resort

A rung inside the gateway (rules) costs no backend anything and is always taken; one over the wire
takes a retry out of the route's budget. Each request brings a share of a retry in (20 %: one for
every five requests), so that when everything fails the load grows by a fifth and not by two. The
purse is full at the start: the first failures of a quiet route must not wait for traffic.
"""

from collections.abc import Sequence
from dataclasses import dataclass

RETRIES_MAX = 100.0  # Finagle's: ten retries a second over its window of ten seconds
SHARE_BEFORE_REMOTE, SHARE_BEFORE_LOCAL = 0.5, 0.9
"""How much of the time left one attempt may take while rungs remain: over the wire, or inside."""

RESERVED_MOST_S = 60.0
"""The most time that is kept back for the rungs below: half of the ten minutes that a language
model may take would end a long reply that needs no fallback, and be billed all the same."""


def leaving(now_s: float, until_s: float, *, wired: bool) -> float:
    """Return until when an attempt may take, so that those below it can still be asked.

    `wired`: one of those below is reached over the wire.
    """
    share = SHARE_BEFORE_REMOTE if wired else SHARE_BEFORE_LOCAL
    return max(now_s + share * (until_s - now_s), until_s - RESERVED_MOST_S)


@dataclass(slots=True)
class Retries:
    """The state of a route's ladder: retries left, and counts. A reload keeps it."""

    left: float = RETRIES_MAX
    made: int = 0
    denied: int = 0
    static_responses: int = 0


class FallbackPlan:
    """One route's way down; `chain` are names of backends, `static_response` a reply's body."""

    # The mutable state is `retries`; the rest is configuration.

    def __init__(
        self,
        chain: Sequence[str] = (),
        static_response: bytes | None = None,
        *,
        retry_share: float = 0.2,
    ) -> None:
        """`retry_share` is how many retries a request brings in."""
        self.chain = tuple(chain)
        self.static_response = static_response
        self._share = retry_share
        self.retries = Retries()

    @property
    def is_declared(self) -> bool:
        """Whether the route promises a way down, for which time has to be left."""
        return bool(self.chain) or self.static_response is not None

    def earn(self) -> None:
        """Take note of a request (0.2 us)."""
        retries = self.retries
        if retries.left < RETRIES_MAX:
            retries.left = min(RETRIES_MAX, retries.left + self._share)

    def retry(self) -> bool:
        """Take out one retry; False where there is none left, or the route allows none."""
        retries = self.retries
        if not self._share or retries.left < 1.0:
            retries.denied += 1
            return False
        retries.left -= 1.0
        retries.made += 1
        return True

    def adopt(self, old: "FallbackPlan") -> None:
        """Share the state of the ladder that this one replaces."""
        self.retries = old.retries
