"""Reloading: replaces the configuration atomically while requests are served.

Theory of operation. All new objects are built beside the current ones, and the budgets are sent to
the ledger. Up to this point an error changes nothing. Then, without awaiting anything, the new
objects replace the current ones. Requests in flight finish on the routes and backends with which
they started, and are charged to the budgets that applied then. An object with unchanged settings
stays the same object. An object with changed settings is replaced, and the new one takes over all
state that the change does not concern (`states.py`).

    change                           effect
    a backend                        replaced; connections that the new one does not use are
                                     closed after their last request
    its price                        as above, and policies receive the ratio at once
    a tenant's rates                 the contents of its buckets are kept, up to the new limit
    a route's policy or objective    learned state is kept if the new policy can read it
    a route's context                learning restarts: its features have a different meaning
    a budget                         its leases are returned; the spent amount is kept
    a registered model               its records are kept
    [ledger], [journal], ...         refused: a restart is required
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

from tollway.backends.batching.batcher import unwrapped
from tollway.gateway import settings as config
from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.learning.device_costs import close as close_device
from tollway.gateway.learning.price_hours import apply_hours, prices, rescale
from tollway.gateway.routing.plan import Target
from tollway.gateway.security import tls
from tollway.gateway.security.credentials import Credential
from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.storage import audit_log
from tollway.gateway.storage.audit_log import SIGNAL, Actor
from tollway.gateway.wiring import (
    Gateway,
    build_authenticator,
    build_budget_endpoints,
    build_proxy,
    build_rates,
    feedback_rates,
)
from tollway.gateway.wiring.devices import build_devices, device_prices, read_unread
from tollway.gateway.wiring.features import build_lookups
from tollway.gateway.wiring.lifecycle.registry import managed
from tollway.gateway.wiring.planes import environment_of
from tollway.gateway.wiring.rollouts import runtime as rollouts
from tollway.gateway.wiring.routes import build_plans
from tollway.gateway.wiring.scaling import build_actions, known_events, scaling_plans
from tollway.gateway.wiring.settings_changes import checksum, differing

log = logging.getLogger(__name__)

FOLLOW_S = 10.0  # longest wait for this worker's own reload after all were asked


class Reloader:
    """Reloads one gateway, one reload at a time."""

    # The mutable state is the gateway's, which is replaced part by part, the reload lock, and the
    # number of the reload in progress.

    def __init__(self, gateway: Gateway, read: Callable[[], config.Settings]) -> None:
        """`read` reads the configuration again, and raises ConfigError if it is invalid."""
        self._gateway = gateway
        self._read = read
        served = gateway.settings.server.tls
        self.tls = (
            None if served is None else tls.listening(served.cert, served.key, served.client_ca)
        )
        self._state = asyncio.Lock()
        self._begun = self._ended = 0  # numbers of reloads
        self._end = asyncio.Event()  # of the present one
        self._tasks: set[asyncio.Task[None]] = set()

    async def reload(self, actor: Actor = SIGNAL) -> list[str]:
        """Apply the current configuration and return the list of changes.

        Raises ConfigError if it is invalid, and LedgerUnavailable if the new budgets cannot be sent
        to the ledger. In both cases nothing has changed.
        """
        async with self._state:
            old = self._gateway.settings
            self._begun += 1
            try:
                changes = await self._reload()
            except (ConfigError, LedgerUnavailable) as exc:
                self._gateway.metrics.reloaded(False)
                self._gateway.events.add("reload_refused", "configuration", str(exc)[:2000])
                log.error(
                    "the configuration was not reloaded, the old one stays in effect: %s", exc
                )
                await self._record(actor, old, None, str(exc))
                raise
            finally:
                self._ended = self._begun
                self._end.set()
                self._end = asyncio.Event()
            self._gateway.metrics.reloaded(True)
            self._gateway.events.add("reloaded", "configuration", "; ".join(changes) or "no change")
            await self._record(actor, old, self._gateway.settings, "; ".join(changes))
            return changes

    async def _record(
        self,
        actor: Actor,
        old: config.Settings,
        new: config.Settings | None,
        why: str,
        act: str = "reload",
    ) -> None:
        """Write a reload into the audit log; `new` is None if it was refused.

        All workers reload at a signal, and one of them writes it. If the log cannot be written, the
        reload stands: it may be what repairs the gateway.
        """
        if actor == SIGNAL and not self._gateway.identity.learns:
            return
        outcome = audit_log.REFUSED if new is None else audit_log.DONE

        def write() -> None:
            before, after = ({}, {}) if new is None else differing(old, new)
            self._gateway.audit.write(
                act,
                actor,
                outcome,
                about=f"configuration {checksum(new or old)[:16]}",
                why=why,
                before=before,
                after=after,
            )

        try:
            await asyncio.to_thread(write)
        except OSError as exc:
            self._gateway.events.add("audit_failed", "reload", f"the reload is not in it: {exc}")

    async def _reload(self) -> list[str]:
        gateway, old = self._gateway, self._gateway.settings
        new = await asyncio.to_thread(self._read)
        check(old, new)
        stage = gateway.states.stage()
        devices = build_devices(new, stage, gateway.clock())
        await read_unread(devices, gateway.clock())
        known_prices = device_prices(devices, gateway.clock())
        # In a thread: models of features are read from files, fifty backends on ten routes take
        # 40 ms, and building changes nothing.
        lookups = await asyncio.to_thread(
            build_lookups,
            new,
            stage,
            gateway.features.warm,
            clock=gateway.clock,
            wall=gateway.wall,
        )
        backends, routes = await asyncio.to_thread(
            build_plans, new, gateway.events, stage, known_prices, lookups
        )
        actions = await asyncio.to_thread(build_actions, new, gateway.wall)
        commit_hooks = await asyncio.to_thread(gateway.signals.prepare, new, backends, routes)
        budgets = [budget.to_budget() for budget in new.budgets]
        authenticator = build_authenticator(new)
        changes = differences(old, new)
        if (files := new.server.tls) is not None:
            tls.listening(files.cert, files.key, files.client_ca)  # raises if they are unusable
        await gateway.reservations.revise(budgets)
        if self.tls is not None and files is not None:
            tls.renew(self.tls, files.cert, files.key)
            if gateway.grpc is not None:
                gateway.grpc.renew()
        # From here to the end nothing is awaited, so no request sees a partial reload.
        before = prices(gateway.routes)
        apply_hours(routes, gateway.wall())
        stage.commit()
        unused = gateway.costs.revise(devices)
        left = gateway.features.revise(lookups)
        gateway.costs.put(routes)
        gone = ways_out(gateway.backends, backends)
        known = [one for backend in gateway.backends.values() for one in backend.credentials]
        patience_s = max((route.timeout_s for route in gateway.routes.values()), default=0.0)
        apply_settings(gateway, new)
        replace_all(gateway.backends, backends)
        replace_all(gateway.routes, routes)
        rollouts.revise(gateway.rollouts, new, gateway.routes)
        gateway.pacing.revise()
        rescale(routes, before)
        gateway.declare()
        gateway.learn_in_turns()
        now_s = gateway.clock()
        gateway.rates = build_rates(new, gateway.rates, now_s)
        gateway.app.serve(build_proxy(gateway, authenticator))
        gateway.caching.hits.clear()
        gateway.control.revise(authenticator, build_budget_endpoints(gateway, budgets))
        gateway.control.rates.revise(*feedback_rates(new), tenants=gateway.tenants, now_s=now_s)
        renew_kept(backends, known, now_s)
        for one in unused:
            self._let_go(partial(close_device, one), 0.0)
        for actuator in gateway.scaler.revise(actions):
            self._let_go(actuator.aclose, patience_s)
        gone += [*[one.aclose for one in left], *[hook.aclose for hook in commit_hooks()]]
        for close in gone:
            self._let_go(close, patience_s)
        return changes

    def begin(self) -> None:
        """Reload in the background, as for SIGHUP; the result is logged."""

        async def begun() -> None:
            with contextlib.suppress(ConfigError, LedgerUnavailable):
                await self.reload()

        self._keep(asyncio.create_task(begun()))

    async def ask_all(self, actor: Actor) -> list[str]:
        """Reload all workers of this gateway if the configuration is valid; return the changes.

        The supervisor notifies the workers, and each one reloads by itself. This returns when the
        calling worker has done so, so that what it does next sees the new configuration; the
        others follow within moments. The audit log has who asked, and then the reload at the
        supervisor's signal.
        """
        old = self._gateway.settings
        try:
            new = await asyncio.to_thread(self._read)
            check(old, new)
        except ConfigError as exc:
            await self._record(actor, old, None, str(exc), "reload all workers")
            raise
        changes = differences(old, new)
        await self._record(actor, old, new, "; ".join(changes), "reload all workers")
        asked = self._begun  # one that has begun may have read the old configuration
        os.kill(os.getppid(), signal.SIGHUP)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_S):
                while self._ended <= asked:
                    await self._end.wait()
        return changes

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


def apply_settings(gateway: Gateway, new: config.Settings) -> None:
    """Put into effect what needs no new objects."""
    gateway.settings = new
    gateway.exposition.labels = environment_of(new)
    gateway.limit_bodies(new.server.max_body_bytes)
    gateway.reservations.held.wait_s = new.server.hold_wait_s
    gateway.scaling.revise(scaling_plans(new))
    gateway.pacing.expect(known_events(new))
    if gateway.keeper is not None:
        gateway.keeper.revise(managed(new))


def check(old: config.Settings, new: config.Settings) -> None:
    """Raise ConfigError if a setting changes that requires a restart."""
    problems = []
    for table in type(old).model_fields:
        before, now = getattr(old, table), getattr(new, table)
        for key, changed in fixed(before, now):
            place = f"{table}.{key}" if key else table
            problems.append(Problem("", place, changed))
    if problems:
        raise ConfigError(problems)


def fixed(before: Any, now: Any) -> Iterator[tuple[str, str]]:
    """Yield (key, why) for each change that a reload cannot make; "" is the whole table."""
    if before == now:
        return
    for kind in {type(table) for table in (*tables(before), *tables(now))}:
        for key in kind.NEEDS_RESTART:
            if key == "*":
                yield "", "cannot change while the gateway runs; restart to change it"
            elif (was := getattr(before, key)) != getattr(now, key):
                why = "and cannot change while the gateway runs; restart to change it"
                yield key, f"was {was!r} {why}"


def tables(value: Any) -> list[config.ConfigTable]:
    """Return the tables of one key of the configuration: one, several in a list, or none."""
    found = value if isinstance(value, tuple) else (value,)
    return [table for table in found if isinstance(table, config.ConfigTable)]


def differences(old: config.Settings, new: config.Settings) -> list[str]:
    """Return the changes as text: `backend x added`."""
    changes = []
    for kind in (
        "devices",
        "backends",
        "routes",
        "features",
        "tenants",
        "budgets",
        "fixed_costs",
        "scaling",
        "events",
        "models",
        "rollouts",
    ):
        before = {one.name: one for one in getattr(old, kind)}
        now = {one.name: one for one in getattr(new, kind)}
        nouns = {"scaling": "scaling of", "features": "features", "fixed_costs": "fixed cost"}
        noun = nouns.get(kind, kind[:-1])
        changes += [f"{noun} {name} added" for name in now.keys() - before.keys()]
        changes += [f"{noun} {name} removed" for name in before.keys() - now.keys()]
        both = now.keys() & before.keys()
        changes += [f"{noun} {name} changed" for name in both if now[name] != before[name]]
    if old.environment != new.environment:
        changes.append(f"environment {new.environment or 'removed'}")
    if old.server != new.server or old.pepper != new.pepper:
        changes.append("server changed")
    return sorted(changes)


def ways_out(
    old: Mapping[str, Target], new: Mapping[str, Target]
) -> list[Callable[[], Awaitable[None]]]:
    """Return functions that close the connections which no new backend uses.

    They also close a queue of calls, unless a new backend shares it.
    """
    transports = [unwrapped(backend.transport) for backend in new.values()]
    queues = [backend.slots for backend in new.values()]
    return [
        backend.transport.aclose if backend.slots in queues else backend.aclose
        for backend in old.values()
        if unwrapped(backend.transport) not in transports
    ]


def renew_kept(backends: Mapping[str, Target], known: Collection[Credential], now_s: float) -> None:
    """Give the credentials that were known before another chance."""
    for backend in backends.values():
        for credential in backend.credentials:
            if credential in known:
                credential.renew(now_s)


def replace_all(table: dict[str, Any], now: Mapping[str, Any]) -> None:
    """Replace a shared dict's contents in place."""
    table.clear()
    table.update(now)
