"""The worker group: the workers of one gateway, as one of them sees the others.

A worker's report holds its metrics, spend and events. To answer for the whole gateway, a worker
asks the others for their reports and adds them up. Each worker also writes its report to the shared
folder every second, and at its start takes over the report of its predecessor. So a counter never
decreases when a worker dies, and loses at most that second. (Spend stays exact in any case, in the
ledger and in the journal.)

Feedback goes to the one worker that learns, regardless of which worker received it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.learning.feedback import ADMIN
from tollway.gateway.observability import aggregation
from tollway.gateway.observability.counters import Metrics
from tollway.gateway.observability.events import EventLog
from tollway.gateway.routing.refusals import RequestRefused
from tollway.gateway.storage import snapshot_file
from tollway.gateway.workers.identity import LEARNER, WorkerIdentity
from tollway.gateway.workers.rpc import WorkerRpc, WorkerSilent

log = logging.getLogger("tollway.crew")

Spend = dict[tuple[str, str, str], int]
Taught = list[dict[str, str]]
Teach = Callable[[list[Any], str | None, str], Awaitable[Taught]]

LEAVE_SHARE = 50  # a report of thousands of tenants takes tens of milliseconds
LEARNER_TRIES = 3  # each of TIMEOUT_S and a pause; a learner that died is back within a second
LEARNER_PAUSE_S = 0.5


@dataclass(slots=True)
class WorkerReport:
    """Reports of workers, added up."""

    families: list[aggregation.Family] = field(default_factory=list)
    spend: Spend = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    tags: dict[str, int] = field(default_factory=dict)  # "key=value": nano-dollars

    def document(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        spend = [[*key, nano] for key, nano in self.spend.items()]
        told = {"families": self.families, "spend": spend, "events": self.events}
        return {**told, "tags": self.tags}

    def __add__(self, other: "WorkerReport") -> "WorkerReport":
        spend = dict(self.spend)
        for key, nano in other.spend.items():
            spend[key] = spend.get(key, 0) + nano
        tags = dict(self.tags)
        for tag, nano in other.tags.items():
            tags[tag] = tags.get(tag, 0) + nano
        events = sorted(self.events + other.events, key=lambda event: -event["time"])
        return WorkerReport(aggregation.add([self.families, other.families]), spend, events, tags)


def read(document: dict[str, Any]) -> WorkerReport:
    """Parse a report from its document."""
    spend = {(route, backend, tenant): nano for route, backend, tenant, nano in document["spend"]}
    return WorkerReport(document["families"], spend, document["events"], document["tags"])


class WorkerGroup:
    """Represents all workers of this gateway; with a single process, only itself."""

    # The mutable state is the predecessor's report, and the time of the next report.

    def __init__(
        self,
        identity: WorkerIdentity,
        *,
        metrics: Metrics,
        events: EventLog,
        wallet: Reservations,
        teach: Teach,
    ) -> None:
        """`teach` makes this process learn from feedback (a list, and its sender)."""
        self._identity = identity
        self._metrics = metrics
        self._events = events
        self._wallet = wallet
        self._teach = teach
        self._peers = WorkerRpc(identity.folder, identity.index) if identity.folder else None
        self._inherited = WorkerReport()
        self._due_s = 0.0

    @property
    def alone(self) -> bool:
        """Whether this is a gateway of one process."""
        return self._peers is None

    async def open(self) -> None:
        """Take over the predecessor's report, and start to answer the other workers."""
        if self._peers is None:
            return
        left = self._left(self._identity.index)
        self._inherited = WorkerReport(
            aggregation.lasting(left.families), left.spend, left.events, left.tags
        )
        answers = {"report": self._answer_report, "tell": self._answer_tell}
        if self._identity.learns:
            answers["teach"] = self._answer_teach
        await self._peers.open(answers)

    async def close(self) -> None:
        """Write the last report, and stop answering."""
        if self._peers is not None:
            await self._peers.close()
            self.leave()

    # ------------------------------------------------------------------ reports

    def mine(self) -> WorkerReport:
        """Return this worker's report."""
        metrics = self._metrics
        return self._inherited + WorkerReport(
            metrics.families(), metrics.spend_nano(), self._events.newest(), metrics.tags_nano()
        )

    async def all(self) -> WorkerReport:
        """Return the reports of all workers, with the budgets' current figures from the ledger."""
        await self.settle()
        if self._peers is None:
            return self.mine()
        reports = await asyncio.gather(*map(self._ask, self._identity.others))
        return sum(reports, start=self.mine())

    async def families(self) -> list[aggregation.Family]:
        """Return the metrics of all workers, added up."""
        return (await self.all()).families

    async def _ask(self, index: int) -> WorkerReport:
        assert self._peers is not None
        try:
            return read(await self._peers.ask(index, "report"))
        except WorkerSilent:  # dead or dying: use its last report, without the gauges
            left = self._left(index)
            return WorkerReport(
                aggregation.lasting(left.families), left.spend, left.events, left.tags
            )

    async def settle(self) -> None:
        """Report all workers' settlements to the ledger, and refresh this worker's figures."""
        if self._peers is None:
            return
        asked = [self._peers.ask(index, "tell") for index in self._identity.others]
        await asyncio.gather(self._wallet.tell(), *asked, return_exceptions=True)
        try:
            await self._wallet.refresh(0.0)
        except LedgerUnavailable:  # the scheduled sync reports it; show the known figures
            log.debug("the ledger does not answer")

    def leave_in_turn(self) -> None:
        """Write a report, unless that would take more than a fiftieth of the time."""
        started_s = time.monotonic()
        if started_s >= self._due_s:
            self.leave()
            self._due_s = started_s + LEAVE_SHARE * (time.monotonic() - started_s)

    def leave(self) -> None:
        """Write this worker's report for the other workers and its successor."""
        assert self._identity.folder is not None
        blob = orjson.dumps(self.mine().document())
        snapshot_file.write(self._path(self._identity.index), blob, durable=False)

    def _left(self, index: int) -> WorkerReport:
        try:
            return read(orjson.loads(self._path(index).read_bytes()))
        except FileNotFoundError:
            return WorkerReport()

    def _path(self, index: int) -> Path:
        assert self._identity.folder is not None
        return self._identity.folder / f"{index}.report"

    # ------------------------------------------------------------------ learning

    async def teach(self, told: list[Any], tenant: str | None, by: str = ADMIN) -> Taught:
        """Make the learner learn from feedback, and return its results; refused if it is gone."""
        if self._identity.learns:
            return await self._teach(told, tenant, by)
        assert self._peers is not None
        for _ in range(LEARNER_TRIES):
            try:
                taught: Taught = await self._peers.ask(LEARNER, "teach", [told, tenant, by])
                return taught
            except WorkerSilent:
                await asyncio.sleep(LEARNER_PAUSE_S)
        why = "the worker that learns does not answer; try again"
        raise RequestRefused("learner_away", why, retry_after_s=1)

    # ------------------------------------------------------------------ what others ask

    async def _answer_report(self, told: Any) -> Any:
        return self.mine().document()

    async def _answer_tell(self, told: Any) -> Any:
        await self._wallet.tell()

    async def _answer_teach(self, told: Any) -> Any:
        return await self._teach(*told)
