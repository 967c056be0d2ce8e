"""Makes one move of a model: in the audit log, at its server, and in the registry.

The order is: the audit log (a move that cannot be recorded is not made), the model server, the
record on disk, the configuration in effect, the rollout, and last the registry's aliases and tags.
A crash at any point leaves a record from which the same move is made again, and each part of a move
can be repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tollway.gateway.observability.events import EventLog
from tollway.gateway.registry.criteria import Criteria
from tollway.gateway.registry.lifecycle import (
    CONFIRM,
    HURRY,
    OUTCOME,
    SERVE,
    SETTLE,
    STOP,
    TRY,
    WITHDRAW,
    Move,
    Trial,
)
from tollway.gateway.registry.loading import Loader, LoadFailed
from tollway.gateway.registry.port import CHALLENGER, CHAMPION, RegisteredModel, Registry
from tollway.gateway.registry.records import Record, Records, place_of
from tollway.gateway.settings.registry.model import ModelConfig
from tollway.gateway.settings.registry.template import BadVersion
from tollway.gateway.storage import audit_log
from tollway.gateway.storage.audit_log import Actor, AuditLog

REGISTRY = Actor("registry", "alias")
ROLLOUT = Actor("rollout", "rollout")
REPORT_MAX = 40  # figures of a rollout that become tags
_TITLES = {
    SERVE: "model served",
    TRY: "model tried",
    CONFIRM: "model promoted",
    SETTLE: "model settled",
    WITHDRAW: "model withdrawn",
    HURRY: "model promoted now",
    STOP: "model stopped",
}


class MoveFailed(Exception):  # noqa: N818 - reads as what happened
    """A move could not be made now."""


class Rollouts(Protocol):
    """The rollouts, as the life of a version needs them. Each raises MoveFailed."""

    async def trial(self, rollout: str) -> Trial | None:
        """Return where a rollout is; None if it was never started."""

    async def start(self, rollout: str, why: str) -> str:
        """Start a rollout, or join it if it runs already; return its run."""

    async def promote(self, rollout: str, why: str) -> None:
        """Send everything to the candidate now."""

    async def abort(self, rollout: str, why: str) -> None:
        """Send everything to the stable version now."""


@dataclass(frozen=True, slots=True)
class Managed:
    """A model, the name of its rollout if it has one, and the address of its backend."""

    model: ModelConfig
    rollout: str | None
    address: str


@dataclass(frozen=True, slots=True)
class Parts:
    """What moves are made with. `apply` reloads the configuration, with the records in effect."""

    registry: Registry
    records: Records
    rollouts: Rollouts | None
    apply: Callable[[Actor], Awaitable[Any]]
    audit: AuditLog
    events: EventLog


@dataclass(slots=True)
class Step:
    """One move of one model."""

    parts: Parts
    one: Managed
    seen: RegisteredModel
    move: Move
    trial: Trial | None
    unload: Callable[[Managed, str], None]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.one.model.name

    @property
    def record(self) -> Record:
        """The model's record at present."""
        return self.parts.records.get(self.name)

    async def make(self) -> str:
        """Make the move, with two lines in the audit log; return why it was refused, or ""."""
        before, kind = self.record, self.move.kind
        begun = await self._write(audit_log.BEGUN, before, self.move.why)
        try:
            why = await self._made()
        except BaseException as exc:
            await self._write(audit_log.UNKNOWN, before, f"{self.move.why}; {exc}", begun)
            raise
        outcome = audit_log.REFUSED if why else audit_log.DONE
        await self._write(outcome, before, why or self.move.why, begun)
        text = f"version {self.move.version}: {_TITLES[kind]}"
        told = f"{text}{' [refused]' if why else ''}; {why or self.move.why}"
        self.parts.events.add("model_moved", self.name, told, version=self.move.version, move=kind)
        return why

    async def _made(self) -> str:
        """Make the move; return why the version is refused, or ""."""
        match self.move.kind:
            case "serve":
                return await self._serve()
            case "try":
                return await self._try()
            case "confirm":
                await self._confirm()
            case "settle":
                await self._settle()
            case "withdraw":
                await self._withdraw()
            case "hurry":
                await self._rollouts().promote(self._rollout(), self.move.why)
            case "stop":
                await self._rollouts().abort(self._rollout(), self.move.why)
        return ""

    async def _serve(self) -> str:
        former, version = self.record.champion, self.move.version
        await self._load(version)
        await self._put(replace(self.record, champion=version))
        await self._stages(version, former)
        return ""

    async def _try(self) -> str:
        version, record, registry = self.move.version, self.record, self.parts.registry
        if record.challenger != version:
            if why := await self._lacks(version):
                return await self._refuse(version, why)
            try:
                await self._load(version)
            except MoveFailed as exc:
                return await self._refuse(version, str(exc))
            if self.seen.aliases.get(CHALLENGER) != version:
                await registry.set_alias(self.name, CHALLENGER, version)
            await self._put(replace(record, challenger=version, run="", newest=version))
        else:  # the gateway ended before the rollout was started
            await self._apply_records()
        run = await self._rollouts().start(
            self._rollout(), f"version {version} of {self.name}: {self.move.why}"
        )
        await self._keep(replace(self.record, run=run, confirmed=False))
        await registry.set_tags(
            self.name, version, {"tollway.stage": "Staging", "tollway.rollout": run}
        )
        return ""

    async def _confirm(self) -> None:
        version = self.move.version
        await self.parts.registry.set_tags(self.name, version, self._evidence("promoted"))
        await self.parts.registry.set_alias(self.name, CHAMPION, version)
        await self.parts.registry.set_alias(self.name, CHALLENGER, None)
        await self._keep(replace(self.record, confirmed=True))

    async def _settle(self) -> None:
        version, former = self.move.version, self.record.champion
        if not self.record.confirmed:
            await self._confirm()
        # The backend has the new version before the candidate goes, so no request is without one.
        await self._put(replace(self.record, champion=version))
        await self._put(replace(self.record, challenger="", run="", confirmed=False))
        await self._stages(version, former)

    async def _withdraw(self) -> None:
        version, record, registry = self.move.version, self.record, self.parts.registry
        await registry.set_tags(
            self.name, version, {**self._evidence("withdrawn"), "tollway.stage": "None"}
        )
        if self.seen.aliases.get(CHALLENGER) == version:
            await registry.set_alias(self.name, CHALLENGER, None)
        if self.seen.aliases.get(CHAMPION) == version:
            await registry.set_alias(self.name, CHAMPION, record.champion or None)
        await self._put(replace(record, challenger="", run="", confirmed=False))
        self.unload(self.one, version)

    async def _lacks(self, version: str) -> str:
        """Return what a version lacks to be tried; "" if nothing."""
        asked = self.one.model.requires
        criteria = Criteria(asked.accuracy, asked.p95_ms, asked.error_rate, asked.value_usd)
        if criteria == Criteria():
            return ""
        found = self.seen.get(version)
        assert found is not None
        judged = criteria.judge(await self.parts.registry.metrics(self.name, found))
        return "" if judged.outcome == "met" else judged.text

    async def _refuse(self, version: str, why: str) -> str:
        """Write down that a version is not tried, so that it is not looked at again."""
        registry = self.parts.registry
        tags = {OUTCOME: "refused", "tollway.reason": why, "tollway.stage": "None"}
        await registry.set_tags(self.name, version, tags)
        if self.seen.aliases.get(CHALLENGER) == version:
            await registry.set_alias(self.name, CHALLENGER, None)
        await self._keep(replace(self.record, newest=version))
        return why

    async def _load(self, version: str) -> None:
        try:
            at = place_of(self.one.model, version)
            champion = self.record.champion
            if self.move.kind == TRY and champion:
                other = place_of(self.one.model, champion)
                if (at.url, at.model) == (other.url, other.model):
                    why = f"it has the address of the champion, version {champion}: give more ports"
                    raise MoveFailed(f"version {version} cannot be loaded: {why}")
            await Loader(self.one.model.load, self.one.address).load(at)
        except (LoadFailed, BadVersion) as exc:
            raise MoveFailed(f"version {version} cannot be loaded: {exc}") from exc

    async def _stages(self, version: str, former: str) -> None:
        await self.parts.registry.set_tags(self.name, version, {"tollway.stage": "Production"})
        if former and former != version and self.seen.get(former) is not None:
            await self.parts.registry.set_tags(self.name, former, {"tollway.stage": "Archived"})
            self.unload(self.one, former)

    def _evidence(self, outcome: str) -> dict[str, str]:
        tags = {OUTCOME: outcome, "tollway.reason": self.move.why}
        report = self.trial.report if self.trial is not None else {}
        tags |= {f"tollway.{key}": str(value) for key, value in list(report.items())[:REPORT_MAX]}
        return tags

    async def _put(self, record: Record) -> None:
        """Write a record and put it into effect; as before, if the configuration is refused."""
        before = self.record
        await self._keep(record)
        try:
            await self._apply_records()
        except BaseException:
            await self._keep(before)
            raise

    async def _apply_records(self) -> None:
        await self.parts.apply(Actor(f"model {self.name}", "registry"))

    async def _keep(self, record: Record) -> None:
        await asyncio.to_thread(self.parts.records.put, self.name, record)

    def _rollouts(self) -> Rollouts:
        assert self.parts.rollouts is not None
        return self.parts.rollouts

    def _rollout(self) -> str:
        assert self.one.rollout is not None
        return self.one.rollout

    async def _write(self, outcome: str, before: Record, why: str, begun: int | None = None) -> int:
        now = self.record
        values = {"champion": before.champion or None, "challenger": before.challenger or None}
        after = {"champion": now.champion or None, "challenger": now.challenger or None}
        actor = REGISTRY
        if self.trial is not None and self.move.kind in {CONFIRM, SETTLE, WITHDRAW}:
            actor = ROLLOUT.named(self.trial.by or ROLLOUT.who)
        return await asyncio.to_thread(
            self.parts.audit.write,
            _TITLES[self.move.kind],
            actor,
            outcome,
            about=f"{self.name} {self.move.version}",
            why=why,
            before=values,
            after=after if outcome != audit_log.BEGUN else {},
            begun=begun,
        )
