"""Rests: how long a backend asked to be left alone, by a 429 or a Retry-After (RFC 9110 10.2.3).

A rate limit may be that of one caller's key, so a rest is first that caller's alone. Where another
caller is told the same meanwhile, the backend rests for everybody.
"""

import re
from email.utils import parsedate_to_datetime

from tollway.backends.documents import header
from tollway.backends.types import Headers

REST_S = 1.0
"""Where a 429 or 529 does not say how long: what clients of language models wait at first."""

REST_MAX_S = 60.0
"""Windows of rate limits are mostly a minute; a longer wait is found out by asking once more."""

PUSHED_BACK = frozenset({429, 503, 529})
"""Statuses whose Retry-After is honoured; 529 is Anthropic's for an overload."""

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


class Rest:
    """When a backend may be asked again, and by whom."""

    # The mutable state is who rests until when, and until when everybody does.
    __slots__ = ("_all_s", "_caller", "_one_s", "until_s")

    def __init__(self) -> None:
        self._caller = ""
        self._one_s = 0.0
        self._all_s = 0.0
        self.until_s = 0.0  # from then on nobody rests

    def begin(self, now_s: float, seconds: float, caller: str) -> None:
        """Take note that a caller was told to wait."""
        until_s = now_s + seconds
        if now_s < self._one_s and caller != self._caller:
            self._all_s = max(self._all_s, until_s)
        self._caller, self._one_s = caller, until_s
        self.until_s = max(self._all_s, until_s)

    def left_s(self, now_s: float, caller: str) -> float:
        """Return for how long a caller has to wait; 0 where not at all (0.1 us)."""
        until_s = self._all_s
        if caller == self._caller and self._one_s > until_s:
            until_s = self._one_s
        return max(0.0, until_s - now_s)


def asked_for(status: int, headers: Headers, wall_s: float) -> float:
    """Return for how many seconds a reply asks to be left alone; 0 where it does not ask."""
    if status not in PUSHED_BACK:
        return 0.0
    seconds = _seconds(headers, wall_s)
    if seconds is None:
        return 0.0 if status == 503 else REST_S
    return min(REST_MAX_S, seconds) if seconds > 0 else REST_S


def _seconds(headers: Headers, wall_s: float) -> float | None:
    """Return for how long a reply asks; 0 where that cannot be read, None where it does not ask.

    In milliseconds by Azure's and OpenAI's `retry-after-ms`; some send fractions of seconds.
    """
    for name, unit_s in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        said = header(headers, name)
        if said is None:
            continue
        text = said.decode("latin-1").strip()
        if _NUMBER.fullmatch(text):
            return unit_s * float(text)
        if name == b"retry-after":
            try:
                return parsedate_to_datetime(text).timestamp() - wall_s
            except (ValueError, OverflowError):
                return 0.0
    return None
