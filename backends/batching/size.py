"""The size of batches: as large as the latency target allows.

Theory of operation. The time of a batch rises with its size, and so does what a device does in a
second. The size grows while batches are in time and shrinks by a tenth when one is late: AIMD, as
in Clipper (Crankshaw et al. 2017, 4.3). Clipper adds a constant, so that about every other batch is
late once the limit is found. Here

    at first          each full batch in time adds 1
    after the first   each full batch in time adds LATE / (1 - LATE) of what a late one takes
    late one

so that the size rests where one batch in two hundred is late. Where one in a hundred is, the 99th
percentile is at the target on average, and so above it half of the time: what a server does now and
then for other reasons, such as collecting garbage, is late too. Only batches of at least half the
size say anything about it. Pure: no clock.
"""

LATE = 0.005
BACKOFF = 0.1


class BatchSize:
    """The size of one backend's batches, in rows."""

    # The mutable state: the size, and whether a batch has been late.

    def __init__(self, most: int, target_s: float | None) -> None:
        """At most `most` rows; `target_s`: how long a batch may take; None: any time."""
        self._most = most
        self._target_s = target_s
        self._size = float(most) if target_s is None else 1.0
        self._found = False

    @property
    def rows(self) -> int:
        """Current maximum of rows in a batch."""
        return int(self._size)

    def observe(self, rows: int, latency_s: float) -> None:
        """Record how long a batch of `rows` took at the server."""
        if self._target_s is None or 2 * rows < self.rows:
            return
        if latency_s > self._target_s:
            self._found = True
            self._size = max(1.0, self._size * (1.0 - BACKOFF))
        elif rows >= self.rows:
            step = BACKOFF * self._size * LATE / (1.0 - LATE) if self._found else 1.0
            self._size = min(float(self._most), self._size + step)
