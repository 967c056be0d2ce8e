"""Keeps what is served in step with the registry: looks, and has the due moves made.

One process of a gateway does this. A move that fails is reported once as an event and made again
after a pause that grows; another move is made at once. A failure of one model does not hold up
another.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from tollway.gateway.budgets.protocol import LedgerUnavailable
from tollway.gateway.registry.lifecycle import Move, Trial, next_move
from tollway.gateway.registry.loading import Loader, LoadFailed
from tollway.gateway.registry.moves import Managed, MoveFailed, Parts, Step
from tollway.gateway.registry.port import RegisteredModel, RegistryUnavailable
from tollway.gateway.registry.records import place_of
from tollway.gateway.settings.errors import ConfigError
from tollway.gateway.settings.registry.template import BadVersion

PAUSES_S = (2.0, 5.0, 20.0, 60.0, 300.0)
"""After the first failure of a move, the second and so on; a day of failures has 300 lines in the
audit log."""


log = logging.getLogger(__name__)


class Keeper:
    """Moves the versions of the models in a registry."""

    # The mutable state is what was seen last, the moves that failed, and the tasks in progress.

    def __init__(self, parts: Parts, *, clock: Callable[[], float]) -> None:
        self.parts = parts
        self.seen: dict[str, RegisteredModel] = {}
        self.trials: dict[str, Trial | None] = {}
        self.faults: dict[str, str] = {}
        self.moves: dict[tuple[str, str], int] = {}
        self._clock = clock
        self._models: dict[str, Managed] = {}
        self._failed: dict[str, tuple[Move, int, float]] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._later: set[asyncio.Task[None]] = set()

    @property
    def models(self) -> Mapping[str, Managed]:
        """The models by name."""
        return self._models

    @property
    def served(self) -> dict[tuple[str, str], str]:
        """The version by model and alias, as the gateway serves them."""
        records = {name: self.parts.records.get(name) for name in self._models}
        served = {(name, "champion"): one.champion for name, one in records.items()}
        served |= {(name, "challenger"): one.challenger for name, one in records.items()}
        return {key: version for key, version in served.items() if version}

    def revise(self, models: Mapping[str, Managed]) -> None:
        """Replace the models with those of another configuration."""
        self._models = dict(models)
        tables: tuple[dict[str, Any], ...] = (self.seen, self.trials, self.faults, self._failed)
        for table in tables:
            for name in table.keys() - models.keys():
                del table[name]

    async def look(self) -> None:
        """Begin to look at each model that is not being looked at or moved."""
        for name, one in self._models.items():
            if name not in self._busy:
                task = asyncio.create_task(self._look_at(one))
                self._busy[name] = task
                task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        del self._busy[name]
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("looking at model %s failed", name, exc_info=exc)
            self._report(name, f"{type(exc).__name__}: {exc}")

    async def settled(self) -> None:
        """Return when nothing is in progress."""
        while self._busy:
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def aclose(self) -> None:
        """Stop what is in progress; its records say how to go on."""
        tasks = [*self._busy.values(), *self._later]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.parts.registry.aclose()

    async def _look_at(self, one: Managed) -> None:
        name = one.model.name
        try:
            move = await self._due(one)
            if move is not None and self._may(name, move):
                await self._make(one, move)
        except (RegistryUnavailable, MoveFailed, OSError) as exc:
            self._report(name, str(exc) or type(exc).__name__)
        else:
            if name not in self._failed and name in self.faults:
                del self.faults[name]
                self.parts.events.add("model_followed", name, "the registry is followed again")

    async def _due(self, one: Managed) -> Move | None:
        """Return the move that is due."""
        name, parts = one.model.name, self.parts
        seen = self.seen[name] = await parts.registry.model(name)
        tries = one.rollout is not None and parts.rollouts is not None
        trial = None
        if parts.rollouts is not None and one.rollout is not None:
            trial = await parts.rollouts.trial(one.rollout)
        self.trials[name] = trial
        record = parts.records.get(name)
        if not record.newest and seen.versions:
            # What was there before the gateway is not new.
            record = replace(record, newest=seen.versions[-1].version)
            await asyncio.to_thread(parts.records.put, name, record)
        return next_move(record, seen, trial, tries=tries, starts=one.model.start)

    def _may(self, name: str, move: Move) -> bool:
        """Return whether a move may be made now: not one that just failed."""
        failed = self._failed.get(name)
        return failed is None or failed[0] != move or self._clock() >= failed[2]

    async def _make(self, one: Managed, move: Move) -> None:
        name = one.model.name
        step = Step(self.parts, one, self.seen[name], move, self.trials[name], self.unload_later)
        try:
            refused = await step.make()
        except (RegistryUnavailable, MoveFailed, ConfigError, LedgerUnavailable, OSError) as exc:
            before = self._failed.get(name)
            count = before[1] + 1 if before is not None and before[0] == move else 0
            pause_s = PAUSES_S[min(count, len(PAUSES_S) - 1)]
            self._failed[name] = (move, count, self._clock() + pause_s)
            raise MoveFailed(f"{move.kind} version {move.version}: {exc}") from exc
        self._failed.pop(name, None)
        kind = "refuse" if refused else move.kind
        self.moves[name, kind] = self.moves.get((name, kind), 0) + 1

    def _report(self, name: str, why: str) -> None:
        """Add an event for a failure that is not the last one again."""
        if self.faults.get(name) != why:
            self.faults[name] = why
            self.parts.events.add("model_move_failed", name, f"{why[:500]}; it is tried again")

    def unload_later(self, one: Managed, version: str) -> None:
        """Unload a version when no request can use it any more."""

        async def unload() -> None:
            await asyncio.sleep(one.model.load.keep_s)
            record = self.parts.records.get(one.model.name)
            if version in (record.champion, record.challenger):
                return
            try:
                at = place_of(one.model, version)
                used = [place_of(one.model, v) for v in (record.champion, record.challenger) if v]
                if any((at.url, at.model) == (other.url, other.model) for other in used):
                    return  # another version has its port by now
                await Loader(one.model.load, one.address).unload(at)
            except (LoadFailed, BadVersion) as exc:
                self.parts.events.add("model_unload_failed", one.model.name, f"{version}: {exc}")

        task = asyncio.create_task(unload())
        self._later.add(task)
        task.add_done_callback(self._later.discard)
