"""What every reply carries: a Date (RFC 9110 6.6.1) and, at shutdown, `connection: close`.

The date is formatted once a second and added if a backend's reply has none.
"""

import time
from email.utils import formatdate
from typing import Any

from tollway.backends.types import Headers
from tollway.gateway.data_plane.asgi import Send

CLOSE = (b"connection", b"close")


class ReplyStamp:
    """Adds these fields."""

    # The mutable state is the latest second formatted, its field, and whether to close connections.
    __slots__ = ("_date", "_second", "leaving")

    def __init__(self) -> None:
        self._second = -1
        self._date = (b"date", b"")
        self.leaving = False

    def onto(self, send: Send) -> Send:
        """Return a `send` that adds the fields to a reply's head."""

        def stamped(message: dict[str, Any]) -> Any:
            if message["type"] == "http.response.start":
                message["headers"] = self.stamped(message["headers"])
            return send(message)

        return stamped

    def stamped(self, headers: Headers) -> Headers:
        """Return a reply's fields with these added."""
        for name, _ in headers:
            if name == b"date":
                break
        else:
            headers = [*headers, self.date()]
        return [*headers, CLOSE] if self.leaving else headers

    def date(self) -> tuple[bytes, bytes]:
        """Return the field with the date."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date = (b"date", formatdate(second, usegmt=True).encode())
        return self._date
