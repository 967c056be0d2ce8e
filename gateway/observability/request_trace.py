"""A passage: one request's way through the gateway, for those who watch: traces, request log.

Where nobody watches there is none, and nothing here costs anything. Else it is made when a request
arrives, goes with it, and is handed over when its reply is written. Its trace context is W3C's
(https://www.w3.org/TR/trace-context-1/): a caller's is taken up, and each call to a backend gets
one of its own. `tracestate` passes through as it came. Nothing of money rests on it.
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
    """What is known of a request besides its turn.

    `calls` are the span ids of the turn's attempts, in their order. `path` has no query: that may
    hold secrets. Where nothing is traced the ids are 0. `parent_id` 0: the trace begins here.
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
        """Return a call's fields with a trace context of its own (2 us)."""
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
        """What links a figure to this trace; None where it is not kept."""
        if not self.sampled:
            return None
        return {"trace_id": f"{self.trace_id:032x}", "span_id": f"{self.span_id:016x}"}


def parent(headers: Headers) -> tuple[int, int, bool] | None:
    """Return a caller's (trace id, span id, whether it is sampled); None where it sent none.

    What cannot be read, or stands twice, is none, as the standard has it.
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
    """Return what draws span ids: 64 bits, never 0."""
    return lambda: rng.getrandbits(64) or 1
