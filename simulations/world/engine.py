"""Runs a scenario: production gateways in virtual time, in front of simulated servers.

Theory of operation. `wiring.build` builds each gateway as in production; only its transports, its
protocol, its ledger and its journal are simulated. A request enters at `path.answer`; feedback
enters at `learner.take` when it is due. The jobs that the scheduler
runs on timers run here at the times when they would change something: multipliers within 20 ms of
when they are due, pacing every `pacing_interval_s`, leases at least as often as they must be
renewed.
Nothing else depends on chance or on the real clock, so the same seed gives the same run.
"""

import asyncio
import gc
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollway.backends.money import NANO_PER_USD, to_usd
from tollway.backends.types import Call, Payload
from tollway.gateway import settings as config
from tollway.gateway.budgets.administration import BudgetAdmin
from tollway.gateway.budgets.leased_budget import RENEW_S
from tollway.gateway.budgets.protocol import Ledger
from tollway.gateway.budgets.stores.memory import MemoryLedger
from tollway.gateway.learning.feedback import Feedback
from tollway.gateway.learning.multipliers import RESOLVE_S, resolve
from tollway.gateway.routing.plan import RoutePlan, Target
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.routing.request import InferenceRequest
from tollway.gateway.routing.request_state import RequestState
from tollway.gateway.wiring import Gateway, build
from tollway.simulations.world.callback_path import CallbackPath
from tollway.simulations.world.clock import VirtualLoop
from tollway.simulations.world.ledger_link import LedgerLine
from tollway.simulations.world.records import Records
from tollway.simulations.world.scenario import ROUTE, Scenario, settings_document
from tollway.simulations.world.servers import Line, Load, Lot, Server, Wire
from tollway.simulations.world.truth import Truth, reveal, usage
from tollway.simulations.world.workload import Requests, draw

CHUNK = 20_000  # requests converted from arrays to lists at a time
EAGER_S = 0.1  # how often the leases of several gateways are renewed, as in production
NONE, FAILED, REFUSED = -1, -2, -3
"""Values of `Run.arm` for unanswered requests: never asked, failed, refused by a budget."""

Floats = NDArray[np.float64]

OVER_BUDGET = frozenset({"budget_exhausted", "budget_downgraded", "cost_ceiling"})


@dataclass(slots=True)
class Run:
    """The result of a run: one entry per request, in order of arrival.

    arm: the arm that answered, or FAILED or REFUSED. right: whether the answer was right. cost_usd:
    the cost of all attempts. latency_s: until the answer or the refusal. fallback: whether another
    backend had failed before.
    """

    scenario: Scenario
    seed: int
    requests: Requests
    truth: Truth
    arm: NDArray[np.int64]
    right: NDArray[np.bool_]
    cost_usd: Floats
    latency_s: Floats
    fallback: NDArray[np.bool_]
    budgets: list[dict[str, Any]] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    labels: int = 0
    explored_usd: float = 0.0


