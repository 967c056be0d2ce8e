"""Builds the path of a request: the router, the driver, and the sinks of its results."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tollway.gateway import settings as config
from tollway.gateway.anomalies.activity import ActivityCounter
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.learning.device_costs import DeviceCosts
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.routing.attempts import Attempts
from tollway.gateway.routing.bodies.buffers import Buffers
from tollway.gateway.routing.bodies.large_documents import LargeDocuments
from tollway.gateway.routing.cached.repeated import Repeats
from tollway.gateway.routing.driver import Driver
from tollway.gateway.routing.objects.background import BackgroundCalls
from tollway.gateway.routing.objects.free_calls import FreeCalls
from tollway.gateway.routing.objects.references import Objects
from tollway.gateway.routing.observer import Observer
from tollway.gateway.routing.reserving import Reserving
from tollway.gateway.routing.router import Router
from tollway.gateway.routing.settlement import Settlement
from tollway.gateway.routing.sinks import Sinks
from tollway.gateway.routing.sinks.demand import Arrivals, DemandSink
from tollway.gateway.routing.sinks.journal import JournalSink
from tollway.gateway.routing.sinks.policy import charge_policy
from tollway.gateway.storage.journal import Journal
from tollway.gateway.storage.object_owners import ObjectOwners
from tollway.gateway.wiring.shared import build_buffers


@dataclass(frozen=True, slots=True)
class RequestPath:
    """The driver, the parts that audits and admission share, and what the sinks collect."""

    driver: Driver
    repeats: Repeats
    free: FreeCalls
    objects: Objects
    background: BackgroundCalls
    reserving: Reserving
    attempts: Attempts
    sinks: Sinks
    recent: deque[str]
    arrivals: Arrivals
    buffers: Buffers
    documents: LargeDocuments


def build_path(
    settings: config.Settings,
    reservations: Reservations,
    journal: Journal,
    metrics: Metrics,
    activity: ActivityCounter,
    *,
    owners: ObjectOwners,
    clock: Callable[[], float],
    wall: Callable[[], float],
    rng: Random,
    costs: DeviceCosts,
) -> RequestPath:
    """Return the path. The sinks are notified of each request in registration order."""
    sinks, reserving = Sinks(), Reserving(reservations)
    observers: list[Observer] = [metrics, activity, costs]
    settlement = Settlement(reservations, observers, sinks.ended, clock=clock, wall=wall)
    buffers, documents = build_buffers(settings), LargeDocuments(clock)
    objects, background = Objects(owners), BackgroundCalls(settlement, clock=clock)
    attempts = Attempts(
        settlement, objects, background, buffers=buffers, documents=documents, clock=clock
    )
    decisions, arrivals = JournalSink(journal, wall=wall), Arrivals()
    sinks.add(answered=decisions.answered, repeated=decisions.repeated, ended=decisions.ended)
    sinks.add(answered=DemandSink(arrivals).answered)
    sinks.add(answered=metrics.answered, repeated=metrics.repeated)
    sinks.add(ended=charge_policy)
    driver = Driver(Router(reservations, rng=rng), reserving, attempts, sinks, clock=clock)
    free = FreeCalls(attempts, objects, background, metrics.answered, clock=clock)
    return RequestPath(
        driver=driver,
        repeats=Repeats(sinks, observers),
        free=free,
        objects=objects,
        background=background,
        reserving=reserving,
        attempts=attempts,
        sinks=sinks,
        recent=decisions.recent,
        arrivals=arrivals,
        buffers=buffers,
        documents=documents,
    )
