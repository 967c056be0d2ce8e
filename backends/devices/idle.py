"""Idle rules: which backends pay for the time in which their device does nothing.

With R the price of a second of the device, S the calls that it serves at once (`slots`), L_i the
load of each backend (busy seconds in a second) and L their sum, a busy second costs

    by-use  R / max(L, least)                     idle time is shared as busy time is
    even    R / max(L, S) + idle / (n L_i)        each of n backends pays the same part of it
    none    R / max(L, S)                         nobody pays for it

where idle = R (1 - L / S), if that is above 0. With the first two, what all calls are charged in a
second adds up to R. A load below `least` counts as `least` (of one backend: its part of it), so
that one call after a quiet night does not pay for the night: the rest is not allocated.
"""

from collections.abc import Mapping
from typing import Literal

IdleRule = Literal["by-use", "even", "none"]


def busy_second_nano(
    rule: IdleRule, rate_nano: float, loads: Mapping[str, float], *, slots: float, least: float
) -> dict[str, float]:
    """Return the price of a busy second, in nano-dollars, by backend.

    `rate_nano`: of a second of the device. `least`: the least utilisation, in (0, 1].
    """
    load = sum(loads.values())
    if rule == "by-use":
        return dict.fromkeys(loads, rate_nano / max(load, least * slots))
    plain = without_idle(rate_nano, loads, slots=slots)
    if rule == "none":
        return dict.fromkeys(loads, plain)
    idle_nano = rate_nano * max(0.0, 1.0 - load / slots) / max(1, len(loads))
    part = least * slots / max(1, len(loads))
    return {name: plain + idle_nano / max(own, part) for name, own in loads.items()}


def without_idle(rate_nano: float, loads: Mapping[str, float], *, slots: float) -> float:
    """Return what a busy second costs if nobody pays for idle time."""
    return rate_nano / max(sum(loads.values()), slots)
