"""The worker group: the workers of one gateway, as one of them sees the others.

A worker's report holds its metrics, spend, activity and events. To answer for the whole gateway, a
worker asks the others for their reports and adds them up. Each worker also writes its report to the
shared folder every second, and at its start takes over the report of its predecessor. So a counter
never decreases when a worker dies, and loses at most that second. (Spend stays exact in any case,
in the ledger and in the journal.)

Feedback goes to the one worker that learns, regardless of which worker received it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from tollway.gateway.anomalies import activity
from tollway.gateway.anomalies.activity import Activities, ActivityCounter
from tollway.gateway.anomalies.detector import Key
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.learning.feedback import ADMIN
from tollway.gateway.observability import aggregation
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.observability.events import EventLog
from tollway.gateway.observability.exposition import Exposition
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.storage import snapshot_file
from tollway.gateway.workers.identity import LEARNER, WorkerIdentity
from tollway.gateway.workers.rpc import WorkerRpc, WorkerSilent

Taught = list[dict[str, str]]
Teach = Callable[[list[Any], str | None, str], Awaitable[Taught]]

LEAVE_SHARE = 50  # a report of thousands of tenants takes tens of milliseconds
LEARNER_TRIES = 3  # each of TIMEOUT_S and a pause; a learner that died is back within a second
LEARNER_PAUSE_S = 0.5
FRESH_S = 0.2  # others report what they spend within 0.6 s (POLL_S and a tick): less than a second
SETTLE_S = 1.0  # a scrape must not wait for a ledger that hangs


@dataclass(slots=True)
class WorkerReport:
    """Reports of workers, added up."""

    families: list[aggregation.Family] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    tags: dict[str, int] = field(default_factory=dict)  # "key=value": nano-dollars
    activity: Activities = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "families": self.families,
            "events": self.events,
            "tags": self.tags,
            "activity": activity.document(self.activity),
        }

    @property
    def spend(self) -> dict[Key, int]:
        """The cost of each (route, backend, tenant) in nano-dollars."""
        return {key: count.cost_nano for key, count in self.activity.items()}

    def __add__(self, other: "WorkerReport") -> "WorkerReport":
        tags = dict(self.tags)
        for tag, nano in other.tags.items():
            tags[tag] = tags.get(tag, 0) + nano
        events = sorted(self.events + other.events, key=lambda event: -event["time"])
        return WorkerReport(
            aggregation.add([self.families, other.families]),
            events,
            tags,
            activity.add(self.activity, other.activity),
        )

    def lasting(self) -> "WorkerReport":
        """Return what still counts of a dead worker: all but its gauges."""
        return replace(self, families=aggregation.lasting(self.families))


def read(document: dict[str, Any]) -> WorkerReport:
    """Parse a report from its document."""
    return WorkerReport(
        document["families"],
        document["events"],
        document["tags"],
        activity.read(document["activity"]),
    )


class WorkerGroup:
    """Represents all workers of this gateway; with a single process, only itself."""

    # The mutable state is the predecessor's report, the time of the next report and the turn of
    # settling that is under way.

    def __init__(
        self,
        identity: WorkerIdentity,
        *,
        metrics: Metrics,
        exposition: Exposition,
        activity: ActivityCounter,
        events: EventLog,
        reservations: Reservations,
        teach: Teach,
    ) -> None:
        """`teach` makes this process learn from feedback (a list, and its sender)."""
        self._identity = identity
        self._metrics = metrics
        self._exposition = exposition
        self._activity = activity
        self._events = events
        self._reservations = reservations
        self._teach = teach
        self._peers = WorkerRpc(identity.folder, identity.index) if identity.folder else None
        self._inherited = WorkerReport()
        self._due_s = 0.0
        self._settling: asyncio.Task[None] | None = None

    @property
    def alone(self) -> bool:
        """Whether this gateway has a single process."""
        return self._peers is None

    async def open(self) -> None:
        """Take over the predecessor's report, and start to answer the other workers."""
        if self._peers is None:
            return
        self._inherited = self._left(self._identity.index).lasting()
        answers = {"report": self._answer_report, "sync": self._answer_sync}
        if self._identity.learns:
            answers["teach"] = self._answer_teach
        await self._peers.open(answers)

    async def close(self) -> None:
        """Write the last report, and stop answering."""
        if self._peers is not None:
            await self._peers.close()
            await self.leave()

    # ------------------------------------------------------------------ reports

    async def mine(self) -> WorkerReport:
        """Return this worker's report."""
        own = WorkerReport(
            await self._exposition.families(),
            self._events.newest(),
            self._metrics.tags_nano(),
            dict(self._activity.counts),
        )
        return self._inherited + own if self._inherited.families else own

    async def all(self) -> WorkerReport:
        """Return the reports of all workers; of several, with the ledger's current figures."""
        if self._peers is None:
            return await self.mine()
        await self.settle()
        mine, *reports = await asyncio.gather(self.mine(), *map(self._ask, self._identity.others))
        return await asyncio.to_thread(sum, reports, mine)

    async def _ask(self, index: int) -> WorkerReport:
        assert self._peers is not None
        try:
            return read(await self._peers.ask(index, "report"))
        except WorkerSilent:  # dead or dying: use its last report, without the gauges
            return self._left(index).lasting()

    async def settle(self) -> None:
        """Report all workers' settlements to the ledger, and refresh this worker's figures.

        Callers that come together share one turn, and wait for a slow ledger only so long: then
        they get the known figures.
        """
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle())
        await asyncio.wait([self._settling], timeout=SETTLE_S)

    async def _settle(self) -> None:
        if self._peers is None:
            await self._reservations.refresh(FRESH_S)
            return
        asked = [self._peers.ask(index, "sync") for index in self._identity.others]
        await asyncio.gather(self._reservations.sync_now(), *asked, return_exceptions=True)
        await self._reservations.refresh(0.0)

    async def leave_in_turn(self) -> None:
        """Write a report, unless that would take more than a fiftieth of the time."""
        started_s = time.monotonic()
        if started_s >= self._due_s:
            await self.leave()
            self._due_s = started_s + LEAVE_SHARE * (time.monotonic() - started_s)

    async def leave(self) -> None:
        """Write this worker's report for the other workers and its successor."""
        assert self._identity.folder is not None
        report, path = await self.mine(), self._path(self._identity.index)

        def write() -> None:
            snapshot_file.write(path, orjson.dumps(report.document()), durable=False)

        await asyncio.to_thread(write)

    def _left(self, index: int) -> WorkerReport:
        try:
            return read(orjson.loads(self._path(index).read_bytes()))
        except FileNotFoundError:
            return WorkerReport()

    def _path(self, index: int) -> Path:
        assert self._identity.folder is not None
        return self._identity.folder / f"{index}.report"

    # ------------------------------------------------------------------ learning

    async def teach(self, items: list[Any], tenant: str | None, by: str = ADMIN) -> Taught:
        """Make the learner learn from feedback, and return its results; refused if it is gone."""
        if self._identity.learns:
            return await self._teach(items, tenant, by)
        assert self._peers is not None
        for _ in range(LEARNER_TRIES):
            try:
                taught: Taught = await self._peers.ask(LEARNER, "teach", [items, tenant, by])
                return taught
            except WorkerSilent:
                await asyncio.sleep(LEARNER_PAUSE_S)
        why = "the worker that learns from feedback does not answer; try again"
        raise RequestRefused("learner_away", why, retry_after_s=1)

    # ------------------------------------------------------------------ calls of other workers

    async def _answer_report(self, argument: Any) -> Any:
        return (await self.mine()).document()

    async def _answer_sync(self, argument: Any) -> Any:
        await self._reservations.sync_now()

    async def _answer_teach(self, argument: Any) -> Any:
        return await self._teach(*argument)
