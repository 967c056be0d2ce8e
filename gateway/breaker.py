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
suspicion: it counts once another caller has failed too, with no success in between. A caller whose
own calls alone fail, SOLE_FAILURES in a row, is rested by itself; everybody else is let through, as
the trial that decides.

The last calls are bits of one integer, a failure a 1, so that the share of failures is a
count of bits.
"""

FAILURES_IN_A_ROW = 5  # Envoy's default for consecutive gateway errors
WINDOW = 50  # calls: enough that chance alone does not make a backend with 20 % failures seem dead
FAILURES_IN_WINDOW = 25  # half: the default of Resilience4j
SOLE_FAILURES = 25
"""In a row, of one caller: as many as open it by themselves in a window. Where a gateway has one
caller only, nobody else can make the trial."""
PAUSE_S = 1.0
PAUSE_MAX_S = 30.0
_MASK = (1 << WINDOW) - 1

STATES = ("closed", "open", "half_open")


class Breaker:
    """Says whether a backend may be called."""

    # The mutable state of a breaker is its run of failures, its last calls, whether it is open, its
    # pause, when it may probe, and whether a probe is under way; and of suspicions: their run, the
    # caller of the last, whether several callers had one, and how long their only caller rests.
    __slots__ = (
        "_failures",
        "_last",
        "_pause_s",
        "_probe_at_s",
        "_probing",
        "_rested_until_s",
        "_several",
        "_suspect",
        "_suspicions",
        "is_open",
    )

    def __init__(self) -> None:
        self._failures = 0
        self._last = 0
        self._pause_s = PAUSE_S
        self._probe_at_s = 0.0
        self._probing = False
        self._suspicions = 0
        self._suspect = ""
        self._several = False
        self._rested_until_s = 0.0
        self.is_open = False  # whether the backend is held to be down

    def state(self, now_s: float) -> str:
        """Return which of STATES it is in."""
        if not self.is_open:
            return "closed"
        return "half_open" if now_s >= self._probe_at_s else "open"

    def allows(self, now_s: float, caller: str = "") -> bool:
        """Say whether a caller's call may be made now; claims nothing (see `probe`)."""
        if self.is_open:
            return now_s >= self._probe_at_s
        return now_s >= self._rested_until_s or caller != self._suspect

    def probe(self, now_s: float, caller: str = "") -> None:
        """Take note that a call is made: in the half-open state it is the only one for a pause."""
        if self.is_open:
            self._probing = True
            self._probe_at_s = now_s + self._pause_s
        elif self._rested_until_s and caller == self._suspect:
            self._rested_until_s = now_s + self._pause_s

    def succeeded(self) -> None:
        """Close (0.1 us)."""
        self._failures = 0
        if self._suspicions:
            self._suspicions, self._several, self._rested_until_s = 0, False, 0.0
            self._pause_s = PAUSE_S
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
        elif self._run < FAILURES_IN_A_ROW and self._last.bit_count() < FAILURES_IN_WINDOW:
            return
        self.is_open = True
        self._probe_at_s = now_s + self._pause_s

    def suspected(self, now_s: float, caller: str) -> None:
        """Count a failure that the request may have caused; of a second caller it is one."""
        trial = bool(self._suspicions) and caller != self._suspect
        self._suspicions += 1
        self._suspect = caller
        self._several = self._several or trial
        if trial:
            self._rested_until_s = 0.0
            self._suspicions -= 1  # counted as a failure instead
            self.failed(now_s)
        elif self.is_open:
            self._probing = False  # the same caller's request again says nothing new
        elif self._several:
            if self._run >= FAILURES_IN_A_ROW:
                self.is_open = True
                self._probe_at_s = now_s + self._pause_s
        elif self._suspicions >= SOLE_FAILURES:
            if self._rested_until_s:
                self._pause_s = min(PAUSE_MAX_S, 2 * self._pause_s)
            self._rested_until_s = now_s + self._pause_s

    @property
    def _run(self) -> int:
        """How many calls in a row have failed, with suspicions where several callers had them."""
        return self._failures + (self._suspicions if self._several else 0)
