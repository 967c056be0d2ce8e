"""The format of log lines, and where a process writes them.

A JSON line is one object: time, level, logger, message, and the subject of the line (`decision`,
`trace_id`, ...) as further members. Writing a line never blocks (see `log_writer.py`).
"""

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson

from tollway.gateway.observability.log_writer import Background, Direct

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
    fields = [f"{name}={value}" for name, value in about.items() if value != ""]
    return " ".join([_time(at_s), f"{level.upper():7}", f"{logger}: {message}", *fields])


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
    message = f"{count} log lines were dropped because their reader was too slow"
    return line(time.time(), "warning", __name__, message, {})


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