class World:
    """A running scenario."""

    # The mutable state is the gateways, the servers, and what has happened to each request.

    def __init__(self, scenario: Scenario, seed: int, journal: Path | None) -> None:
        self.scenario = scenario
        self.seed = seed
        self.loop = VirtualLoop()  # type: ignore[abstract]
        self._start_s = scenario.start_s
        self.requests = draw(scenario, seed)
        self.truth = reveal(scenario, self.requests)
        self.ledger = MemoryLedger(self.wall)
        self.labels = 0
        count = len(self.requests)
        self.arm = [NONE] * count
        self.right = [False] * count
        self.cost_nano = [0] * count
        self.latency_s = [0.0] * count
        self.fallback = [False] * count
        self.under_way = 0
        first = self.truth.stretches[0].conditions
        self.servers = [
            Server(
                random.Random(seed * 1009 + at),
                places=backend.servers,
                queue=backend.queue,
                condition=first[at],
            )
            for at, backend in enumerate(scenario.backends)
        ]
        self.arms = {backend.name: at for at, backend in enumerate(scenario.backends)}
        self.nodes = [Node(self, number, journal) for number in range(scenario.gateways)]

    def wall(self) -> float:
        """Return the time of day."""
        return self._start_s + self.loop.now_s

    async def live(self) -> None:
        """Start the gateways, run the scenario to its end, and close them."""
        for node in self.nodes:
            await node.open()
        for number, stretch in enumerate(self.truth.stretches[1:], 1):
            self.loop.at(stretch.start_s, self._change, number)
        arrivals = self._arrivals()
        self._arrive(arrivals)
        await asyncio.sleep(self.scenario.seconds)
        while self.under_way:  # noqa: ASYNC110 - the last replies; virtual time is free
            await asyncio.sleep(1.0)
        for node in self.nodes:
            await node.close()

    # -- requests

    def _arrivals(self) -> Iterator[tuple[int, float, int, str, dict[str, Any]]]:
        requests, truth = self.requests, self.truth
        tenants, kinds, table = requests.tenants, requests.kinds, requests.table
        log_tokens = np.log(requests.tokens / self.scenario.workload.prompt_tokens)
        for start in range(0, len(requests), CHUNK):
            at = slice(start, min(start + CHUNK, len(requests)))
            columns = zip(
                range(start, at.stop),
                requests.at_s[at].tolist(),
                requests.gateway[at].tolist(),
                requests.tenant[at].tolist(),
                requests.shown[at].tolist(),
                np.stack([requests.sees[at], log_tokens[at]], axis=1).tolist(),
                truth.service_s[at].tolist(),
                truth.quality[at].tolist(),
                truth.output_tokens[at].tolist(),
                requests.tokens[at].tolist(),
                requests.luck[at].tolist(),
                requests.sure[at].tolist(),
                requests.row[at].tolist(),
                strict=True,
            )
            for number, at_s, node, tenant, kind, seen, *lot, row in columns:
                data: dict[str, Any] = {"lot": Lot(*lot), "x": seen, "kind": kinds[kind]}
                if table is not None:
                    data["prompt"] = table.prompts[row]
                yield number, at_s, node, tenants[tenant], data

    def _arrive(self, arrivals: Iterator[tuple[int, float, int, str, dict[str, Any]]]) -> None:
        """Submit the requests, each at its arrival time."""
        loop, nodes = self.loop, self.nodes
        labelled = self.requests.labelled.tolist()

        def arrive(request: tuple[int, float, int, str, dict[str, Any]]) -> None:
            number, _, node, tenant, data = request
            following = next(arrivals, None)
            if following is not None:
                loop.at(following[1], arrive, following)
            nodes[node].ask(number, tenant, data, labelled[number])

        first = next(arrivals, None)
        if first is not None:
            loop.at(first[1], arrive, first)

    # -- what happens

    def _change(self, number: int) -> None:
        """Begin a stretch and apply its changes."""
        stretch = self.truth.stretches[number]
        for server, condition in zip(self.servers, stretch.conditions, strict=True):
            server.condition = condition
        for node in self.nodes:
            node.learn_of(self.truth.stretches[number - 1].conditions, stretch.conditions)
        for change in self.scenario.changes:
            if change.at_h * 3600.0 != stretch.start_s:
                continue
            if change.cut is not None:
                for at, node in enumerate(self.nodes):
                    node.line.cut = at in change.cut
            if change.budget is not None and change.limit_usd is not None:
                self._set_limit(change.budget, int(change.limit_usd * NANO_PER_USD))

    def _set_limit(self, budget: str, limit_nano: int) -> None:
        """Change a budget at the ledger, as an operator would."""
        budgets = [one.to_budget() for one in self.nodes[0].gateway.settings.budgets]
        admin = BudgetAdmin(self.ledger, budgets, self.wall)
        act = admin.set_limit(budget, limit_nano, "operator", "change in the scenario")
        self.loop.strand(act, _sound)

    def count_budgets(self) -> list[dict[str, Any]]:
        """Return every window of every budget, as the ledger has them at the end."""
        windows = {budget.name: budget.window for budget in self.nodes[0].gateway.settings.budgets}
        return [
            {
                "budget": one.budget,
                "window_start_s": one.window_start_s,
                "limit_usd": to_usd(one.limit_nano),
                "spent_usd": to_usd(one.spent_nano),
                "unaccounted_usd": to_usd(one.unaccounted_nano),
            }
            for one in sorted(self.ledger.books(), key=lambda one: (one.budget, one.window_start_s))
            if one.window_start_s or windows[one.budget] == "lifetime"
        ]


