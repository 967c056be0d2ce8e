"""The trace of one request through the gateway, for tracing and the request log.

If there are no observers, no trace is created and nothing here costs anything. Otherwise it is
created when a request arrives, travels with it, and is passed to the observers when the reply is
written. The trace context is W3C's (https://www.w3.org/TR/trace-context-1/): a caller's context is
continued, and each call to a backend gets its own span id. `tracestate` is forwarded unchanged.
Billing does not depend on it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tollway.backends.types import Headers
from tollway.gateway.routing.request_state import RequestState

TRACEPARENT = b"traceparent"
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


@dataclass(slots=True)
class RequestTrace:
    """The part of a request's data that is not in its request state.

    `calls` are the span ids of the request's attempts, in order. `path` has no query, since that
    may contain secrets. Without tracing the ids are 0. `parent_id` 0: the trace begins here.
    """

    received_s: float
    method: str
    path: str
    trace_id: int = 0
    span_id: int = 0
    parent_id: int = 0
    sampled: bool = False
    route: str = ""
    status: int = 0
    reason: str = ""
    state: RequestState | None = None
    calls: list[int] = field(default_factory=list)
    new_id: Callable[[], int] = field(default=lambda: 0, repr=False)

    def onto(self, headers: Headers) -> Headers:
        """Return a call's header fields with its own trace context (2 us)."""
        if not self.trace_id:
            return headers
        span_id = self.new_id()
        self.calls.append(span_id)
        fields = [(name, value) for name, value in headers if name != TRACEPARENT]
        traceparent = b"00-%032x-%016x-%02x" % (self.trace_id, span_id, self.sampled)
        fields.append((TRACEPARENT, traceparent))
        return fields

    @property
    def exemplar(self) -> dict[str, str] | None:
        """The exemplar that links a metric to this trace; None if the trace is not kept."""
        if not self.sampled:
            return None
        return {"trace_id": f"{self.trace_id:032x}", "span_id": f"{self.span_id:016x}"}


Follower = Callable[[RequestTrace, float], None]
"""Receives a finished trace and its end, in seconds on the gateway's clock. Must not block."""


class TraceRecorder:
    """Starts and finishes request traces."""

    def __init__(
        self, followers: Sequence[Follower], *, traces: bool, share: float, rng: Random
    ) -> None:
        """`traces`: whether requests get a trace context.

        A trace that begins here is sampled with probability `share`; a caller's trace is sampled
        if the caller samples it.
        """
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


def parent(headers: Headers) -> tuple[int, int, bool] | None:
    """Return a caller's (trace id, span id, whether it is sampled); None if it sent none.

    An invalid or repeated field counts as none, as the standard requires.
    """
    values = [value for name, value in headers if name == TRACEPARENT]
    match = _PARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5]):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not span_id:
        return None
    return trace_id, span_id, bool(int(match[4], 16) & _SAMPLED)


def random_ids(rng: Random) -> Callable[[], int]:
    """Return a generator function for span ids: 64 bits, never 0."""
    return lambda: rng.getrandbits(64) or 1
