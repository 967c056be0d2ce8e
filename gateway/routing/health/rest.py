"""Rests: pauses that a backend asked for by a 429 or a Retry-After (RFC 9110 10.2.3).

A rate limit may belong to one caller's key, so a rest applies at first to that caller alone. If
another caller gets the same reply meanwhile, the backend rests for everybody.
"""

import re
from email.utils import parsedate_to_datetime

from tollway.backends.documents import header
from tollway.backends.types import Headers

REST_S = 1.0
"""The rest if a 429 or 529 gives no duration: the first wait of clients of language models."""

REST_MAX_S = 60.0
"""Rate-limit windows are mostly one minute; a longer one shows at the next call to the backend."""

PUSHED_BACK = frozenset({429, 503, 529})
"""Statuses whose Retry-After is honoured; 529 is Anthropic's for an overload."""

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


class Rest:
    """When a backend may be called again, and by which callers."""

    # The mutable state is the resting caller, and the ends of its own rest and of the common one.
    __slots__ = ("_all_s", "_caller", "_one_s", "until_s")

    def __init__(self) -> None:
        self._caller = ""
        self._one_s = 0.0
        self._all_s = 0.0
        self.until_s = 0.0  # the end of all rests

    def begin(self, now_s: float, seconds: float, caller: str) -> None:
        """Record that a caller was asked to wait."""
        until_s = now_s + seconds
        if now_s < self._one_s and caller != self._caller:
            self._all_s = max(self._all_s, until_s)
        self._caller, self._one_s = caller, until_s
        self.until_s = max(self._all_s, until_s)

    def hold(self, now_s: float, seconds: float) -> None:
        """Let the backend rest for everybody, for a reason of our own."""
        self._all_s = max(self._all_s, now_s + seconds)
        self.until_s = max(self._one_s, self._all_s)

    def left_s(self, now_s: float, caller: str) -> float:
        """Return how long a caller has to wait; 0 if it need not (0.1 us)."""
        until_s = self._all_s
        if caller == self._caller and self._one_s > until_s:
            until_s = self._one_s
        return max(0.0, until_s - now_s)


def asked_for(status: int, headers: Headers, wall_s: float) -> float:
    """Return the pause that a reply asks for, in seconds; 0 if it asks for none."""
    if status not in PUSHED_BACK:
        return 0.0
    seconds = _seconds(headers, wall_s)
    if seconds is None:
        return 0.0 if status == 503 else REST_S
    return min(REST_MAX_S, seconds) if seconds > 0 else REST_S


def _seconds(headers: Headers, wall_s: float) -> float | None:
    """Return the requested pause; 0 if it cannot be parsed, None if there is none.

    Azure and OpenAI send milliseconds in `retry-after-ms`; some servers send fractions of seconds.
    """
    for name, unit_s in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        value = header(headers, name)
        if value is None:
            continue
        text = value.decode("latin-1").strip()
        if _NUMBER.fullmatch(text):
            return unit_s * float(text)
        if name == b"retry-after":
            try:
                return parsedate_to_datetime(text).timestamp() - wall_s
            except (ValueError, OverflowError):
                return 0.0
    return None
