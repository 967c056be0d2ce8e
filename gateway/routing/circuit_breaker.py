"""Circuit breaker: keeps requests from a backend that has stopped answering.

    state      a call succeeds  a call fails                              time passes
    closed     closed           open at 5 in a row, or 25 of the last 50  -
    open       -                -                                         half-open after the pause
    half-open  closed           open, pause doubled                       another probe after it

The pause starts at 1 s and doubles up to 30 s while probes fail. Only one probe runs at a time, so
that a recovering backend does not receive all waiting requests at once. Calls that were in progress
when the breaker opened do not count when they fail: fifty hanging calls would raise the pause to
30 s before the first probe.

A failure that the request itself may have caused (500 for an image that cannot be read) is only a
suspicion, and opens the breaker only for the callers that had one: see `suspicion`. Any other
caller is let through, and its request is the trial: a success closes the breaker for everybody.

The last calls are the bits of one integer, 1 for a failure, so that the share of failures is a bit
count. Suspicions are not among them: two callers with bad requests would open the breaker for all.
"""

from tollway.gateway.routing.health.suspicion import Suspicions

FAILURES_IN_A_ROW = 5  # Envoy's default for consecutive gateway errors
WINDOW = 50  # calls: enough that a backend with 20 % failures does not seem dead by chance
FAILURES_IN_WINDOW = 25  # half: the default of Resilience4j
PAUSE_S = 1.0
PAUSE_MAX_S = 30.0
_MASK = (1 << WINDOW) - 1

STATES = ("closed", "open", "half_open")


class CircuitBreaker:
    """Says whether a backend may be called."""

    # The mutable state of a breaker is its run of failures, its last calls, whether it is open and
    # whether for everybody, its pause, when it may probe, whether a probe is in progress,
    # and its suspicions.
    __slots__ = (
        "_failures",
        "_for_all",
        "_last",
        "_pause_s",
        "_probe_at_s",
        "_probing",
        "is_open",
        "suspicions",
    )

    def __init__(self) -> None:
        self._failures = 0
        self._last = 0
        self._pause_s = PAUSE_S
        self._probe_at_s = 0.0
        self._probing = False
        self._for_all = False
        self.suspicions = Suspicions(pause_s=PAUSE_S, pause_max_s=PAUSE_MAX_S)
        self.is_open = False  # whether the backend is considered down

    def state(self, now_s: float) -> str:
        """Return the state, one of STATES."""
        if not self.is_open:
            return "closed"
        probe_at_s = self._probe_at_s if self._for_all else self.suspicions.rested_until_s
        return "half_open" if now_s >= probe_at_s else "open"

    def allows(self, now_s: float, caller: str = "") -> bool:
        """Return whether the caller may call now; reserves no probe (see `probe`)."""
        if self._for_all:
            return now_s >= self._probe_at_s
        return not self.suspicions.callers or self.suspicions.allows(now_s, caller)

    def probe(self, now_s: float, caller: str = "") -> None:
        """Record that a call is made; when half-open, it is the only one until the pause ends."""
        if self._for_all:
            self._probing = True
            self._probe_at_s = now_s + self._pause_s
        elif self.suspicions.callers:
            self.suspicions.probe(now_s, caller)

    def succeeded(self) -> None:
        """Record a success: close the breaker (0.1 us)."""
        self._failures = 0
        if self.suspicions.callers:
            self.suspicions.clear()
        if self.is_open:
            self.is_open = self._for_all = self._probing = False
            self._last = 0
            self._pause_s = PAUSE_S
        elif self._last:
            self._last = self._last << 1 & _MASK

    def failed(self, now_s: float) -> None:
        """Count a failure: open at the limit, or double the pause if a probe failed."""
        self._failures += 1
        self._last = (self._last << 1 | 1) & _MASK
        if self._for_all:
            self._probe_failed(now_s)
        elif self._failures >= FAILURES_IN_A_ROW or self._last.bit_count() >= FAILURES_IN_WINDOW:
            self._open(now_s)

    def suspected(self, now_s: float, caller: str) -> None:
        """Count a failure that the request may have caused.

        It can make its caller rest. It opens the breaker for everybody only if too many callers
        have had such failures to track them separately.
        """
        suspicions = self.suspicions
        known = suspicions.add(caller)
        if self._for_all:
            if not known:
                self._probe_failed(now_s)
            self._probing = False  # another failure of the same caller adds no evidence
            return
        shared = suspicions.shared(caller)
        if shared and self._failures + shared >= FAILURES_IN_A_ROW:
            self.is_open = True
            suspicions.rest(now_s, caller)
        elif suspicions.is_often(caller):
            suspicions.rest(now_s, caller)
        if self.is_open and suspicions.are_full:
            self._open(now_s)

    def confirmed(self, now_s: float) -> None:
        """Count suspicions as failures, because the backend's health check has failed."""
        self._failures += self.suspicions.take()
        if not self._for_all and self._failures >= FAILURES_IN_A_ROW:
            self._open(now_s)

    def cleared(self) -> None:
        """Drop the suspicions against the backend, because its health check has passed.

        Each of the suspected callers is judged separately from then on.
        """
        self.suspicions.excuse()
        if not self._for_all:
            self.is_open = False

    def _open(self, now_s: float) -> None:
        self.is_open = self._for_all = True
        self.suspicions.clear()
        self._probe_at_s = now_s + self._pause_s

    def _probe_failed(self, now_s: float) -> None:
        if not self._probing:
            return
        self._probing = False
        self._pause_s = min(PAUSE_MAX_S, 2 * self._pause_s)
        self._probe_at_s = now_s + self._pause_s
