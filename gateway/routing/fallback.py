"""The fallback chain of a route: what to try when a backend fails, down to a static response.

    drawn backend fails -> fallbacks in order (or the policy's next best, once) -> static response

A fallback inside the gateway (rules) costs no backend anything and is always tried. A fallback over
the network takes a retry from the route's retry budget. Each request adds a share of a retry (20 %:
one for every five requests), so that when everything fails the load grows by a fifth and does not
double. The retry budget starts full: the first failures of a quiet route must not wait for traffic.
"""

from collections.abc import Sequence
from dataclasses import dataclass

RETRIES_MAX = 100.0  # Finagle's: ten retries a second over its window of ten seconds
SHARE_BEFORE_REMOTE, SHARE_BEFORE_LOCAL = 0.5, 0.9
"""The share of the remaining time that one attempt may take while fallbacks remain: over the
network, or inside the gateway."""

RESERVED_MOST_S = 60.0
"""The most time reserved for the remaining fallbacks. Half of the ten minutes that a language model
may take would cut off a long reply that needs no fallback, and the reply would still be billed."""


def leaving(now_s: float, until_s: float, *, wired: bool) -> float:
    """Return the deadline of an attempt that leaves time for the remaining fallbacks.

    `wired`: one of them is reached over the network.
    """
    share = SHARE_BEFORE_REMOTE if wired else SHARE_BEFORE_LOCAL
    return max(now_s + share * (until_s - now_s), until_s - RESERVED_MOST_S)


@dataclass(slots=True)
class Retries:
    """The state of a fallback chain: retries left, and counts. A reload keeps it."""

    left: float = RETRIES_MAX
    made: int = 0
    denied: int = 0
    static_responses: int = 0


class FallbackPlan:
    """One route's fallbacks: `chain` names backends, `static_response` is a reply's body."""

    # The mutable state is `retries`; the rest is configuration.

    def __init__(
        self,
        chain: Sequence[str] = (),
        static_response: bytes | None = None,
        *,
        retry_share: float = 0.2,
    ) -> None:
        """`retry_share` is how many retries each request adds."""
        self.chain = tuple(chain)
        self.static_response = static_response
        self._share = retry_share
        self.retries = Retries()

    @property
    def is_declared(self) -> bool:
        """Whether the route declares fallbacks, for which time must be reserved."""
        return bool(self.chain) or self.static_response is not None

    def earn(self) -> None:
        """Add the share of a retry for one request (0.2 us)."""
        retries = self.retries
        if retries.left < RETRIES_MAX:
            retries.left = min(RETRIES_MAX, retries.left + self._share)

    def retry(self) -> bool:
        """Take one retry; False if none is left or the route allows none."""
        retries = self.retries
        if not self._share or retries.left < 1.0:
            retries.denied += 1
            return False
        retries.left -= 1.0
        retries.made += 1
        return True

    def adopt(self, old: "FallbackPlan") -> None:
        """Share the state of the plan that this one replaces."""
        self.retries = old.retries
