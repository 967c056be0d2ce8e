"""The concurrency limiter for language models: measures the time to a stream's first event.

Theory of operation. The latency of a language model depends on the length of its reply, so the
latency of whole replies says nothing about queueing: after a health check of one token, every chat
would look like a queue. The time to the first event of a stream does show queueing. It goes through
the same gradient as other backends' latencies (`limiter.py`), with a lower bound:

    limit = max(gradient's limit, most concurrent calls that were served well in the last minute)

A call was served well if its whole reply came, or if its first event came within WELL_S or within
`tolerance` times the usual time. So the limit falls only where first events are late both for a
reader and compared with the backend's usual time, or where it refuses (429, 503). It never falls
below what was just served well. It rises by the gradient, and by one for as many whole replies as
the limit allows calls.
"""

from tollway.backends.concurrency.limiter import AdaptiveLimit
from tollway.backends.concurrency.served import Served

WELL_S = 10.0  # as long as people keep their attention (Nielsen, Usability Engineering, 1993)
DROP_S = 1.0  # in a burst of refusals only the first one counts


class FirstEventLimiter:
    """One backend's limit."""

    # The mutable state: the gradient's, what was served well, and when the last refusal counted.

    by_first_event = True

    def __init__(self, most: int, *, tolerance: float = 3.0) -> None:
        """Start at `most` concurrent calls, the highest limit."""
        self._gradient = AdaptiveLimit(most, tolerance=tolerance)
        self._tolerance = tolerance
        self._most = most
        self._served = Served()
        self._dropped_s = float("-inf")

    def adopt(self, old: "FirstEventLimiter") -> None:
        """Take over the state of a limiter with other settings; `old` is no longer used."""
        self._gradient.adopt(old._gradient)
        self._served, self._dropped_s = old._served, old._dropped_s

    @property
    def limit(self) -> int:
        """Maximum concurrent calls."""
        return min(self._most, max(self._gradient.limit, self._served.most))

    @property
    def usual(self) -> int:
        """The limit, ignoring a short probe."""
        return min(self._most, max(self._gradient.usual, self._served.most))

    def observe(self, now_s: float, latency_s: float, busy: int, tenant: str = "") -> None:
        """Record that a whole reply came; how long it took is ignored."""
        self._served.note(now_s, busy)
        if 2 * busy >= self.limit:
            self._gradient.grow()

    def begun(self, now_s: float, latency_s: float, busy: int, tenant: str = "") -> None:
        """Record the time to the first event of a stream."""
        self._gradient.observe(now_s, latency_s, busy, tenant)
        usual_s = self._tolerance * (self._gradient.base_s or 0.0)
        if latency_s <= max(WELL_S, usual_s):
            self._served.note(now_s, busy)

    def refused(self, now_s: float, tenant: str = "") -> None:
        """Record that the backend reported overload."""
        self._served.pass_on(now_s)
        if now_s - self._dropped_s >= DROP_S:
            self._dropped_s = now_s
            self._gradient.refused(now_s, tenant)

    def press(self, now_s: float) -> None:
        """Record that a call found no free slot."""
        self._served.pass_on(now_s)
        self._gradient.press(now_s)
