"""The most calls at once that a backend served well lately."""

SPAN_S = 60.0  # a minute: what held for that long is no accident, what is older may hold no more
PARTS = 6  # what is forgotten at once is a sixth of it


class Served:
    """A maximum over the last minute, in parts of ten seconds (0.2 us a call)."""

    # The mutable state: the maximum of each part, newest last, and when the newest began.

    def __init__(self) -> None:
        self._parts = [0] * PARTS
        self._since_s = 0.0
        self.most = 0

    def note(self, now_s: float, busy: int) -> None:
        """Note that a call was served well while there were `busy`, it included."""
        self.pass_on(now_s)
        if busy > self._parts[-1]:
            self._parts[-1] = busy
            self.most = max(self.most, busy)

    def pass_on(self, now_s: float) -> None:
        """Forget what is older than a minute."""
        passed = int((now_s - self._since_s) / (SPAN_S / PARTS))
        if passed <= 0:
            return
        kept = self._parts[min(passed, PARTS) :]
        self._parts = kept + [0] * (PARTS - len(kept))
        self._since_s += passed * (SPAN_S / PARTS)
        self.most = max(self._parts)
