"""Metrics of devices: their price, their load, and what of their cost calls were charged."""

from collections.abc import Iterator

from tollway.backends.money import to_usd
from tollway.gateway.learning.device_costs import MICRO, DeviceCosts
from tollway.gateway.observability.families import Metric, counter, gauge


def devices(costs: DeviceCosts, now_s: float) -> Iterator[Metric]:
    """Yield the metrics of all devices; bills are counted by one of several workers."""
    known = {name: one.device for name, one in costs.devices.items()}
    if not known:
        return
    yield gauge(
        "tollway_device_usd_per_hour",
        "Price of an hour of a device, as it was last read",
        ["device"],
        (([name], to_usd(device.hour_nano)) for name, device in known.items()),
    )
    yield gauge(
        "tollway_device_price_age_seconds",
        "Time since a device's price could last be read; 0 while it can be",
        ["device"],
        (
            ([name], now_s - device.read_s if device.failure else 0.0)
            for name, device in known.items()
        ),
    )
    yield gauge(
        "tollway_device_price_known",
        "Whether a device's price is known: 0 once it could not be read for stale_after_s",
        ["device"],
        (([name], float(not device.is_stale(now_s))) for name, device in known.items()),
    )
    yield gauge(
        "tollway_device_utilization_ratio",
        "Learned share of a device's time in which it works",
        ["device"],
        (([name], device.utilization) for name, device in known.items()),
    )
    pairs = [(name, device, user) for name, device in known.items() for user in device.users]
    yield gauge(
        "tollway_device_idle_ratio",
        "Share of the price of a backend's calls that pays for a device's idle time",
        ["device", "backend"],
        (([name, user], device.idle_share(user)) for name, device, user in pairs),
    )
    yield gauge(
        "tollway_device_second_usd",
        "Price of a second that a call is charged",
        ["device", "backend"],
        (
            ([name, user], to_usd(price.per_device_s_nano))
            for name, device in known.items()
            for user, price in device.prices(now_s).items()
        ),
    )
    yield gauge(
        "tollway_device_busy_share_ratio",
        "Share of the seconds charged to calls in which a device worked, where a server counts it",
        ["device", "backend"],
        (([name, user], device.users[user].share.value) for name, device, user in pairs),
    )
    yield from _sums(costs)


def _sums(costs: DeviceCosts) -> Iterator[Metric]:
    pairs = [(name, user) for name, one in costs.devices.items() for user in one.device.users]
    yield counter(
        "tollway_device_bill_usd",
        "Cost of a device since the gateway started, at the prices of the time",
        ["device"],
        (([name], to_usd(one.device.bill_nano)) for name, one in costs.devices.items()),
    )
    yield counter(
        "tollway_device_charged_usd",
        "What calls were charged for a device",
        ["device", "backend"],
        (([name, user], to_usd(costs.charged[user].nano)) for name, user in pairs),
    )
    yield counter(
        "tollway_device_charged_seconds",
        "Seconds that calls were charged for a device",
        ["device", "backend"],
        (([name, user], costs.charged[user].us / MICRO) for name, user in pairs),
    )
    yield gauge(
        "tollway_device_unallocated_usd",
        "What a device has cost beyond what calls were charged; negative if they were charged more",
        ["device"],
        (([name], to_usd(costs.unallocated_nano(one))) for name, one in costs.devices.items()),
    )
