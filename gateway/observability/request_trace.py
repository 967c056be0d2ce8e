"""The trace of one request through the gateway, for tracing and the request log.

If there are no observers, no trace is created and nothing here costs anything. Otherwise it is
created when a request arrives, travels with it, and is passed to the observers when the reply is
written. The trace context is W3C's (https://www.w3.org/TR/trace-context-1/): a caller's context is
continued, and each call to a backend gets its own span id. `tracestate` is forwarded unchanged.
Billing does not depend on it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from tollway.backends.types import Headers

if TYPE_CHECKING:
    from tollway.gateway.routing.request_state import RequestState

TRACEPARENT = b"traceparent"
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


@dataclass(slots=True)
class RequestTrace:
    """The data about a request that is not in its request state.

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
    state: "RequestState | None" = None
    calls: list[int] = field(default_factory=list)
    new_id: Callable[[], int] = field(default=lambda: 0, repr=False)

    def onto(self, headers: Headers) -> Headers:
        """Return a call's header fields with its own trace context (2 us)."""
        if not self.trace_id:
            return headers
        span_id = self.new_id()
        self.calls.append(span_id)
        kept = [(name, value) for name, value in headers if name != TRACEPARENT]
        told = b"00-%032x-%016x-%02x" % (self.trace_id, span_id, self.sampled)
        kept.append((TRACEPARENT, told))
        return kept

    @property
    def exemplar(self) -> dict[str, str] | None:
        """The exemplar that links a metric to this trace; None if the trace is not kept."""
        if not self.sampled:
            return None
        return {"trace_id": f"{self.trace_id:032x}", "span_id": f"{self.span_id:016x}"}


def parent(headers: Headers) -> tuple[int, int, bool] | None:
    """Return a caller's (trace id, span id, whether it is sampled); None if it sent none.

    An invalid or repeated field counts as none, as the standard requires.
    """
    found = [value for name, value in headers if name == TRACEPARENT]
    match = _PARENT.fullmatch(found[0]) if len(found) == 1 else None
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5]):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not span_id:
        return None
    return trace_id, span_id, bool(int(match[4], 16) & _SAMPLED)


def random_ids(rng: Random) -> Callable[[], int]:
    """Return a generator function for span ids: 64 bits, never 0."""
    return lambda: rng.getrandbits(64) or 1
