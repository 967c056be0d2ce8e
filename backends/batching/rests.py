"""Rests: what is not to be joined for a while, because batches with it failed."""

REST_S, REST_MAX_S = 1.0, 60.0
SUBJECTS_MAX = 1024  # beyond it, the one that was added first is forgotten


class Rests:
    """Subjects that rest: 1 s after the first failure, then twice as long each time."""

    # The mutable state is each subject's last rest: until when, and how long.

    def __init__(self) -> None:
        self._rests: dict[object, tuple[float, float]] = {}

    def has(self, subject: object, now_s: float) -> bool:
        """Whether a subject rests."""
        rest = self._rests.get(subject)
        return rest is not None and now_s < rest[0]

    def begin(self, subject: object, now_s: float) -> None:
        """Let a subject rest."""
        _, last_s = self._rests.pop(subject, (0.0, 0.0))
        rest_s = min(REST_MAX_S, max(REST_S, 2 * last_s))
        self._rests[subject] = (now_s + rest_s, rest_s)
        if len(self._rests) > SUBJECTS_MAX:
            del self._rests[next(iter(self._rests))]

    def end(self, subject: object) -> None:
        """Forget a subject, with which a batch succeeded."""
        if self._rests:
            self._rests.pop(subject, None)
