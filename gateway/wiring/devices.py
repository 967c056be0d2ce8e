"""Builds devices: where their prices are read, and the clocks of their backends."""

from collections.abc import Mapping
from functools import partial
from urllib.parse import quote, urlsplit, urlunsplit

from tollway.backends.devices import clocks
from tollway.backends.devices.clocks import PolledClock
from tollway.backends.devices.device import Device
from tollway.backends.devices.pages import FilePage, WebPage
from tollway.backends.devices.price_reading import BYTES_MAX, hourly_nano, price_reader
from tollway.backends.devices.reply_time import TimedTransport, from_field, from_server_timing
from tollway.backends.http.factory import open_transport
from tollway.backends.ports import Transport
from tollway.backends.price import Price
from tollway.gateway import settings as config
from tollway.gateway.learning.device_costs import (
    PolledCounter,
    PricedDevice,
    PriceFeed,
    Unreadable,
    close,
    read_price,
)
from tollway.gateway.security.addresses import is_link_local
from tollway.gateway.settings.device import secret
from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.wiring.states import Stage


def build_devices(settings: config.Settings, stage: Stage, now_s: float) -> dict[str, PricedDevice]:
    """Return the devices by name; those whose price is read in the same place go on."""
    return {one.name: _device(one, settings, stage, now_s) for one in settings.devices}


def _device(
    one: config.DeviceConfig, settings: config.Settings, stage: Stage, now_s: float
) -> PricedDevice:
    backends = [b for b in settings.backends if b.device == one.name and b.enabled]
    names, terms = [backend.name for backend in backends], one.terms

    def make() -> Device:
        device = Device(one.name, terms, names, now_s)
        if one.usd_per_hour is not None:
            device.priced(hourly_nano(one.usd_per_hour), now_s)
        return device

    device = stage.get(
        ("device", one.name),
        one.of("usd_per_hour", "price_url", "price_file", "price_json", "price_metric"),
        make,
        revise=lambda kept: kept.revise(terms, names, now_s),
        succeed=lambda new, old: new.succeed(old, now_s),
    )
    return PricedDevice(
        device,
        _feed(one),
        {
            backend.name: _counter(backend, backend.device_time)
            for backend in backends
            if backend.device_time is not None and backend.device_time.is_polled
        },
        excludes=one.on_stale == "exclude",
    )


def _feed(one: config.DeviceConfig) -> PriceFeed | None:
    if one.usd_per_hour is not None:
        return None
    page = FilePage(one.price_file) if one.price_file else _page(secret(one.price_url))
    return PriceFeed(page, price_reader(one.price_json, one.price_selector), one.poll_s)


def _page(url: str, *, link_local: bool = False) -> WebPage:
    """Return a page at a URL; no connection to a link-local or metadata address is used."""
    origin = urlunsplit((*urlsplit(url)[:2], "", "", ""))
    barred = None if link_local else is_link_local
    return WebPage(url, open_transport(origin, connections=1, barred=barred))


def _counter(backend: config.BackendConfig, settings: config.DeviceTimeConfig) -> PolledCounter:
    read: clocks.Read = clocks.from_statistics
    if settings.source != "oip":
        read = clocks.from_metrics(settings.selector(backend.model), settings.counter_unit)
    allowed = backend.allow_link_local and settings.url is None
    page = _page(secret(settings.url) or _statistics(backend, settings), link_local=allowed)
    clock = PolledClock(partial(page.fetch, BYTES_MAX), read)
    return PolledCounter(clock, page.aclose, settings.poll_s)


def _statistics(backend: config.BackendConfig, settings: config.DeviceTimeConfig) -> str:
    """Return the address of a model's statistics at its own server."""
    assert backend.url is not None
    model = settings.model or backend.model
    below = f"/v2/models/{quote(model, safe='')}/stats" if model else "/v2/models/stats"
    return backend.url.rstrip("/") + below


def timed(settings: config.BackendConfig, transport: Transport) -> Transport:
    """Return a transport whose replies have the device time that a field of theirs tells."""
    clock = settings.device_time
    if clock is None or clock.is_polled:
        return transport
    if clock.source == "header":
        assert clock.header is not None
        return TimedTransport(transport, from_field(clock.header.lower().encode(), clock.unit_s))
    assert clock.metric is not None
    return TimedTransport(transport, from_server_timing(clock.metric.encode()))


def device_prices(devices: Mapping[str, PricedDevice], now_s: float) -> dict[str, Price]:
    """Return the price of each backend that runs on a device."""
    found: dict[str, Price] = {}
    for one in devices.values():
        found |= one.device.prices(now_s)
    return found


async def read_unread(devices: Mapping[str, PricedDevice], now_s: float) -> None:
    """Read the prices that were never read.

    Raises ConfigError naming those that cannot be read, and closes all connections of the devices,
    which are then not used.
    """
    problems = []
    for name, one in devices.items():
        if one.device.hour_nano:
            continue
        try:
            await read_price(one, now_s)
        except Unreadable as exc:
            assert one.feed is not None
            key = "price_file" if isinstance(one.feed.page, FilePage) else "price_url"
            why = f"the price of an hour is not known, because this {exc}"
            problems.append(Problem("", f'[[devices]] "{name}" {key}', why))
    if problems:
        for one in devices.values():
            await close(one)
        raise ConfigError(problems)
