"""Starts a trace for each request, and passes it to the observers when the request is over."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tollway.gateway.observability.request_trace import RequestTrace, parent, random_ids

Follower = Callable[[RequestTrace, float], None]
"""Receives a finished trace and its end, in seconds on the gateway's clock. Must not block."""


class TraceRecorder:
    """Starts and finishes request traces."""

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

    def begin(self, scope: dict[str, Any], now_s: float) -> RequestTrace:
        """Return the trace of a request that has arrived (5 us with tracing)."""
        raw: bytes = scope["raw_path"]
        trace = RequestTrace(now_s, scope["method"], raw.decode("latin-1"))
        if self._traces:
            trace.new_id = self._new_id
            trace.span_id = self._new_id()
            came = parent(scope["headers"])
            if came is None:
                trace.trace_id = self._rng.getrandbits(128) or 1
                trace.sampled = self._rng.random() < self._share
            else:
                trace.trace_id, trace.parent_id, trace.sampled = came
        return trace

    def end(self, trace: RequestTrace, now_s: float) -> None:
        """Pass the trace to all observers."""
        for follower in self._followers:
            follower(trace, now_s)
        # The request refers to the trace: without this, every request would be freed only by the
        # garbage collector, which costs more than tracing does.
        trace.state = None
