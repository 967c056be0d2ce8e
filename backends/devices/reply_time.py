"""Device time from a reply's own header fields, under the names that a server gives them.

A transport before a transport, bound where `device_time` names a field: it writes the seconds into
`x-device-seconds`, which all protocols read. A reply without the field, or whose value is no
number, is charged by the time that it took.
"""

import re
from collections.abc import Callable

from tollway.backends.documents import header
from tollway.backends.ports import Transport
from tollway.backends.types import Call, Headers, HttpReply
from tollway.backends.usage_headers import COUNT_MAX, DEVICE_SECONDS

SERVER_TIMING = b"server-timing"
_DURATION = re.compile(rb'(?i);\s*dur\s*=\s*"?([0-9.eE+-]+)')

Read = Callable[[Headers], float | None]
"""Returns the device seconds that header fields tell; None if they tell none."""


def from_field(name: bytes, unit_s: float) -> Read:
    """Return the reader of a field that holds a number."""
    return lambda headers: _seconds(header(headers, name), unit_s)


def from_server_timing(metric: bytes) -> Read:
    """Return the reader of one metric of `server-timing`, which is in milliseconds.

    See https://www.w3.org/TR/server-timing/. If several fields or entries have it, the first
    counts.
    """

    def read(headers: Headers) -> float | None:
        for name, value in headers:
            if name != SERVER_TIMING:
                continue
            for entry in value.split(b","):
                if entry.partition(b";")[0].strip() == metric:
                    duration = _DURATION.search(entry)
                    return _seconds(duration.group(1) if duration else None, 1e-3)
        return None

    return read


def _seconds(value: bytes | None, unit_s: float) -> float | None:
    try:
        seconds = float(value) * unit_s if value is not None else -1.0
    except ValueError:
        return None
    return seconds if 0.0 < seconds <= COUNT_MAX else None


class TimedTransport:
    """Adds `x-device-seconds` to the replies of another transport."""

    def __init__(self, inner: Transport, read: Read) -> None:
        self.inner = inner
        self._read = read

    async def send(self, call: Call, deadline_s: float) -> HttpReply:
        """Return the reply with its device time (see `Transport`)."""
        reply = await self.inner.send(call, deadline_s)
        seconds = self._read(reply.headers)
        if seconds is not None:
            headers = [pair for pair in reply.headers if pair[0] != DEVICE_SECONDS]
            reply.headers = [*headers, (DEVICE_SECONDS, repr(seconds).encode())]
        return reply

    async def aclose(self) -> None:
        """Close the other transport."""
        await self.inner.aclose()
