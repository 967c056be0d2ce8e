"""Rate limits: requests and dollars per second for each tenant, with a burst.

Each tenant has two token buckets. In the requests bucket, each request takes a token; without one
it is refused with 429 before its body is read. In the dollars bucket, a request needs a balance
above zero and takes its cost when it ends. The balance may therefore fall below zero by the cost of
the requests in progress, and the next ones must wait. This smooths spend; only a budget enforces an
exact limit. The module is pure: the time is an argument.

Feedback has its own bucket for each tenant, limited by default, because every label costs the
learning worker about a third of a millisecond.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tollway.backends.money import to_usd
from tollway.gateway.data_plane.problems import HttpProblem
from tollway.gateway.learning.feedback_items import FEEDBACK_MAX
from tollway.gateway.routing.request_state import RequestState


@dataclass(slots=True)
class TokenBucket:
    """A token bucket: it gains `rate` tokens a second and holds at most `burst`."""

    # The mutable state is the token count, and the time of that count.

    rate: float
    burst: float
    tokens: float
    at_s: float = 0.0

    @classmethod
    def full(cls, rate: float, burst: float, now_s: float = 0.0) -> "TokenBucket":
        """Return a full bucket."""
        return cls(rate, burst, burst, now_s)

    def revise(self, rate: float, burst: float, now_s: float) -> None:
        """Set a new rate and burst; keep the tokens, up to the new burst."""
        self.fill(now_s)
        self.rate, self.burst, self.tokens = rate, burst, min(self.tokens, burst)

    def fill(self, now_s: float) -> float:
        """Add the tokens gained since the last call, and return the count."""
        self.tokens = min(self.burst, self.tokens + self.rate * max(0.0, now_s - self.at_s))
        self.at_s = now_s
        return self.tokens

    def wait_s(self, tokens: float) -> float:
        """Return the time from the last `fill` until the bucket holds `tokens`."""
        return max(0.0, (tokens - self.tokens) / self.rate)


class RateLimit:
    """The rate limits of one tenant."""

    # The mutable state is the two buckets.

    def __init__(
        self, requests_per_s: float | None, burst: float | None, usd_per_s: float | None
    ) -> None:
        """`burst` is how many requests may come at once; by default those of one second.

        The burst of dollars is always that of one second. A rate of None is unlimited.
        """
        self._requests: TokenBucket | None = None
        self._dollars: TokenBucket | None = None
        self.revise(requests_per_s, burst, usd_per_s, 0.0)

    def revise(
        self,
        requests_per_s: float | None,
        burst: float | None,
        usd_per_s: float | None,
        now_s: float,
    ) -> None:
        """Set new rates; the buckets keep their balance, positive or negative."""
        size = None
        if requests_per_s is not None:
            size = max(1.0, burst if burst is not None else requests_per_s)
        self._requests = _revised(self._requests, requests_per_s, size, now_s)
        self._dollars = _revised(self._dollars, usd_per_s, usd_per_s, now_s)

    def admit(self, now_s: float) -> None:
        """Admit a request; raise HttpProblem 429 above a limit (1.2 us)."""
        dollars, requests = self._dollars, self._requests
        if dollars is not None and dollars.fill(now_s) <= 0.0:
            raise self._too_many("dollars", dollars.wait_s(0.0))
        if requests is not None:
            if requests.fill(now_s) < 1.0:
                raise self._too_many("requests", requests.wait_s(1.0))
            requests.tokens -= 1.0

    def charge(self, state: RequestState) -> None:
        """Take a request's cost from the dollars bucket."""
        if self._dollars is not None:
            self._dollars.tokens -= to_usd(state.cost_nano)

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return the RateLimit and RateLimit-Policy headers of the IETF's draft 10."""
        bucket = self._requests
        if bucket is None:
            return []
        left, window_s = max(0, int(bucket.tokens)), max(1, round(bucket.burst / bucket.rate))
        again_s = -int(-bucket.wait_s(left + 1.0) // 1)
        return [
            (b"ratelimit-policy", b'"requests";q=%d;w=%d' % (bucket.burst, window_s)),
            (b"ratelimit", b'"requests";r=%d;t=%d' % (left, again_s)),
        ]

    def _too_many(self, what: str, wait_s: float) -> HttpProblem:
        refused = HttpProblem(
            429,
            "Too many requests",
            f"this key exceeds its rate limit of {what} per second; wait {wait_s:.1f} s",
        )
        again_s = max(1, -int(-wait_s // 1))
        refused.headers = [(b"retry-after", b"%d" % again_s), *self.fields()]
        return refused


def _revised(
    bucket: TokenBucket | None, rate: float | None, burst: float | None, now_s: float
) -> TokenBucket | None:
    """Return a bucket with this rate, reusing an existing one; None if unlimited."""
    if rate is None or burst is None:
        return None
    if bucket is None:
        return TokenBucket.full(rate, burst, now_s)
    bucket.revise(rate, burst, now_s)
    return bucket


FEEDBACK_BURST_S = 10.0  # burst, in seconds' worth of labels: a batch job catches up, then waits


class FeedbackRates:
    """Limits the labels per second of each tenant."""

    # The mutable state is a bucket for each tenant that has sent feedback: tenants are known by
    # their keys, so there are no more than the configuration names.

    def __init__(self, default_per_s: float, own_per_s: Mapping[str, float]) -> None:
        """`own_per_s` holds the rates of tenants with a rate of their own."""
        self._buckets: dict[str, TokenBucket] = {}
        self._default_per_s, self._own_per_s = default_per_s, dict(own_per_s)

    def revise(
        self,
        default_per_s: float,
        own_per_s: Mapping[str, float],
        *,
        tenants: Collection[str],
        now_s: float,
    ) -> None:
        """Set new rates; the buckets of the current `tenants` keep their tokens."""
        self._default_per_s, self._own_per_s = default_per_s, dict(own_per_s)
        for tenant in self._buckets.keys() - set(tenants):
            del self._buckets[tenant]
        for tenant, bucket in self._buckets.items():
            rate = self._rate(tenant)
            bucket.revise(rate, _burst(rate), now_s)

    def admit(self, tenant: str, labels: int, now_s: float) -> None:
        """Admit all labels or none; raise HttpProblem 429 if they exceed the limit."""
        bucket = self._buckets.get(tenant)
        if bucket is None:
            rate = self._rate(tenant)
            bucket = self._buckets[tenant] = TokenBucket.full(rate, _burst(rate), now_s)
        if bucket.fill(now_s) >= labels:
            bucket.tokens -= labels
            return
        wait_s = bucket.wait_s(labels)
        refused = HttpProblem(
            429,
            "Too many requests",
            f"this key may send {bucket.rate:g} labels per second; wait {wait_s:.1f} s",
        )
        refused.headers = [(b"retry-after", b"%d" % max(1, -int(-wait_s // 1)))]
        raise refused

    def _rate(self, tenant: str) -> float:
        return self._own_per_s.get(tenant, self._default_per_s)


def _burst(rate: float) -> float:
    """Return the burst of labels; the largest single call always fits."""
    return max(rate * FEEDBACK_BURST_S, float(FEEDBACK_MAX))
