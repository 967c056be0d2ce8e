"""The crew: the workers of one gateway, as one of them sees the others.

What a worker says of itself is its report: its metrics, what it has spent, its events. Whoever is
asked for the gateway's asks the others for theirs and adds them up. Each also leaves its report in
the folder every second, and takes over at its start what the worker before it in its seat had left:
so a counter never falls when a worker dies, and lacks at most that second. (What it has spent is
exact all the same, in the ledger and in the journal.)

Feedback goes to the one worker that learns, whoever was sent it.
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

LEAVE_SHARE = 50  # with thousands of tenants a report takes tens of milliseconds
LEARNER_TRIES = 3  # of TIMEOUT_S and a pause each: a learner that died is back within a second
LEARNER_PAUSE_S = 0.5


@dataclass(slots=True)
class WorkerReport:
    """What workers say of themselves, added up."""

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
    """Return a report from its document."""
    spend = {(route, backend, tenant): nano for route, backend, tenant, nano in document["spend"]}
    return WorkerReport(document["families"], spend, document["events"], document["tags"])


class WorkerGroup:
    """Speaks for all workers of this gateway; for a gateway of one process, for itself."""

    # The mutable state is what was taken over from the seat's last worker, and when to leave more.

    def __init__(
        self,
        identity: WorkerIdentity,
        *,
        metrics: Metrics,
        events: EventLog,
        wallet: Reservations,
        teach: Teach,
    ) -> None:
        """`teach` has this process learn from feedback (a list, and whose it is)."""
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
        """Take over from the last worker of this seat, and answer the others."""
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
        """Leave the last report, and answer no more."""
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
        """Return what all workers say, the budgets' figures as the ledger has them now."""
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
        except WorkerSilent:  # dead or dying: what it last said, without what was true then only
            left = self._left(index)
            return WorkerReport(
                aggregation.lasting(left.families), left.spend, left.events, left.tags
            )

    async def settle(self) -> None:
        """Have the ledger know what all workers have settled, and this one what it knows."""
        if self._peers is None:
            return
        asked = [self._peers.ask(index, "tell") for index in self._identity.others]
        await asyncio.gather(self._wallet.tell(), *asked, return_exceptions=True)
        try:
            await self._wallet.refresh(0.0)
        except LedgerUnavailable:  # the wallet's upkeep says so; what is known is shown
            log.debug("the ledger does not answer")

    def leave_in_turn(self) -> None:
        """Leave a report, unless that would take more than a fiftieth of the time."""
        started_s = time.monotonic()
        if started_s >= self._due_s:
            self.leave()
            self._due_s = started_s + LEAVE_SHARE * (time.monotonic() - started_s)

    def leave(self) -> None:
        """Write this worker's report where the others, or its successor, find it."""
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
        """Have the learner learn from feedback; return its answers. Refused where it is gone."""
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
