"""Sinks: what is recorded and learned of each request, at two moments.

    answered   there is a reply, or certainly none; a stream has begun
    ended      its final cost is known: at once, or when its stream has ended

The order of sinks is the order in which they are added. Control loops read the state that sinks
keep for them, never the metrics.
"""

from collections.abc import Callable

from tollway.gateway.routing.request_state import RequestState

Sink = Callable[[RequestState, float], None]
"""Receives a request and the time, on the clock of the deadlines. Must not block or raise."""


class Sinks:
    """All sinks of a gateway."""

    # The mutable state is the lists, which wiring fills.

    def __init__(self) -> None:
        self.at_answer: list[Sink] = []
        self._repeated: list[Sink] = []
        self.at_end: list[Sink] = []

    def add(
        self,
        *,
        answered: Sink | None = None,
        ended: Sink | None = None,
        repeated: Sink | None = None,
    ) -> None:
        """Add a sink for one moment or both.

        `repeated`: does what `answered` does, for a request that repeats a draw of a kept answer.
        """
        if answered is not None:
            self.at_answer.append(answered)
            self._repeated.append(repeated or answered)
        if ended is not None:
            self.at_end.append(ended)

    def answered(self, state: RequestState, now_s: float) -> None:
        """Tell all sinks that the reply to a request is known."""
        for sink in self.at_answer:
            sink(state, now_s)

    def repeated(self, state: RequestState, now_s: float) -> None:
        """Tell all sinks that a request repeats a draw of a kept answer, and is answered."""
        for sink in self._repeated:
            sink(state, now_s)

    def ended(self, state: RequestState, now_s: float) -> None:
        """Tell all sinks that the cost of a request is known."""
        for sink in self.at_end:
            sink(state, now_s)
