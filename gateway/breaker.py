"""Circuit breaker: keeps requests from a backend that has stopped answering.

    state      a call succeeds      a call fails             time passes
    closed     closed               open at 5 in a row       -
    open       -                    -                        half-open after the pause
    half-open  closed               open, pause doubled      another probe after the pause

The pause starts at 1 s and doubles up to 30 s while probes fail. One probe at a time: a backend
that comes back is not met by everything that waited for it.
"""

FAILURES_IN_A_ROW = 5  # Envoy's default for consecutive gateway errors
PAUSE_S = 1.0
PAUSE_MAX_S = 30.0


class Breaker:
    """Says whether a backend may be called."""

    # The mutable state of a breaker is its run of failures, its pause, and when it may probe.
    __slots__ = ("_failures", "_pause_s", "_probe_at_s")

    def __init__(self) -> None:
        self._failures = 0
        self._pause_s = PAUSE_S
        self._probe_at_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the backend is held to be down."""
        return self._failures >= FAILURES_IN_A_ROW

    def allows(self, now_s: float) -> bool:
        """Say whether a call may be made now; claims nothing (see `probe`)."""
        return self._failures < FAILURES_IN_A_ROW or now_s >= self._probe_at_s

    def probe(self, now_s: float) -> None:
        """Take note that a call is made: in the half-open state it is the only one for a pause."""
        if self._failures >= FAILURES_IN_A_ROW:
            self._probe_at_s = now_s + self._pause_s

    def succeeded(self) -> None:
        """Close."""
        self._failures = 0
        self._pause_s = PAUSE_S

    def failed(self, now_s: float) -> None:
        """Count a failure; open at the fifth in a row, for longer each time."""
        self._failures += 1
        if self._failures > FAILURES_IN_A_ROW:
            self._pause_s = min(PAUSE_MAX_S, 2 * self._pause_s)
        if self._failures >= FAILURES_IN_A_ROW:
            self._probe_at_s = now_s + self._pause_s
