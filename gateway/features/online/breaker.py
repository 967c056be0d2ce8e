"""A source's circuit breaker: it stops asking a store that does not answer, and tries it again.

closed     all look-ups go out; FAILURES in a row open it
open       none goes out, until the rest is over: 0.5 s, doubled at each failure, up to 5 s
half-open  one look-up goes out; its success closes the breaker, its failure opens it again
"""

FAILURES = 3  # in a row: one slow query must not take the features of all
REST_S, REST_S_MAX = 0.5, 5.0  # a trial is one query: every 5 s it burdens no store

CLOSED, HALF_OPEN, OPEN = "closed", "half_open", "open"
STATES = (CLOSED, HALF_OPEN, OPEN)


class SourceBreaker:
    """The breaker of one source."""

    # The mutable state: failures in a row, until when it rests, and whether a trial is under way.
    def __init__(self) -> None:
        self._failures = 0
        self._until_s = 0.0
        self._rest_s = REST_S
        self._trial = False

    def allows(self, now_s: float) -> bool:
        """Return whether a look-up may begin."""
        if self._failures < FAILURES:
            return True
        return not self._trial and now_s >= self._until_s

    def begin(self) -> None:
        """Note that an allowed look-up begins."""
        self._trial = self._failures >= FAILURES

    def succeeded(self) -> None:
        """Note an answer."""
        self._failures, self._trial, self._rest_s = 0, False, REST_S

    def failed(self, now_s: float) -> None:
        """Note that there was none."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._until_s = now_s + self._rest_s
            self._rest_s = min(2.0 * self._rest_s, REST_S_MAX)
        self._trial = False

    def state(self, now_s: float) -> str:
        """Return its state."""
        if self._failures < FAILURES:
            return CLOSED
        return HALF_OPEN if self._trial or now_s >= self._until_s else OPEN
