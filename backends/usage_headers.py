"""Usage that a reply reports itself, outside any protocol that has a place for it.

A backend may report how long the call used its device: in the header field `x-device-seconds`, or
in the document, as `device_s` among the parameters (Open Inference Protocol) or in a `usage` member
(JSON). A `usage` member may have any unit of `tollway.backends.units`. Reported usage counts as
exact.
"""

import math
from typing import Any

from tollway.backends.documents import header, shown
from tollway.backends.types import Details, Headers, Usage
from tollway.backends.units import MORE_NAMES

DEVICE_SECONDS = b"x-device-seconds"

COUNT_MAX = 1e15
"""Tokens or seconds that no call reaches; sums of smaller counts stay finite in learning."""

COUNT_CHARS_MAX = 32  # more than any number of COUNT_MAX has

_MEMBERS = ("device_s", "input_tokens", "cached_input_tokens", "output_tokens")
OWN = frozenset((*_MEMBERS, *MORE_NAMES))
"""The names that our own `usage` member may have."""


def from_headers(headers: Headers) -> Usage | None:
    """Return the usage that header fields report; None if they report none.

    Raises ValueError as `device_seconds` does.
    """
    device_s = device_seconds(headers)
    return None if device_s is None else Usage(device_s=device_s)


def device_seconds(headers: Headers) -> float | None:
    """Return the device seconds that header fields report; None if they report none.

    Raises ValueError if a field holds no number; the price refuses one that is NaN or negative.
    """
    value = header(headers, DEVICE_SECONDS)
    if value is None:
        return None
    try:
        device_s = float(value)
    except ValueError as exc:
        raise ValueError(f"x-device-seconds: {shown(value)} is not a number") from exc
    if abs(device_s) > COUNT_MAX:
        raise ValueError(f"x-device-seconds: {shown(value)} is beyond belief")
    return device_s


def with_seconds(usage: Usage | None, headers: Headers) -> Usage | None:
    """Return a usage with the device seconds that header fields report; ValueError as above."""
    device_s = device_seconds(headers)
    if device_s is None:
        return usage
    if usage is None:
        return Usage(device_s=device_s)
    # Built directly: `replace` takes 2 us.
    return Usage(
        usage.calls,
        device_s,
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.output_tokens,
        usage.exact,
        usage.more,
    )


def from_member(member: Any) -> Usage | None:
    """Return the usage that a `usage` or `parameters` object reports; None if it reports none.

    Raises ValueError if a count is not a number.
    """
    if not isinstance(member, dict):
        return None
    names = [name for name in member.keys() & OWN if member[name] is not None]
    if not names:
        return None
    device_s, given, cached, output = (number(member, name) for name in _MEMBERS)
    further = [(name, number(member, name)) for name in sorted(MORE_NAMES.intersection(names))]
    more = details(tuple(pair for pair in further if pair[1]))
    if more is None and "device_s" not in names and not (given or output):
        more = Details(is_zero=True)
    return Usage(1.0, device_s, given, cached, output, True, more)


def details(units: tuple[tuple[str, float], ...]) -> Details | None:
    """Return the details of a usage; None if there are none."""
    return Details(units) if units else None


def number(member: dict[str, Any], name: str) -> float:
    """Return a count, 0 if there is none; ValueError if it is not a number."""
    value = member.get(name)
    return 0.0 if value is None else count(value, name)


def count(value: Any, name: str) -> float:
    """Return a count, which some servers put in quotes; ValueError if it is not a number."""
    if type(value) is int or type(value) is float:
        number = float(value) if abs(value) <= COUNT_MAX else math.inf
    elif isinstance(value, str) and len(value) <= COUNT_CHARS_MAX and "_" not in value:
        try:
            number = float(value)
        except ValueError as exc:
            raise ValueError(f"{name}: {shown(value)} is not a number") from exc
    else:
        raise ValueError(f"{name}: {shown(value)} is not a number")
    if not abs(number) <= COUNT_MAX:
        raise ValueError(f"{name}: {shown(value)} is beyond belief")
    return number
