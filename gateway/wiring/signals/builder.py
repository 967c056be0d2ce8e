"""Builds signals: the hooks of the routes, and what runs them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tollway.backends.json_path import compile_path
from tollway.backends.price import Price
from tollway.backends.protocols.registry import protocol
from tollway.gateway import settings as config
from tollway.gateway.learning.device_costs import DeviceCosts
from tollway.gateway.routing.driver import Driver
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.state import RouteState
from tollway.gateway.settings.errors import ConfigError, Problem
from tollway.gateway.settings.signals.guard import GuardConfig
from tollway.gateway.settings.signals.hook import SignalConfig
from tollway.gateway.signals.calls import PaidCalls
from tollway.gateway.signals.guards import Guard
from tollway.gateway.signals.judge import JudgeHook, PairJudgeHook, ReferenceHook
from tollway.gateway.signals.local_hooks import (
    FieldHook,
    LengthHook,
    Part,
    PatternHook,
    ProgramHook,
    SchemaHook,
    ServiceHook,
)
from tollway.gateway.signals.own_calls import OwnCalls
from tollway.gateway.signals.ports import Hook, RouteHooks
from tollway.gateway.signals.runner import Counts, SignalRunner, Teach
from tollway.gateway.storage.journal import Journal
from tollway.gateway.wiring.signals.guards import build_guard, build_program, build_service
from tollway.gateway.wiring.signals.helpers import HelperBuilder

PAID = frozenset(("judge", "reference"))
SCHEMA_BYTES_MAX = 1 << 20


class SignalBuilder:
    """Builds the hooks of all routes; unchanged ones stay the same objects."""

    # The mutable state is the hooks and guards with their settings, the guards by
    # route, the state of the judges' plans, and the routes.

    def __init__(
        self,
        runner: SignalRunner,
        driver: Driver,
        journal: Journal,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: Random,
        costs: DeviceCosts,
    ) -> None:
        self.runner = runner
        self._routes: Mapping[str, RoutePlan] = {}
        self._clock, self._wall, self._costs = clock, wall, costs
        calls = driver.reserving, driver.attempts, journal
        self._paid = partial(PaidCalls, *calls, clock=clock, wall=wall, rng=rng)
        self._helpers = HelperBuilder(
            driver,
            journal,
            partial(OwnCalls, *calls, clock=clock, wall=wall),
            plan_of=self._plan_of,
            price_of=self.price_of,
            wall=wall,
        )
        self._hooks: dict[tuple[str, str], tuple[object, Hook]] = {}
        self._judging: dict[tuple[str, str], RouteState] = {}
        self._guards: dict[tuple[str, str], tuple[GuardConfig, Guard]] = {}
        self.guards: dict[str, list[Guard]] = {}

    def prepare(
        self,
        settings: config.Settings,
        backends: Mapping[str, Target],
        routes: Mapping[str, RoutePlan],
    ) -> Callable[[], list[Hook | Guard]]:
        """Build the hooks and guards; return what puts them into use, and returns those to close.

        Raises ConfigError if the file of a schema cannot be read.
        """
        hooks: dict[tuple[str, str], tuple[object, Hook]] = {}
        plans: dict[str, RouteHooks] = {}
        labellers = frozenset([tenant.name for tenant in settings.tenants if tenant.labeller])
        for route in settings.routes:
            if not route.signals:
                continue
            every: list[Hook] = []
            held: list[Hook] = []
            shares: dict[str, float] = {}
            users = next((one for one in route.signals if one.kind == "users"), None)
            for signal in route.signals:
                if signal.kind == "users":
                    continue
                key = route.name, signal.name
                judged = backends.get(signal.backend or "")
                if signal.kind in PAID and judged is None:
                    continue  # its backend is disabled
                identity = (signal, judged) if signal.kind == "judge" else signal
                known = self._hooks.get(key)
                if known is not None and known[0] == identity:
                    hook = known[1]
                else:
                    hook = self._build(signal, routes[route.name], judged)
                hooks[key] = identity, hook
                # A judge of accepted replies alone would find a cascade's cheap arm too good.
                (held if signal.kind == "reference" else every).append(hook)
                if signal.kind not in PAID:
                    shares[signal.name] = signal.share
            plans[route.name] = RouteHooks(
                tuple(every),
                tuple(held),
                shares,
                users="" if users is None else users.name,
                window_s=0.0 if users is None else users.window_s,
                heard=labellers if route.feedback == "labellers" else None,
            )

        guards = self._prepared_guards(settings)
        use_helpers = self._helpers.prepare(settings, backends, routes)

        def commit() -> list[Hook | Guard]:
            self._hooks, self._routes = hooks, routes
            kept = [guard for _, guard in guards.values()]
            gone = [guard for _, guard in self._guards.values() if guard not in kept]
            self._guards = guards
            use_helpers()
            self.guards.clear()  # the same mapping: the data plane in use has it
            for (route, _), (_, guard) in guards.items():
                self.guards.setdefault(route, []).append(guard)
            return [*self.runner.revise(plans), *gone]

        return commit

    def _prepared_guards(
        self, settings: config.Settings
    ) -> dict[tuple[str, str], tuple[GuardConfig, Guard]]:
        guards = {}
        for route in settings.routes:
            for one in route.guards:
                key = route.name, one.name
                known = self._guards.get(key)
                if known is not None and known[0] == one:
                    guards[key] = known
                else:
                    guards[key] = one, build_guard(one)
        return guards

    async def embedded(self, inference: InferenceRequest) -> tuple[float, ...]:
        """Return the embedding of a request that is not routed, and journal the call for it."""
        return await self._helpers.embedded(inference)

    async def close(self) -> None:
        """Score what waits for a while, and release hooks and guards."""
        await self.runner.close()
        for _, guard in self._guards.values():
            await guard.aclose()

    def _build(self, signal: SignalConfig, route: RoutePlan, judge: Target | None) -> Hook:
        name = signal.name
        part = Part(compile_path(signal.at) if signal.at is not None else None)
        if signal.kind in PAID:
            return self._build_paid(signal, route, judge)
        if signal.kind == "schema":
            return SchemaHook(name, _schema(signal), part, build_program(signal))
        if signal.kind == "command":
            return ProgramHook(name, build_program(signal, signal.command))
        return self._build_local(signal, part)

    @staticmethod
    def _build_local(signal: SignalConfig, part: Part) -> Hook:
        name = signal.name
        if signal.pattern is not None:
            return PatternHook(name, signal.pattern, signal.found, part, build_program(signal))
        if signal.length is not None:
            return LengthHook(name, *signal.length, part)
        if signal.field is not None:
            return FieldHook(name, compile_path(signal.field), part)
        service = build_service(signal)
        return ServiceHook(name, service.ask, service.aclose)

    def _build_paid(self, signal: SignalConfig, route: RoutePlan, judge: Target | None) -> Hook:
        """Return a hook that calls backends."""
        name = signal.name
        calls = self._paid(share=signal.share, budget_share=signal.budget_share)
        assert signal.backend is not None
        if signal.kind == "reference":
            return ReferenceHook(name, calls, signal.backend)
        assert judge is not None
        plan = self._plan_of(route.name, name, route, judge, signal.timeout_s)
        price = partial(self.price_of, judge)
        rubric, rival = signal.rubric, signal.compare_to
        if rival is not None:
            return PairJudgeHook(name, calls, plan, judge.name, rubric, price, rival)
        return JudgeHook(name, calls, plan, judge.name, rubric, price)

    def price_of(self, judge: Target) -> Price:
        """Return the price of a judge in force: routes are told new ones, and it needs no route."""
        for route in self._routes.values():
            if judge.name in route.backends:
                return route.backends[judge.name].price
        price = self._costs.price(judge.name)
        if price is not None:
            return price
        return judge.price if judge.tariff is None else judge.tariff.at_time(self._wall())

    def _plan_of(
        self, route: str, signal: str, plan: RoutePlan, backend: Target, timeout_s: float
    ) -> RoutePlan:
        """Return the plan by which a backend is called: its own protocol, usage and costs."""
        state = self._judging.setdefault((route, signal), RouteState())
        target = replace(backend, protocol=protocol("openai"), expects=None, timeout_s=timeout_s)
        return replace(
            plan,
            protocol=target.protocol,
            backends={backend.name: target},
            state=state,
            cascade=False,
            auditor=None,
            hedge=None,
            request_schema=None,
            forward_headers=frozenset(),
            signals={},
            anchor="",
            cache=None,
            online=None,
            embeds=False,
            verifies=False,
            texts=None,
        )


def _schema(signal: SignalConfig) -> Any:
    """Return the schema of a signal; None for the one that requests declare."""
    if signal.schema_file is None:
        return signal.json_schema
    return read_schema(signal.schema_file)


def read_schema(path: Path) -> Any:
    """Return the document of a schema's file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            return json.loads(file.read(SCHEMA_BYTES_MAX))
    except (OSError, ValueError) as exc:
        why = f"cannot be read as JSON ({exc}); write a JSON schema into it"
        raise ConfigError([Problem("", f"schema_file {path}", why)]) from exc


def build_signals(
    settings: config.Settings,
    backends: Mapping[str, Target],
    routes: Mapping[str, RoutePlan],
    driver: Driver,
    journal: Journal,
    *,
    teach: Teach,
    counts: Counts,
    clock: Callable[[], float],
    wall: Callable[[], float],
    rng: Random,
    costs: DeviceCosts,
) -> SignalBuilder:
    """Return what builds hooks, with those of the settings in use."""
    # A generator of its own, so that what the policies draw does not depend on signals; seeded by
    # theirs, so that a run can be repeated.
    own = Random(repr(rng.getstate()))
    runner = SignalRunner(teach=teach, counts=counts, rng=own, wall=wall)
    builder = SignalBuilder(runner, driver, journal, clock=clock, wall=wall, rng=own, costs=costs)
    driver.sinks.add(ended=runner.ended)
    builder.prepare(settings, backends, routes)()
    return builder
