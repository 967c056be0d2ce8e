"""Reloading: replaces the configuration atomically while requests are served.

Theory of operation. All new objects are built beside the current ones, and the budgets are sent to
the ledger. Up to this point an error changes nothing. Then, without awaiting anything, the new
objects replace the current ones. Requests in flight finish on the routes and backends with which
they started, and are charged to the budgets that applied then. An object with unchanged settings
stays the same object. An object with changed settings is replaced, and the new one takes over all
state that the change does not concern (`state_retention.py`).

    change                           effect
    a backend                        replaced; connections that the new one does not use are
                                     closed after their last request
    its price                        as above, and policies receive the ratio at once
    a tenant's rates                 the contents of its buckets are kept, up to the new limit
    a route's policy or objective    learned state is kept if the new policy can read it
    a route's context                learning restarts: its features have a different meaning
    a budget                         its leases are returned; the spent amount is kept
    [ledger], [journal], ...         refused: a restart is required
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tollway.backends.types import UNBOUND
from tollway.gateway import settings as config
from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.routing.backend import Backend
from tollway.gateway.routing.route import Route
from tollway.gateway.security import tls
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.wiring import (
    Gateway,
    build_authenticator,
    build_counter,
    build_proxy,
    build_rates,
    build_route,
    feedback_rates,
)
from tollway.gateway.wiring.state_retention import SERVER, adopt_backend, adopt_route, rebuilt, same
from tollway.policies.types import Context

log = logging.getLogger("tollway.reload")

FIXED: dict[str, tuple[str, ...]] = {
    "server": (
        "listen",
        "tls",
        "workers",
        "max_event_bytes",
        "stream_buffer_bytes",
        "max_header_bytes",
        "max_headers",
        "max_in_flight",
        "idempotency_s",
        "idempotency_mb",
        "keep_alive_s",
        "grace_s",
        "drain_s",
    ),
    "ledger": (),
    "journal": (),
    "state": (),
    "anomalies": (),
    "webhooks": (),
    "log": (),
    "tracing": (),
}
"""Settings that require a restart: the keys of a table, or () for the whole table."""


class Reloader:
    """Reloads one gateway, one reload at a time."""

    # The mutable state is the gateway's, which is replaced part by part, and the reload lock.

    def __init__(self, gateway: Gateway, read: Callable[[], config.Settings]) -> None:
        """`read` reads the configuration again, and raises ConfigError if it is invalid."""
        self._gateway = gateway
        self._read = read
        served = gateway.settings.server.tls
        self.tls = (
            None if served is None else tls.listening(served.cert, served.key, served.client_ca)
        )
        self._state = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def reload(self) -> list[str]:
        """Apply the current configuration and return the list of changes.

        Raises ConfigError if it is invalid, and LedgerUnavailable if the new budgets cannot be sent
        to the ledger. In both cases nothing has changed.
        """
        async with self._state:
            try:
                told = await self._reload()
            except (ConfigError, LedgerUnavailable) as exc:
                self._gateway.metrics.reloaded(False)
                self._gateway.events.add("reload_refused", "configuration", str(exc)[:2000])
                log.error("the configuration is not reloaded, the old one goes on: %s", exc)
                raise
            self._gateway.metrics.reloaded(True)
            self._gateway.events.add("reloaded", "configuration", "; ".join(told) or "no change")
            return told

    async def _reload(self) -> list[str]:
        gateway, old = self._gateway, self._gateway.settings
        new = await asyncio.to_thread(self._read)
        check(old, new)
        backends = kept_backends(gateway, new)
        routes = {route.name: build_route(route, new, backends) for route in new.routes}
        budgets = [budget.to_budget() for budget in new.budgets]
        authenticator = build_authenticator(new)
        told = differences(old, new)
        if self.tls is not None and new.server.tls is not None:
            tls.renew(self.tls, new.server.tls.cert, new.server.tls.key)
        await gateway.wallet.revise(budgets)
        # From here to the end nothing is awaited, so no request sees a partial reload.
        ratios = reprices(gateway, new, backends)
        adopt_state(gateway, new, backends, routes)
        gone = ways_out(gateway.backends, backends)
        known = [backend.credential for backend in gateway.backends.values()]
        patience_s = max((route.timeout_s for route in gateway.routes.values()), default=0.0)
        gateway.settings = new
        gateway.limit_bodies(new.server.max_body_bytes)
        gateway.wallet.held.wait_s = new.server.hold_wait_s
        replace_all(gateway.backends, backends)
        replace_all(gateway.routes, routes)
        gateway.scheduler.revise()
        for name, ratio in ratios.items():
            for one in routes.values():
                if name in one.backends:
                    one.policy.reprice(name, ratio)
        tenants = [t.name for t in new.tenants] + [ANONYMOUS] * new.server.allow_anonymous
        for name, one in routes.items():
            gateway.metrics.declare(name, one.backends, tenants)
        now_s = gateway.clock()
        gateway.rates = build_rates(new, gateway.rates, now_s)
        gateway.app.serve(build_proxy(gateway, authenticator))
        gateway.control.revise(authenticator, build_counter(gateway, budgets))
        gateway.control.rates.revise(*feedback_rates(new), tenants=tenants, now_s=now_s)
        for backend in backends.values():
            if backend.credential is not None and backend.credential in known:
                backend.credential.renew(now_s)
        for close in gone:
            self._let_go(close, patience_s)
        return told

    def begin(self) -> None:
        """Reload in the background, as for SIGHUP; the result is logged."""

        async def begun() -> None:
            with contextlib.suppress(ConfigError, LedgerUnavailable):
                await self.reload()

        self._keep(asyncio.create_task(begun()))

    async def ask_all(self) -> list[str]:
        """Reload all workers of this gateway if the configuration is valid; return the changes.

        The supervisor notifies the workers; each one reloads by itself, moments later.
        """
        new = await asyncio.to_thread(self._read)
        check(self._gateway.settings, new)
        told = differences(self._gateway.settings, new)
        os.kill(os.getppid(), signal.SIGHUP)
        return told

    def _let_go(self, close: Callable[[], Awaitable[None]], patience_s: float) -> None:
        """Close a backend's connections once no request in flight can still use it."""

        async def leave() -> None:
            try:
                await asyncio.sleep(patience_s)
            finally:
                await close()

        self._keep(asyncio.create_task(leave()))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close at once all connections that were to be closed later."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def check(old: config.Settings, new: config.Settings) -> None:
    """Raise ConfigError if a setting changes that requires a restart."""
    problems = []
    for table, keys in FIXED.items():
        before, now = getattr(old, table), getattr(new, table)
        if not keys and before != now:
            problems.append(Problem("", table, "is not as it was; restart to change it"))
        for key in keys:
            if getattr(before, key) != getattr(now, key):
                what = (
                    f"was {getattr(before, key)!r}: cannot change while it runs; restart for that"
                )
                problems.append(Problem("", f"{table}.{key}", what))
    if problems:
        raise ConfigError(problems)


