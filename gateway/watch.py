"""Watches requests pass: begins a passage for each, and tells those who follow when it is over."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from gateway.passage import Passage, parent, random_ids

Follower = Callable[[Passage, float], None]
"""Is told of a passage that is over, and when: seconds on the gateway's clock. Must not block."""


class Watch:
    """Begins and ends passages."""

    def __init__(
        self, followers: Sequence[Follower], *, traces: bool, share: float, rng: Random
    ) -> None:
        """`traces`: whether trace contexts are taken up and made; `share` of those that begin here
        are sampled, and of others those that their caller samples."""
        self._followers = tuple(followers)
        self._traces = traces
        self._share = share
        self._rng = rng
        self._new_id = random_ids(rng)

    def begin(self, scope: dict[str, Any], now_s: float) -> Passage:
        """Return the passage of a request that has arrived (5 us with traces)."""
        raw: bytes = scope["raw_path"]
        passage = Passage(now_s, scope["method"], raw.decode("latin-1"))
        if self._traces:
            passage.new_id = self._new_id
            passage.span_id = self._new_id()
            came = parent(scope["headers"])
            if came is None:
                passage.trace_id = self._rng.getrandbits(128) or 1
                passage.sampled = self._rng.random() < self._share
            else:
                passage.trace_id, passage.parent_id, passage.sampled = came
        return passage

    def end(self, passage: Passage, now_s: float) -> None:
        """Tell all who follow."""
        for follower in self._followers:
            follower(passage, now_s)
        # The turn's request has the passage: without this every turn would wait for the garbage
        # collector, which costs more than watching does.
        passage.turn = None
