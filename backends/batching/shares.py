"""Divides the device time of a batch among its calls, so that what they are charged adds up.

A cost is rounded up to whole nano-dollars, so the shares are chosen in nano-dollars: their sum is
the cost of the whole, exactly, or a nano-dollar for each call if the whole costs less. Each share
is then given in seconds that cost this amount.
"""

from collections.abc import Sequence

from tollway.backends.price import MAX_NANO, Price
from tollway.backends.types import Usage


def divided(device_s: float, rows: Sequence[int], rate_nano: float) -> list[float]:
    """Return each call's device seconds, in proportion to its rows.

    `rate_nano`: the price of a device second in nano-dollars; with 0, plain proportions.
    """
    total = sum(rows)
    if not rate_nano or not 0.0 < device_s * rate_nano < MAX_NANO:
        return [device_s * each / total for each in rows]
    whole = Price(per_device_s_nano=rate_nano).cost_nano(Usage(calls=0.0, device_s=device_s))
    spread = max(0, whole - len(rows))  # a call that ran is never free: a nano-dollar each
    shares, at = [], 0
    for each in rows:
        nano = 1 + spread * (at + each) // total - spread * at // total
        shares.append(nano / rate_nano)
        at += each
    return shares
