"""Circuit breaker: keeps requests from a backend that has stopped answering.

    state      a call succeeds  a call fails                              time passes
    closed     closed           open at 5 in a row, or 25 of the last 50  -
    open       -                -                                         half-open after the pause
    half-open  closed           open, pause doubled                       another probe after it

The pause starts at 1 s and doubles up to 30 s while probes fail. One probe at a time: a backend
that comes back is not met by everything that waited for it. Calls that were under way when it
opened say nothing new when they fail: fifty that hang would make the pause 30 s before the first
probe.

A failure that the request itself may have caused (500 for an image that cannot be read) is only a
suspicion, and opens the breaker for the callers that have had one: see `suspicion`. Any other
caller is let through, and its request is the trial: a success closes the breaker for everybody.

The last calls are bits of one integer, a failure a 1, so that the share of failures is a
count of bits. Suspicions are not among them: two callers with bad requests would open it for all.
"""

from tollway.gateway.routing.health.suspicion import Suspicions

FAILURES_IN_A_ROW = 5  # Envoy's default for consecutive gateway errors
WINDOW = 50  # calls: enough that chance alone does not make a backend with 20 % failures seem dead
FAILURES_IN_WINDOW = 25  # half: the default of Resilience4j
PAUSE_S = 1.0
PAUSE_MAX_S = 30.0
_MASK = (1 << WINDOW) - 1

STATES = ("closed", "open", "half_open")


class CircuitBreaker:
    """Says whether a backend may be called."""

    # The mutable state of a breaker is its run of failures, its last calls, whether it is open and
    # whether for everybody, its pause, when it may probe, whether a probe is under way, and its
    # suspicions.
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
        self.is_open = False  # whether the backend is held to be down

    def state(self, now_s: float) -> str:
        """Return which of STATES it is in."""
        if not self.is_open:
            return "closed"
        probe_at_s = self._probe_at_s if self._for_all else self.suspicions.rested_until_s
        return "half_open" if now_s >= probe_at_s else "open"

    def allows(self, now_s: float, caller: str = "") -> bool:
        """Say whether a caller's call may be made now; claims nothing (see `probe`)."""
        if self._for_all:
            return now_s >= self._probe_at_s
        return not self.suspicions.callers or self.suspicions.allows(now_s, caller)

    def probe(self, now_s: float, caller: str = "") -> None:
        """Take note that a call is made: in the half-open state it is the only one for a pause."""
        if self._for_all:
            self._probing = True
            self._probe_at_s = now_s + self._pause_s
        elif self.suspicions.callers:
            self.suspicions.probe(now_s, caller)

    def succeeded(self) -> None:
        """Close (0.1 us)."""
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
        """Count a failure; open where it is one too many, for longer where a probe fails."""
        self._failures += 1
        self._last = (self._last << 1 | 1) & _MASK
        if self._for_all:
            self._probe_failed(now_s)
        elif self._failures >= FAILURES_IN_A_ROW or self._last.bit_count() >= FAILURES_IN_WINDOW:
            self._open(now_s)

    def suspected(self, now_s: float, caller: str) -> None:
        """Count a failure that the request may have caused: it can rest its caller, and everybody
        only where too many callers have had one to tell them apart.
        """
        suspicions = self.suspicions
        known = suspicions.add(caller)
        if self._for_all:
            if not known:
                self._probe_failed(now_s)
            self._probing = False  # the same caller's request again says nothing new
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
        """Count suspicions as failures: the backend's own health path has failed."""
        self._failures += self.suspicions.take()
        if not self._for_all and self._failures >= FAILURES_IN_A_ROW:
            self._open(now_s)

    def cleared(self) -> None:
        """Hold no suspicion against the backend: its health path is well. Those callers are each
        judged alone from now on.
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
