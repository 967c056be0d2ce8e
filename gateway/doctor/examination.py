"""The whole examination, in the order in which a gateway needs what is examined."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from tollway.gateway import settings as config
from tollway.gateway.doctor import backends, clocks, ledger, machine
from tollway.gateway.doctor.finding import Finding, failure, ok, warning
from tollway.gateway.routing.plan import Target
from tollway.gateway.settings import hard_bounds
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.wiring.backends import build_backend
from tollway.gateway.wiring.devices import build_devices, device_prices, read_unread
from tollway.gateway.wiring.states import States


@dataclass(frozen=True, slots=True)
class Calls:
    """Which calls to make: one to each backend, with the bodies by the backends' names."""

    wanted: bool = False
    bodies: Mapping[str, bytes] = field(default_factory=dict)


async def examine(
    settings: config.Settings, environ: Mapping[str, str], calls: Calls
) -> AsyncIterator[Finding]:
    """Yield what is found, as it is found. Only calls cost anything."""
    offsets_s: dict[str, float] = {}
    for finding in machine.versions():
        yield finding
    for note in hard_bounds.notes(settings):
        yield warning("configuration", note, "see docs/configuration.md")
    for finding in (
        *machine.open_files(),
        *machine.folders({"journal": settings.journal.dir, "state": settings.state.dir}),
        *machine.address(settings.server.listen, settings.server.tls is not None),
    ):
        yield finding
    password = settings.ledger.password
    secret = None if password is None else password.get_secret_value()
    for finding in await ledger.examine(settings.ledger.url, secret, offsets_s):
        yield finding
    async for finding in _backends(settings, environ, calls, offsets_s):
        yield finding
    yield clocks.compared(offsets_s)


async def _backends(
    settings: config.Settings,
    environ: Mapping[str, str],
    calls: Calls,
    offsets_s: dict[str, float],
) -> AsyncIterator[Finding]:
    stage = States().stage()
    devices = build_devices(settings, stage, time.monotonic())
    try:
        await read_unread(devices, time.monotonic())
    except ConfigError as exc:
        yield failure("devices", "; ".join(map(str, exc.problems)), "see docs/prices.md")
    prices = device_prices(devices, time.monotonic())
    built: list[tuple[config.BackendConfig, Target]] = []
    for one in settings.backends:
        if not one.enabled:
            yield ok(f"backend {one.name}", "is not enabled")
            continue
        try:
            target = build_backend(one, stage=stage, device_price=prices.get(one.name))
        except ConfigError as exc:
            why = "; ".join(map(str, exc.problems))
            yield failure(f"backend {one.name}", why, "see docs/security.md on secrets")
            continue
        built.append((one, target))
    try:
        reached = [backends.reach(one, target, environ, offsets_s) for one, target in built]
        for found in await asyncio.gather(*reached):
            for finding in found:
                yield finding
        if calls.wanted:
            for one, target in built:
                yield await _called(settings, one, target, calls)
    finally:
        await asyncio.gather(*(target.transport.aclose() for _, target in built))


async def _called(
    settings: config.Settings, one: config.BackendConfig, target: Target, calls: Calls
) -> Finding:
    body = calls.bodies.get(one.name)
    path = next((route.path for route in settings.routes if one.name in route.backends), None)
    call = backends.test_call(one, path, body)
    if call is not None:
        return await backends.ask(one, target, call)
    if one.url is None:
        return ok(f"call to {one.name}", "none is needed: rules run in the gateway")
    seen = f"none was made: only you know what a model of protocol {one.protocol} reads"
    return warning(f"call to {one.name}", seen, f"give a body: --body {one.name}=FILE")
