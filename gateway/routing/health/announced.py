"""Announced limits: what a backend's replies say is left of its rate limits.

Providers send, with every reply, how many requests and tokens are left and when there are more:
`x-ratelimit-remaining-requests` (OpenAI, Azure, Groq, ...), `anthropic-ratelimit-tokens-remaining`,
`ratelimit-remaining` (an IETF draft). A backend with nothing left is not offered while others are,
so that it is left out before it refuses.

The fields are hints. They are as old as the call, so the calls that began since are subtracted.
Most limits fill up steadily and `reset` is when they are full, so the wait is the share of it that
one more call needs. A wait is at most WAIT_MAX_S, a backend is never left out if there is no other,
and if calls keep succeeding that the fields excluded, the fields are ignored for a while.
"""

import re
import time
from collections.abc import Callable
from datetime import datetime

from tollway.backends.types import Headers, HttpReply, Usage
from tollway.record import record

WAIT_MAX_S = 10.0  # a wrong field costs no more; a right one is renewed by the next reply
WAIT_MIN_S = 0.05
WAIT_S = 1.0  # if no field says when
CONTRADICTIONS_MAX = 3
IGNORED_S = 60.0
IGNORED_MAX_S = 600.0

MARK = b"ratelimit"
"""A part of the name of each of these fields."""
_FIELD = re.compile(
    rb"(?:x-|anthropic-)?ratelimit-(?:(limit|remaining|reset)(?:-(.+))?|(.+)-(limit|remaining|reset))"
)
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?")
_PARTS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@record
class Room:
    """What is left of one limit: requests or tokens, of how many, and the seconds until it is full.

    `limit` and `reset_s` are None if the reply does not tell them.
    """

    name: str
    remaining: float
    limit: float | None
    reset_s: float | None

    def wait_s(self, need: float) -> float:
        """Return how long until `need` is there; 0 if it is."""
        if self.limit is not None:
            need = min(need, self.limit)
        if self.remaining >= need:
            return 0.0
        if self.reset_s is None:
            return WAIT_S
        if self.limit is None or self.limit <= self.remaining:
            return self.reset_s
        return self.reset_s * (need - self.remaining) / (self.limit - self.remaining)


class Announced:
    """What is left of one backend's limits, as its last reply said."""

    # The mutable state: calls begun, how many more may begin and until when that holds, until when
    # the backend is left out, and how often the fields were contradicted.
    __slots__ = ("_contradictions", "_empty_at", "_full_s", "_ignored_s", "_left", "_left_until_s",
                 "_wall", "avoided", "begun", "until_s")  # fmt: skip

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """`wall` returns Unix time, in which some providers say when a limit is full."""
        self._wall = wall
        self.begun = 0
        self.until_s = 0.0
        self.avoided = 0
        """Requests to which the backend was not offered because nothing was left."""
        self._left = 0
        self._left_until_s = 0.0
        self._empty_at = -1
        self._full_s = 0.0
        self._ignored_s = 0.0
        self._contradictions = 0

    def begin(self, now_s: float) -> int:
        """Count a call; return its number for `heard`."""
        self.begun += 1
        if now_s < self._left_until_s:
            self._left -= 1
            if self._left <= 0 and now_s >= self._ignored_s:
                self.until_s = self._left_until_s
        return self.begun

    def heard(self, number: int, reply: HttpReply, expected: Usage, now_s: float) -> None:
        """Note what the reply to a call says is left; `expected`: what such a call uses."""
        if reply.status == 429:
            self._contradictions = 0
            self._ignored_s = 0.0
        rooms = read(reply.headers, self._wall())
        if not rooms:
            return
        tokens = expected.input_tokens + expected.output_tokens
        needs = [(room, tokens if "token" in room.name else 1.0) for room in rooms]
        wait_s = max([room.wait_s(need) for room, need in needs])
        if wait_s > 0.0:
            self._empty(number, reply.status, wait_s, now_s)
            return
        calls = [(room.remaining / max(need, 1.0), room.reset_s or WAIT_S) for room, need in needs]
        left, reset_s = min(calls)
        self._left = int(min(left, 1e9)) - (self.begun - number)
        self._left_until_s = now_s + _bounded(reset_s)
        self._contradictions = 0
        self.until_s = self._left_until_s if self._left <= 0 and now_s >= self._ignored_s else 0.0

    def _empty(self, number: int, status: int, wait_s: float, now_s: float) -> None:
        """Note that nothing is left."""
        if status < 400 and self._empty_at >= 0 and number > self._empty_at:
            # It began after a reply that said so, and yet succeeded.
            self._contradictions += now_s < self._full_s
        if self._contradictions >= CONTRADICTIONS_MAX:
            excess = min(self._contradictions - CONTRADICTIONS_MAX, 8)
            self._ignored_s = now_s + min(IGNORED_MAX_S, IGNORED_S * 2.0**excess)
        self._empty_at = self.begun
        self._full_s = now_s + wait_s
        self.until_s = 0.0 if now_s < self._ignored_s else now_s + _bounded(wait_s)


def read(headers: Headers, wall_s: float) -> list[Room]:
    """Return the limits that the fields of a reply describe; what cannot be read is left out."""
    found: dict[str, dict[bytes, str]] = {}
    for field, value in headers:
        if MARK in field and (match := _FIELD.fullmatch(field)):
            name = (match[2] or match[3] or b"").decode("latin-1")
            found.setdefault(name, {})[match[1] or match[4]] = value.decode("latin-1").strip()
    rooms = []
    for name, texts in found.items():
        remaining = _number(texts.get(b"remaining"))
        if remaining is not None and remaining >= 0:
            reset_s = _reset_s(texts.get(b"reset"), wall_s)
            rooms.append(Room(name, remaining, _number(texts.get(b"limit")), reset_s))
    return rooms


def _bounded(wait_s: float) -> float:
    return min(WAIT_MAX_S, max(WAIT_MIN_S, wait_s))


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


def _reset_s(text: str | None, wall_s: float) -> float | None:
    """Return the seconds until a limit is full: given as such, as a duration or as a time."""
    if text is None:
        return None
    number = _number(text)
    if number is not None:
        if number > 1e11:  # a time in milliseconds, as OpenRouter sends
            return max(0.0, number / 1000 - wall_s)
        return max(0.0, number - wall_s) if number > 1e9 else max(0.0, number)
    if _DURATION.fullmatch(text):
        return sum(float(count) * _UNITS[unit] for count, unit in _PARTS.findall(text))
    try:
        full = datetime.fromisoformat(text)
        return max(0.0, full.timestamp() - wall_s) if full.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