class Node:
    """One gateway of the simulation."""

    # The mutable state is whether a resolution is scheduled, and whether the run has ended.

    def __init__(self, world: World, number: int, journal: Path | None) -> None:
        scenario, loop = world.scenario, world.loop
        self.world = world
        self.loop = loop
        self.line = LedgerLine(world.ledger, loop, scenario.ledger_ms / 1000.0)
        ledger: Ledger = self.line if scenario.gateways > 1 or scenario.ledger_ms else world.ledger
        self.records = Records(f"s{world.seed}g{number}", journal, keep=len(world.requests))
        self.gateway: Gateway = build(
            config.Settings(**settings_document(scenario)),
            clock=loop.time,
            wall=world.wall,
            rng=random.Random(world.seed * 7919 + number),
            ledger=ledger,
            journal=self.records,
        )
        self.route: RoutePlan = self.gateway.routes[ROUTE]
        self.all: dict[str, Target] = dict(self.route.backends)
        self._tick_s = (
            min(scenario.pacing_interval_s, RENEW_S) if scenario.gateways == 1 else EAGER_S
        )
        self._resolving = self._closed = False
        self.path = CallbackPath(self.gateway.driver, loop)
        self._set_up()

    def _set_up(self) -> None:
        route, wire = self.route, Wire()
        route.protocol = wire
        for at, backend in enumerate(self.all.values()):
            backend.protocol, backend.slots = wire, None
            backend.kind = self.world.scenario.backends[at].kind
            backend.transport = Line(self.loop, self.world.servers[at], at, route.cascade)
        there = self.world.truth.stretches[0].conditions
        route.backends = {
            name: backend
            for (name, backend), condition in zip(self.all.items(), there, strict=True)
            if condition.there
        }

    async def open(self) -> None:
        """Open the reservations and start the scheduled jobs."""
        await self.gateway.reservations.open(tick_s=self._tick_s)
        self._pace()

    async def close(self) -> None:
        """Return the leases to the ledger."""
        self._closed = True
        self.line.cut = False
        await self.gateway.reservations.close()
        self.records.close()

    # -- requests and feedback

    def ask(self, number: int, tenant: str, data: dict[str, Any], labelled: bool) -> None:
        """Send a request through the router."""
        world, now_s = self.world, self.loop.now_s
        world.under_way += 1
        call = Call(b"POST", b"/", [], b"", Payload(data))
        inference = InferenceRequest(self.route, tenant, call, now_s, now_s + self.route.timeout_s)

        def ended(state: RequestState | None, error: Exception | None) -> None:
            world.under_way -= 1
            world.latency_s[number] = self.loop.now_s - now_s
            if state is None:
                if not isinstance(error, RequestRefused):
                    raise error or AssertionError
                self._refused(number, error)
            else:
                self._answered(number, state, labelled)
            self._look()

        self.path.answer(inference, ended, now_s)
        self._look()

    def _answered(self, number: int, state: RequestState, labelled: bool) -> None:
        world, held = self.world, state.held
        assert held is not None
        right = bool(held.outcome.answer.value)
        world.arm[number] = world.arms[held.backend]
        world.right[number] = right
        world.cost_nano[number] = state.cost_nano
        world.fallback[number] = held.fallback
        if labelled:
            self.loop.at(
                self.loop.now_s + float(world.requests.delay_s[number]),
                self._feed,
                (state.id, float(right != bool(world.requests.lies[number]))),
            )
        else:
            self.records.forget(state.id)

    def _refused(self, number: int, error: RequestRefused) -> None:
        world = self.world
        world.arm[number] = REFUSED if error.reason in OVER_BUDGET else FAILED
        world.cost_nano[number] = error.cost_nano

    def _feed(self, label: tuple[str, float]) -> None:
        decision, quality = label
        if not self._closed:
            self.gateway.learner.take(Feedback(decision, quality=quality), None)
            self.world.labels += 1
            self._look()

    # -- scheduled jobs

    def _look(self) -> None:
        """Check for work that the production scheduler would notice within 20 ms."""
        if not self._resolving and self.route.policy.resolve_due():
            self._resolving = True
            self.loop.at(self.loop.now_s + RESOLVE_S, self._resolve)

    def _resolve(self, _: object) -> None:
        self._resolving = False
        resolve(self.gateway.routes, self.gateway.events)

    def _pace(self, _: object = None) -> None:
        self.gateway.pacing.pace()
        self._look()
        if not self._closed:
            self.loop.at(self.loop.now_s + self.world.scenario.pacing_interval_s, self._pace)

    def learn_of(self, before: Sequence[Any], now: Sequence[Any]) -> None:
        """Apply announced changes: new prices and added backends."""
        policy = self.route.policy
        for name, old, new in zip(self.all, before, now, strict=True):
            backend = self.all[name]
            if new.there and name not in self.route.backends:
                self.route.backends[name] = backend
            if new.price != old.price:
                usual = _usual(self.world, name)
                was_nano, is_nano = old.price.cost_nano(usual), new.price.cost_nano(usual)
                backend.reprice(new.price)
                policy.reprice(name, is_nano / was_nano if was_nano else 1.0)
        self._look()


def _usual(world: World, name: str) -> Any:
    """Return the usage of a typical call, for comparing prices."""
    backend = world.scenario.backends[world.arms[name]]
    tokens = float(world.scenario.workload.prompt_tokens)
    return usage(float(backend.latency_s), tokens, float(backend.output_tokens))


def _sound(_: object, error: Exception | None) -> None:
    if error is not None:
        raise error


def run(scenario: Scenario, *, seed: int | None = None, journal: Path | None = None) -> Run:
    """Run a scenario; `seed` overrides its own, `journal` is the folder of the journals."""
    world = World(scenario, scenario.seed if seed is None else seed, journal)
    gc.collect()
    gc.freeze()  # the simulation's tables live until the end: exclude them from collection
    try:
        world.loop.run(world.live())
    finally:
        gc.unfreeze()
    return Run(
        scenario=scenario,
        seed=world.seed,
        requests=world.requests,
        truth=world.truth,
        arm=np.array(world.arm, np.int64),
        right=np.array(world.right, bool),
        cost_usd=np.array(world.cost_nano, float) / NANO_PER_USD,
        latency_s=np.array(world.latency_s),
        fallback=np.array(world.fallback, bool),
        budgets=world.count_budgets(),
        loads=[server.load for server in world.servers],
        events=[event for node in world.nodes for event in node.gateway.events.newest()[::-1]],
        labels=world.labels,
        explored_usd=sum(
            node.route.policy.figures().get("explored_usd", 0.0) for node in world.nodes
        ),
    )
