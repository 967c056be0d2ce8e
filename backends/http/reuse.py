"""Decides whether connections are reused: as configured, or learned from how the server closes
them.

Some servers close a connection after a reply without announcing it (llama-server after each
stream). A call sent on it meanwhile is lost, and may have to be paid for. There are two signs: an
idle connection that is closed within SOON_S of its reply, which costs nothing, and a call on a
reused connection that turned out to be closed. From then on connections are not reused after such a
reply (chunked, or of known length) for a pause that doubles while it keeps happening.
"""

SOON_S = 1.0  # servers that keep connections do so for 2 s (gunicorn) to 75 s (nginx)
PAUSE_S = 300.0  # a new connection costs some 0.2 ms, a lost call a whole call
PAUSE_MAX_S = 3600.0


class Reuse:
    """What is known of one address."""

    # The mutable state, by whether the reply was chunked: until when not to reuse, for how long.
    def __init__(self, keep_alive: bool | None = None) -> None:
        """`keep_alive`: whether connections are reused; None: learned."""
        self._fixed = keep_alive
        self._until_s = {True: 0.0, False: 0.0}
        self._pause_s = {True: PAUSE_S, False: PAUSE_S}

    def allows(self, chunked: bool, now_s: float) -> bool:
        """Whether a connection may be reused after a reply (0.1 us)."""
        return now_s >= self._until_s[chunked] if self._fixed is None else self._fixed

    def adopt(self, old: "Reuse") -> None:
        """Share what was learned of the same address before its settings changed."""
        self._until_s, self._pause_s = old._until_s, old._pause_s

    def closed(self, chunked: bool, now_s: float) -> None:
        """Learn that the server closed a connection after a reply without announcing it."""
        if now_s < self._until_s[chunked]:
            return  # a connection that was kept before this was known
        if now_s > self._until_s[chunked] + self._pause_s[chunked]:
            self._pause_s[chunked] = PAUSE_S  # it has kept connections for long since
        self._until_s[chunked] = now_s + self._pause_s[chunked]
        self._pause_s[chunked] = min(PAUSE_MAX_S, 2 * self._pause_s[chunked])
