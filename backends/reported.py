"""What a reply reports of its own usage, outside any protocol that has a place for it.

A backend may say how long it held its device for the call: in the header field `x-device-seconds`,
or in the document, as `device_s` among the parameters (Open Inference Protocol) or in a `usage`
member (JSON). A `usage` member may count tokens too. What is said is taken as exact.
"""

from typing import Any

from backends.documents import header, shown
from backends.types import Headers, Usage

DEVICE_SECONDS = b"x-device-seconds"

COUNT_MAX = 1e15
"""Tokens or seconds that no call uses; sums of what is below stay finite where it is learned."""

_MEMBERS = ("device_s", "input_tokens", "cached_input_tokens", "output_tokens")


def from_headers(headers: Headers) -> Usage | None:
    """Return the usage that header fields report, None where they report none.

    Raises ValueError where a field holds no number; the price refuses one that is NaN or negative.
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
    return Usage(device_s=device_s)


def from_member(member: Any) -> Usage | None:
    """Return the usage that a `usage` or `parameters` object reports, None where it reports none.

    Raises ValueError where a count is not a number.
    """
    if not isinstance(member, dict):
        return None
    if all(member.get(name) is None for name in _MEMBERS):
        return None
    device_s, given, cached, output = (number(member, name) for name in _MEMBERS)
    return Usage(1.0, device_s, given, cached, output)


def number(member: dict[str, Any], name: str) -> float:
    """Return a count, 0 where there is none; ValueError where it is not a number."""
    value = member.get(name)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: {shown(value)} is not a number")
    if abs(value) > COUNT_MAX:
        raise ValueError(f"{name}: {shown(value)} is beyond belief")
    return float(value)
