"""The Date field (RFC 9110 6.6.1): made once a second, added where a reply has none."""

import time
from email.utils import formatdate


class DateHeader:
    """Makes the field's value."""

    # The mutable state is the second last asked for, and its text.
    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def now(self) -> bytes:
        """Return the current date in the form that HTTP wants."""
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True).encode()
        return self._text
