"""Circuit breaker: keeps requests from a backend that has stopped answering.

    state      a call succeeds  a call fails                              time passes
    closed     closed           open at 5 in a row, or 25 of the last 50  -
    open       -                -                                         half-open after the pause
    half-open  closed           open, pause doubled                       another probe after it

The pause starts at 1 s and doubles up to 30 s while probes fail. One probe at a time: a backend
that comes back is not met by everything that waited for it. Calls that were under way when it
opened say nothing new when they fail: fifty that hang would make the pause 30 s before the first
probe. The last calls are bits of one integer, a failure a 1, so that the share of failures is a
count of bits.
"""

FAILURES_IN_A_ROW = 5  # Envoy's default for consecutive gateway errors
WINDOW = 50  # calls: enough that chance alone does not make a backend with 20 % failures seem dead
FAILURES_IN_WINDOW = 25  # half: the default of Resilience4j
PAUSE_S = 1.0
PAUSE_MAX_S = 30.0
_MASK = (1 << WINDOW) - 1

STATES = ("closed", "open", "half_open")


class Breaker:
    """Says whether a backend may be called."""

    # The mutable state of a breaker is its run of failures, its last calls, whether it is open, its
    # pause, when it may probe, and whether a probe is under way.
    __slots__ = ("_failures", "_last", "_pause_s", "_probe_at_s", "_probing", "is_open")

    def __init__(self) -> None:
        self._failures = 0
        self._last = 0
        self._pause_s = PAUSE_S
        self._probe_at_s = 0.0
        self._probing = False
        self.is_open = False  # whether the backend is held to be down

    def state(self, now_s: float) -> str:
        """Return which of STATES it is in."""
        if not self.is_open:
            return "closed"
        return "half_open" if now_s >= self._probe_at_s else "open"

    def allows(self, now_s: float) -> bool:
        """Say whether a call may be made now; claims nothing (see `probe`)."""
        return not self.is_open or now_s >= self._probe_at_s

    def probe(self, now_s: float) -> None:
        """Take note that a call is made: in the half-open state it is the only one for a pause."""
        if self.is_open:
            self._probing = True
            self._probe_at_s = now_s + self._pause_s

    def succeeded(self) -> None:
        """Close (0.1 us)."""
        self._failures = 0
        if self.is_open:
            self.is_open = self._probing = False
            self._last = 0
            self._pause_s = PAUSE_S
        elif self._last:
            self._last = self._last << 1 & _MASK

    def failed(self, now_s: float) -> None:
        """Count a failure; open where it is one too many, for longer where a probe fails."""
        self._failures += 1
        self._last = (self._last << 1 | 1) & _MASK
        if self.is_open:
            if not self._probing:
                return
            self._probing = False
            self._pause_s = min(PAUSE_MAX_S, 2 * self._pause_s)
        elif self._failures < FAILURES_IN_A_ROW and self._last.bit_count() < FAILURES_IN_WINDOW:
            return
        self.is_open = True
        self._probe_at_s = now_s + self._pause_s
