"""Scheduler: periodic jobs off the request path.

Each job is a method that does the work due at `now` and returns; `run` calls the jobs on timers.
The simulator calls them itself, at its own times.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import orjson

from tollway.backends.pricing import Price
from tollway.backends.types import UNBOUND
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.learning.pacing import Demand, Sharing, allowances_usd
from tollway.gateway.observability.events import EventLog
from tollway.gateway.routing.arrivals import Arrivals
from tollway.gateway.routing.route import Route
from tollway.gateway.storage import retained_snapshots, snapshot_file
from tollway.gateway.storage.journal import Journal
from tollway.policies.types import Context, Notice

log = logging.getLogger("tollway.upkeep")

RESOLVE_S = 0.02  # multipliers are due every few dozen requests; checking takes a microsecond
PACE_S = 1.0


class Scheduler:
    """Keeps multipliers, pacing, the journal on disk and snapshots up to date."""

    # The mutable state is each route's traffic, when it was last saved, and the tasks that run.

    def __init__(
        self,
        *,
        routes: Mapping[str, Route],
        wallet: Reservations,
        journal: Journal,
        arrivals: Arrivals,
        events: EventLog,
        state_dir: Path,
        fsync_s: float,
        snapshot_s: float,
        clock: Callable[[], float],
        wall: Callable[[], float],
        totals: Callable[[str], Callable[[int], int]],
        learns: bool = True,
        workers: int = 1,
        more: Sequence[tuple[float, Callable[[], Awaitable[None]]]] = (),
    ) -> None:
        """`totals` returns, for a route, the function that scales this worker's request count to
        all workers. Only the worker that `learns` saves. `workers` is their number. `more` are
        further jobs: (seconds, job).
        """
        self._totals = totals
        self._learns = learns
        self._workers = workers
        self._more = more
        self._routes = routes
        self._wallet = wallet
        self._journal = journal
        self._arrivals = arrivals
        self._events = events
        self._state_dir = state_dir
        self._fsync_s = fsync_s
        self._snapshot_s = snapshot_s
        self._clock = clock
        self._wall = wall
        self.saved_s: dict[str, float] = {}
        self._total: dict[str, Callable[[int], int]] = {}
        self._demands: dict[str, Demand] = {}
        self._sharing: defaultdict[str, Sharing] = defaultdict(Sharing)
        self._paced: dict[str, set[str]] = {}
        self.to_come: dict[str, float] = {}
        """For each pacing budget, the requests that it is expected to pay for in its window."""
        self.revise()
        self._tasks: list[asyncio.Task[None]] = []

    def revise(self) -> None:
        """Register new routes and forget removed ones."""
        self._arrivals.keep(self._routes)
        for name in self._demands.keys() - self._routes.keys():
            del self._demands[name], self._paced[name], self._total[name]
        for name in self._routes.keys() - self._demands.keys():
            self._demands[name], self._paced[name] = Demand(), set()
            self._total[name] = self._totals(name)

    def resolve(self) -> None:
        """Recompute the multipliers that are due."""
        for route in self._routes.values():
            if route.policy.resolve_due():
                route.policy.resolve()
            for change in route.policy.drain():
                if isinstance(change, Notice):
                    self._events.add(change.kind, route.name, change.text, **change.figures)
                    continue
                self._events.add(
                    "quality_changed",
                    route.name,
                    f"{change.arm}'s quality has changed by {change.amount:+.2f}, "
                    f"{change.since} labels ago",
                    arm=change.arm,
                    amount=change.amount,
                    labels_ago=change.since,
                )

    def pace(self) -> None:
        """Pass each policy the amount per request that the budgets allow."""
        statuses = self._wallet.status()
        now_s, wall_s = self._clock(), self._wall()
        for name, route in self._routes.items():
            own = self._arrivals.of(name)
            self._demands[name].tell(self._total[name](own), own, route.bound, now_s, wall_s)
        for status in statuses:
            self._sharing[status.budget.name].tell(status.spenders / self._workers, now_s)
        objectives = {name: route.objective.kind for name, route in self._routes.items()}
        told = allowances_usd(statuses, self._demands, wall_s, self._sharing, objectives)
        self.to_come = {p.budget: p.to_come for paces in told.values() for p in paces.values()}
        for name, allowances in told.items():
            route, gone = self._routes[name], self._paced[name] - allowances.keys()
            route.paced_by = {scope: pace.budget for scope, pace in allowances.items()}
            for scope in gone | {""}:
                if scope not in allowances:
                    route.policy.pace(None, scope)
            for scope, pace in allowances.items():
                route.policy.pace(pace.allowance_usd, scope)
            self._paced[name] = allowances.keys() - {""}

    def reprice(self) -> None:
        """Apply the prices for this time of day, and pass them to the policies.

        A call is charged at the price when it ends, as DeepSeek does, the provider with such
        prices. Its maximum cost is calculated for the most expensive hour.
        """
        now_s = self._wall()
        changed: dict[str, tuple[Price, Price]] = {}
        for route in self._routes.values():
            for name, backend in route.backends.items():
                if backend.tariff is None:
                    continue
                was, price = backend.price, backend.tariff.at_time(now_s)
                if price is not was:
                    backend.price = price
                    changed[name] = was, price
        for name, (was, price) in changed.items():
            for route in self._routes.values():
                if name in route.backends:
                    route.policy.reprice(name, ratio(route.estimator, name, was, price))

    def snapshot(self, name: str) -> bytes:
        """Return the data to save for a route; OSError if a regressor cannot be written."""
        route = self._routes[name]
        parts = {
            "policy": route.policy.save(),
            "estimator": route.estimator.save(),
            "features": route.features.save(),
            "auditor": orjson.dumps(route.auditor.save() if route.auditor else None),
            "demand": orjson.dumps(self._demands[name].save()),
            "influence": orjson.dumps(route.influence.save()),
            "traffic": orjson.dumps(route.traffic.save()),
        }
        return snapshot_file.pack(parts, self._wall())

    def restore(self) -> dict[str, float]:
        """Load the routes' snapshots and return the time of each valid one.

        A damaged snapshot is set aside and reported; the route then relearns from its journal.
        """
        times = {}
        for name, route in self._routes.items():
            path = self._path(name)
            asked = retained_snapshots.restore(self._state_dir, name)
            if asked.exists() and self._learns:
                path = asked  # an operator's request takes precedence over the saved state
            try:
                parts, time_s = snapshot_file.unpack(path.read_bytes())
                take = route.policy.load if self._learns else route.policy.adopt
                take(parts["policy"])
                route.estimator.load(parts["estimator"])
                route.features.load(parts["features"])
                audited = orjson.loads(parts["auditor"])
                self._demands[name].load(orjson.loads(parts.get("demand", b"{}")))
                # One worker's lease must not be handed to every worker.
                if self._learns and route.auditor is not None and audited is not None:
                    route.auditor.load(audited)
                if self._learns and "influence" in parts:  # older snapshots have none
                    route.influence.load(orjson.loads(parts["influence"]))
                    route.traffic.load(orjson.loads(parts["traffic"]))
                times[name] = time_s
                if path == asked:
                    asked.replace(self._path(name))
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError) as exc:
                aside = path.with_suffix(".damaged")
                path.replace(aside)
                self._events.add("snapshot_damaged", name, f"{exc}; set aside as {aside}")
        return times

    def _take_up(self, name: str) -> None:
        """Apply the snapshot that an operator requested, if there is one."""
        asked = retained_snapshots.restore(self._state_dir, name)
        try:
            parts, _ = snapshot_file.unpack(asked.read_bytes())
            route = self._routes[name]
            route.policy.load(parts["policy"])
            if "influence" in parts:
                route.influence.load(orjson.loads(parts["influence"]))
            asked.replace(self._path(name))
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as exc:
            aside = asked.with_suffix(".damaged")
            asked.replace(aside)
            self._events.add("snapshot_damaged", name, f"{exc}; set aside as {aside}")
            return
        self._events.add("policy_restored", name, "goes on with what an operator asked for")

    def _path(self, route: str) -> Path:
        return retained_snapshots.newest(self._state_dir, route)

    async def save(self) -> None:
        """Write the snapshots in a thread; report disk errors and retry at the next save."""
        for name in [*self._routes]:
            try:
                self._take_up(name)
                blob = self.snapshot(name)
                await asyncio.to_thread(snapshot_file.write, self._path(name), blob)
                self.saved_s[name] = self._wall()
                if retained_snapshots.due(self._state_dir, name, self._wall()):
                    at_s = self._wall()
                    await asyncio.to_thread(
                        retained_snapshots.keep, self._state_dir, name, blob, at_s
                    )
            except OSError as exc:
                self._events.add("snapshot_failed", name, f"not saved: {exc}")

    def start(self) -> None:
        """Run all jobs on timers, on the running loop."""
        self.reprice()
        duties = [
            (RESOLVE_S, at_once(self.resolve)),
            (PACE_S, at_once(self.pace)),
            (PACE_S, at_once(self.reprice)),
            (self._fsync_s, self._sync),
            *self._more,
        ]
        if self._learns:
            duties.append((self._snapshot_s, self.save))
        self._tasks = [asyncio.create_task(_every(*duty)) for duty in duties]

    async def _sync(self) -> None:
        self._journal.flush()
        await asyncio.to_thread(self._journal.sync)

    async def stop(self) -> None:
        """Stop the timers and save a last time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._learns:
            await self.save()


def ratio(estimator: CostEstimator, backend: str, was: Price, price: Price) -> float:
    """Return the factor by which a price changed, for a backend's current usage mix."""
    was_nano, is_nano = (
        estimator.quote(Context(()), backend, one, UNBOUND).expected_nano for one in (was, price)
    )
    return is_nano / was_nano if was_nano else 1.0


def at_once(duty: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    """Wrap a synchronous job as an asynchronous one."""

    async def run() -> None:
        duty()

    return run


async def _every(period_s: float, duty: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(period_s)
        try:
            await duty()
        except Exception:  # a failed job is retried; serving continues
            log.exception("upkeep failed; trying again in %.3g s", period_s)
