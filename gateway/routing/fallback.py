"""The fallback chain of a route: what to try when a backend fails, down to a static response.

    drawn backend fails -> fallbacks in order (or the policy's next best, once) -> static response

A fallback inside the gateway (rules) costs no backend anything and is always tried. A fallback over
the network takes a retry from the route's retry budget. Each request adds a share of a retry (20 %:
one for every five requests), so that when everything fails the load grows by a fifth and does not
double. The retry budget starts full: the first failures of a quiet route must not wait for traffic.
Each tenant has its own, so that the failures of one cannot take the retries of another.
"""

from dataclasses import dataclass, field

from tollway.gateway.routing.health.tenant_tokens import TenantTokens

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

    tokens: TenantTokens = field(default_factory=lambda: TenantTokens(RETRIES_MAX))
    made: int = 0
    denied: int = 0
    static_responses: int = 0


@dataclass(frozen=True, slots=True)
class FallbackPlan:
    """One route's fallbacks: `chain` names backends, `static_response` is a reply's body."""

    chain: tuple[str, ...] = ()
    static_response: bytes | None = None


class RetryBudget:
    """How many fallbacks over the network a route may make."""

    def __init__(self, share: float = 0.2, retries: Retries | None = None) -> None:
        """`share` is how many retries each request adds; `retries` is the state to go on from."""
        self._share = share
        self.retries = retries or Retries()

    def earn(self, tenant: str = "") -> None:
        """Add the share of a retry for one request of a tenant (0.2 us)."""
        self.retries.tokens.earn(tenant, self._share)

    def take(self, tenant: str = "") -> bool:
        """Take one retry of a tenant's; False if none is left or the route allows none."""
        retries = self.retries
        if not self._share or retries.tokens.of(tenant) < 1.0:
            retries.denied += 1
            return False
        retries.tokens.spend(tenant)
        retries.made += 1
        return True
