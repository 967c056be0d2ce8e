"""Rests: how long a backend asked to be left alone, by a 429 or a Retry-After (RFC 9110 10.2.3).

A rate limit may be that of one caller's key, so a rest is first that caller's alone. Where another
caller is told the same meanwhile, the backend rests for everybody.
"""

from email.utils import parsedate_to_datetime

from backends.documents import header
from backends.types import Headers

REST_S = 1.0
"""Where a 429 does not say how long: what clients of language models wait at first."""

REST_MAX_S = 60.0
"""Windows of rate limits are mostly a minute; a longer wait is found out by asking once more."""

PUSHED_BACK = frozenset({429, 503, 529})
"""Statuses whose Retry-After is honoured; 529 is Anthropic's for an overload."""


class Rest:
    """When a backend may be asked again, and by whom."""

    # The mutable state is who rests until when, and until when everybody does.
    __slots__ = ("_all_s", "_caller", "_one_s")

    def __init__(self) -> None:
        self._caller = ""
        self._one_s = 0.0
        self._all_s = 0.0

    def begin(self, now_s: float, seconds: float, caller: str) -> None:
        """Take note that a caller was told to wait."""
        until_s = now_s + seconds
        if now_s < self._one_s and caller != self._caller:
            self._all_s = max(self._all_s, until_s)
        self._caller, self._one_s = caller, until_s

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
    said = header(headers, b"retry-after")
    if said is None:
        return REST_S if status == 429 else 0.0
    text = said.decode("latin-1").strip()
    try:
        seconds = float(text) if text.isdigit() else _until(text) - wall_s
    except (ValueError, OverflowError):
        seconds = REST_S
    return min(REST_MAX_S, seconds) if seconds > 0 else REST_S


def _until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp()
