"""The highest number of concurrent calls that a backend served well recently."""

SPAN_S = 60.0  # a minute: long enough not to be chance, short enough to be still valid
PARTS = 6  # a sixth of it is forgotten at a time


class Served:
    """A maximum over the last minute, in parts of ten seconds (0.2 us a call)."""

    # The mutable state: the maximum of each part, newest last, and when the newest began.

    def __init__(self) -> None:
        self._parts = [0] * PARTS
        self._since_s = 0.0
        self.most = 0

    def note(self, now_s: float, busy: int) -> None:
        """Record that a call was served well among `busy` concurrent calls, including it."""
        self.pass_on(now_s)
        if busy > self._parts[-1]:
            self._parts[-1] = busy
            self.most = max(self.most, busy)

    def pass_on(self, now_s: float) -> None:
        """Drop what is older than a minute."""
        passed = int((now_s - self._since_s) / (SPAN_S / PARTS))
        if passed <= 0:
            return
        rest = self._parts[min(passed, PARTS) :]
        self._parts = rest + [0] * (PARTS - len(rest))
        self._since_s += passed * (SPAN_S / PARTS)
        self.most = max(self._parts)
