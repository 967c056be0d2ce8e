"""The limiter before language models: how many calls at once, found from how soon replies begin.

Theory of operation. How long a language model takes depends on the length of its reply, so that the
latency of whole replies tells nothing of a queue: after a health check of one token, every chat
would look like one. What tells of it is the time to the first event of a stream, which goes through
the same gradient as other backends' latencies (`limiter.py`), and what it finds is bounded:

    limit = max(what the gradient finds, the most calls at once that were served well in a minute)

Served well is a call whose whole reply came, or whose first event came within WELL_S or within
`tolerance` times the usual. So the limit falls only where first events are late both to a reader
and by the backend's own measure, or where it refuses (429, 503); and never below what just worked.
It rises by the gradient, and by one for as many whole replies as it allows calls.
"""

from tollway.backends.concurrency.limiter import AdaptiveLimit
from tollway.backends.concurrency.served import Served

WELL_S = 10.0  # as long as people attend to a pause (Nielsen, Usability Engineering, 1993)
DROP_S = 1.0  # of a burst that is refused, the first refusal tells it all


class FirstEventLimiter:
    """One backend's limit."""

    # The mutable state: the gradient's, what was served well, and when the last refusal counted.

    by_first_event = True

    def __init__(self, most: int, *, tolerance: float = 3.0) -> None:
        """Start at `most` calls at once, the highest limit."""
        self._gradient = AdaptiveLimit(most, tolerance=tolerance)
        self._tolerance = tolerance
        self._most = most
        self._served = Served()
        self._dropped_s = float("-inf")

    def adopt(self, old: "FirstEventLimiter") -> None:
        """Go on where a limiter with other settings has come to; `old` is not used any more."""
        self._gradient.adopt(old._gradient)
        self._served, self._dropped_s = old._served, old._dropped_s

    @property
    def limit(self) -> int:
        """Calls that may be made at once."""
        return min(self._most, max(self._gradient.limit, self._served.most))

    @property
    def usual(self) -> int:
        """The limit, but for a probe that lasts a moment."""
        return min(self._most, max(self._gradient.usual, self._served.most))

    def observe(self, now_s: float, latency_s: float, busy: int) -> None:
        """Take note of a whole reply: that it came, and not how long it took."""
        self._served.note(now_s, busy)
        if 2 * busy >= self.limit:
            self._gradient.grow()

    def begun(self, now_s: float, latency_s: float, busy: int) -> None:
        """Take the time to the first event of a stream."""
        self._gradient.observe(now_s, latency_s, busy)
        usual_s = self._tolerance * (self._gradient.base_s or 0.0)
        if latency_s <= max(WELL_S, usual_s):
            self._served.note(now_s, busy)

    def refused(self, now_s: float) -> None:
        """Note that the backend said that it has too much to do."""
        self._served.pass_on(now_s)
        if now_s - self._dropped_s >= DROP_S:
            self._dropped_s = now_s
            self._gradient.refused(now_s)

    def press(self, now_s: float) -> None:
        """Note that a call finds no place."""
        self._served.pass_on(now_s)
        self._gradient.press(now_s)