def differences(old: config.Settings, new: config.Settings) -> list[str]:
    """Return the changes as text: `backend x added`."""
    told = []
    for kind in ("backends", "routes", "tenants", "budgets"):
        before = {one.name: one for one in getattr(old, kind)}
        now = {one.name: one for one in getattr(new, kind)}
        told += [f"{kind[:-1]} {name} added" for name in now.keys() - before.keys()]
        told += [f"{kind[:-1]} {name} removed" for name in before.keys() - now.keys()]
        both = now.keys() & before.keys()
        told += [f"{kind[:-1]} {name} changed" for name in both if now[name] != before[name]]
    if old.server != new.server or old.pepper != new.pepper:
        told.append("server changed")
    return sorted(told)


def kept_backends(gateway: Gateway, new: config.Settings) -> dict[str, Backend]:
    """Return the backends of a configuration; a backend with unchanged settings is reused."""
    before = {backend.name: backend for backend in gateway.settings.backends}
    return {
        told.name: gateway.backends[told.name]
        if told.name in gateway.backends and before[told.name] == told
        else rebuilt(gateway.backends.get(told.name), before.get(told.name), told, gateway.events)
        for told in new.backends
        if told.enabled
    }


def ways_out(
    old: Mapping[str, Backend], new: Mapping[str, Backend]
) -> list[Callable[[], Awaitable[None]]]:
    """Return functions that close the connections which no new backend uses.

    They also close a queue of calls, unless a new backend shares it.
    """
    transports = [backend.transport for backend in new.values()]
    queues = [backend.slots for backend in new.values()]
    return [
        backend.transport.aclose if backend.slots in queues else backend.aclose
        for backend in old.values()
        if backend.transport not in transports
    ]


def adopt_state(
    gateway: Gateway,
    new: config.Settings,
    backends: Mapping[str, Backend],
    routes: Mapping[str, Route],
) -> None:
    """Hand the state of the replaced objects to their successors."""
    was = {backend.name: backend for backend in gateway.settings.backends}
    servers = set()
    for told in new.backends:
        one, old, before = (
            backends.get(told.name),
            gateway.backends.get(told.name),
            was.get(told.name),
        )
        if one is None or old is None or before is None or not same(before, told, SERVER):
            continue
        servers.add(told.name)
        if one is not old:
            adopt_backend(one, old, told)
    asked = {route.name: route for route in gateway.settings.routes}
    for route in new.routes:
        if route.name in asked and route.name in gateway.routes:
            adopt_route(
                routes[route.name],
                gateway.routes[route.name],
                asked[route.name],
                route,
                servers=servers,
                settings=new,
                events=gateway.events,
            )


def reprices(
    gateway: Gateway, new: config.Settings, backends: Mapping[str, Backend]
) -> dict[str, float]:
    """Return the factor by which each backend's price changed, for its current usage mix."""
    ratios: dict[str, float] = {}
    for name, backend in backends.items():
        before = gateway.backends.get(name)
        if before is None or before.price == backend.price:
            continue
        for route in gateway.routes.values():
            if name in route.backends:
                quote = route.estimator.quote
                was_nano = quote(Context(()), name, before.price, UNBOUND).expected_nano
                is_nano = quote(Context(()), name, backend.price, UNBOUND).expected_nano
                if was_nano and is_nano:
                    ratios[name] = is_nano / was_nano
                break
    return ratios


def replace_all(table: dict[str, Any], now: Mapping[str, Any]) -> None:
    """Replace a shared dict's contents in place."""
    table.clear()
    table.update(now)
