"""The access log: an optional line for each request.

The request path writes no line unless `requests` enables it. A line contains no body, header field
or query (see `fields`).
"""

from collections.abc import Callable
from typing import Any

from tollway.backends.money import to_usd
from tollway.gateway.observability.log_format import Line, Put, json_line, text_line
from tollway.gateway.observability.request_trace import RequestTrace

REQUESTS = "tollway.requests"


class RequestLog:
    """Writes a line for each request, or for each failed one.

    It formats lines itself: through the logging module a line costs twice as much.
    """

    def __init__(
        self, form: str, *, failed_only: bool, put: Put, wall: Callable[[], float]
    ) -> None:
        self._line: Line = json_line if form == "json" else text_line
        self._failed_only = failed_only
        self._put = put
        self._wall = wall

    def __call__(self, trace: RequestTrace, now_s: float) -> None:
        """Write the line of a request trace."""
        if self._failed_only and 0 < trace.status < 400:
            return
        message = f"{trace.method} {trace.path} {trace.status or 'client disconnected'}"
        line = self._line(self._wall(), "info", REQUESTS, message, fields(trace, now_s))
        self._put(line)


def fields(trace: RequestTrace, now_s: float) -> dict[str, Any]:
    """Return the content of a request line."""
    state = trace.state
    line: dict[str, Any] = {
        "route": trace.route,
        "status": trace.status,
        "duration_s": round(now_s - trace.received_s, 6),
        "reason": trace.reason,
    }
    if trace.trace_id:
        line |= {"trace_id": f"{trace.trace_id:032x}", "span_id": f"{trace.span_id:016x}"}
    if state is not None:
        line |= {
            "decision": state.id,
            "tenant": state.inference.tenant,
            "backend": state.held.backend if state.held else "",
            "reason": state.reason or trace.reason,
            "outcome": state.outcome,
            "attempts": len(state.attempts),
            "cost_nano": state.cost_nano,
            "cost_usd": to_usd(state.cost_nano),
        }
    return line
