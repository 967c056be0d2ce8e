"""The Date header (RFC 9110 6.6.1): formatted once a second, added if a reply has none."""

import time
from email.utils import formatdate


class DateHeader:
    """Formats the header's value."""

    # The mutable state is the latest second formatted, and its text.
    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def now(self) -> bytes:
        """Return the current date in HTTP format."""
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True).encode()
        return self._text
