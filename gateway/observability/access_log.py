"""Logs: the format and destination of log lines, and optional request lines.

A JSON line is one object: time, level, logger, message, and the subject of the line (`decision`,
`trace_id`, ...) as further members. The request path writes no line unless `requests` enables it.
`told` lists the content of a request line: no body, no header field, no query. Writing a line never
blocks: see `log_writer.py`.
"""

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson

from tollway.backends.money import to_usd
from tollway.gateway.observability.log_writer import Background, Direct
from tollway.gateway.observability.request_trace import RequestTrace

REQUESTS = "tollway.requests"

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes of every record; all others were passed with `extra`."""


Put = Callable[[str], None]
"""Receives a line without its line break; must return at once."""


class Json(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        about = {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            about["exception"] = self.formatException(record.exc_info)
        level, message = record.levelname.lower(), record.getMessage()
        return json_line(record.created, level, record.name, message, about)


class Text(logging.Formatter):
    """Formats a record for people, followed by its subject."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, followed by the traceback if there is one."""
        about = {name: value for name, value in vars(record).items() if name not in _OWN}
        level, message = record.levelname.lower(), record.getMessage()
        line = text_line(record.created, level, record.name, message, about)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


Line = Callable[[float, str, str, str, dict[str, Any]], str]
"""(seconds since 1970, level, logger, message, subject) -> the line without its line break."""


def json_line(at_s: float, level: str, logger: str, message: str, about: dict[str, Any]) -> str:
    """Return a line as one JSON object."""
    line = {"time": _time(at_s), "level": level, "logger": logger, "message": message, **about}
    return orjson.dumps(line, default=str).decode()


def text_line(at_s: float, level: str, logger: str, message: str, about: dict[str, Any]) -> str:
    """Return a line for people."""
    told = [f"{name}={value}" for name, value in about.items() if value != ""]
    return " ".join([_time(at_s), f"{level.upper():7}", f"{logger}: {message}", *told])


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")


class Handler(logging.Handler):
    """Passes records on as lines."""

    def __init__(self, put: Put) -> None:
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on; a formatting error must not stop the caller."""
        try:
            self._put(self.format(record))
        except Exception:
            self.handleError(record)


def lost(form: str, count: int) -> str:
    """Return the line that reports how many lines were dropped before it."""
    line = json_line if form == "json" else text_line
    message = f"{count} log lines were dropped: they were not read as fast as they came"
    return line(time.time(), "warning", "tollway.logs", message, {})


def background(form: str) -> Background:
    """Return a writer that writes lines to stderr in a thread."""
    return Background(sys.stderr, note=partial(lost, form))


def write(form: str, level: str, put: Put | None = None) -> None:
    """Configure logging: write this process' log to stderr, through `put` or directly.

    `level` applies to Tollway's own lines. Libraries are limited to warnings: at lower levels, some
    log whole URLs, including queries.
    """
    handler = Handler(put or Direct(sys.stderr).put)
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("tollway").setLevel(level.upper())


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
        message = f"{trace.method} {trace.path} {trace.status or 'left'}"
        line = self._line(self._wall(), "info", REQUESTS, message, told(trace, now_s))
        self._put(line)


def told(trace: RequestTrace, now_s: float) -> dict[str, Any]:
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
