"""The life of versions over a folder, with rollouts that a test moves."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tollway.gateway.observability.events import EventLog
from tollway.gateway.registry.folder import FolderRegistry
from tollway.gateway.registry.keeper import PAUSES_S, Keeper
from tollway.gateway.registry.lifecycle import Trial
from tollway.gateway.registry.moves import Managed, MoveFailed, Parts
from tollway.gateway.registry.records import Record, Records
from tollway.gateway.settings.registry.model import LoadConfig, ModelConfig, RequirementsConfig
from tollway.gateway.storage.audit_log import Actor, AuditLog


@dataclass
class Rollouts:
    """Rollouts that a test moves, and what was asked of them."""

    now: Trial | None = None
    asked: list[str] = field(default_factory=list)
    refuses: str = ""

    async def trial(self, rollout: str) -> Trial | None:
        return self.now

    async def start(self, rollout: str, why: str) -> str:
        if self.refuses:
            raise MoveFailed(self.refuses)
        self.asked.append("start")
        self.now = Trial(f"run-{len(self.asked)}", "running")
        return self.now.run

    async def promote(self, rollout: str, why: str) -> None:
        self.asked.append("promote")
        self.move("promoted", why)

    async def abort(self, rollout: str, why: str) -> None:
        self.asked.append("abort")
        self.move("stopped", why)

    def move(self, phase: Any, why: str = "because", **report: str) -> None:
        assert self.now is not None
        self.now = Trial(self.now.run, phase, why, "tollway", report)


class Stage:
    """A keeper of the model `m`, whose version 1 is champion."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder, self.clock_s = folder, 0.0
        self.applied: list[Record] = []
        self.breaks: Exception | None = None
        self.rollouts = Rollouts()
        self.registry = FolderRegistry(folder / "models")
        self.audit = AuditLog(folder / "audit.jsonl", wall=lambda: 0.0)
        self.events = EventLog(lambda: 0.0)
        parts = Parts(
            registry=self.registry,
            records=Records(folder / "state"),
            rollouts=self.rollouts,
            apply=self.apply,
            audit=self.audit,
            events=self.events,
        )
        self.keeper = Keeper(parts, clock=lambda: self.clock_s)
        load = LoadConfig(keep_s=0)
        model = ModelConfig(name="m", backend="gpu", model="m-v{version}", load=load, **more)
        self.keeper.revise({"m": Managed(model, "next", "http://127.0.0.1:9")})
        self.add("1")

    async def apply(self, actor: Actor) -> None:
        if self.breaks is not None:
            raise self.breaks
        self.applied.append(self.record)

    def add(self, version: str, **metrics: float) -> None:
        folder = self.folder / "models" / "m" / version
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(metrics))

    @property
    def record(self) -> Record:
        return self.keeper.parts.records.get("m")

    async def serving(self) -> None:
        await self.registry.set_alias("m", "champion", "1")
        await self.look()
        assert self.record.champion == "1"

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.keeper.look()
            await self.keeper.settled()

    async def aliases(self) -> dict[str, str]:
        return dict((await self.registry.model("m")).aliases)

    async def tags(self, version: str) -> dict[str, str]:
        found = (await self.registry.model("m")).get(version)
        assert found is not None
        return dict(found.tags)

    def acts(self) -> list[str]:
        return [act["act"] for act in self.audit.newest(100)[::-1]]


def play(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_a_new_version_is_tried_promoted_and_serves(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        await stage.serving()
        stage.add("2")
        await stage.look()
        assert await stage.aliases() == {"champion": "1", "challenger": "2"}
        assert stage.applied[-1] == Record(champion="1", challenger="2", newest="2")
        assert (await stage.tags("2"))["tollway.stage"] == "Staging"
        await stage.look(2)
        assert stage.rollouts.asked == ["start"]  # it runs: nothing to do
        stage.rollouts.move("promoted", "every step has met its criteria", error_rate="0.001")
        await stage.look(2)
        assert await stage.aliases() == {"champion": "2"}
        tags = await stage.tags("2")
        assert tags["tollway.outcome"] == "promoted"
        assert tags["tollway.error_rate"] == "0.001"
        assert stage.record.champion == "1"  # kept warm: the rollout could be aborted
        stage.rollouts.move("retired")
        await stage.look(2)
        assert stage.record == Record(champion="2", newest="2")
        assert (await stage.tags("1"))["tollway.stage"] == "Archived"
        assert (await stage.tags("2"))["tollway.stage"] == "Production"
        told = ["model served", "model tried", "model promoted", "model settled"]
        assert stage.acts() == told
        assert {act["outcome"] for act in stage.audit.newest(100)} == {"done"}

    play(main)


def test_a_version_that_is_rolled_back_is_withdrawn_and_not_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        await stage.serving()
        stage.add("2")
        await stage.look()
        stage.rollouts.move("stopped", "error_rate is worse than tolerated")
        await stage.look(3)
        assert await stage.aliases() == {"champion": "1"}
        assert stage.record == Record(champion="1", newest="2")
        tags = await stage.tags("2")
        assert (tags["tollway.outcome"], tags["tollway.stage"]) == ("withdrawn", "None")
        assert tags["tollway.reason"] == "error_rate is worse than tolerated"
        assert stage.rollouts.asked == ["start"]
        acts = stage.audit.newest(1)[0]
        assert (acts["act"], acts["who"]) == ("model withdrawn", "tollway")
        assert (acts["before"]["challenger"], acts["after"]["challenger"]) == ("2", None)

    play(main)


def test_a_promotion_that_is_taken_back_gives_the_alias_back(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        await stage.serving()
        stage.add("2")
        await stage.look()
        stage.rollouts.move("promoted")
        await stage.look()
        assert (await stage.aliases())["champion"] == "2"
        stage.rollouts.move("stopped", "a person aborted it")
        await stage.look(2)
        assert await stage.aliases() == {"champion": "1"}

    play(main)


def test_a_version_that_lacks_what_is_required_is_not_tried(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path, requires=RequirementsConfig(accuracy=0.85, p95_ms=50))
        await stage.serving()
        stage.add("2", accuracy=0.8, p95_ms=20)
        await stage.look(2)
        assert stage.rollouts.asked == []
        tags = await stage.tags("2")
        assert tags["tollway.outcome"] == "refused"
        assert "accuracy is 0.8; at least 0.85 is asked" in tags["tollway.reason"]
        stage.add("3", accuracy=0.9, p95_ms=20)
        await stage.look()
        assert stage.record.challenger == "3"
        assert [act["outcome"] for act in stage.audit.newest(2)] == ["done", "refused"]

    play(main)


def test_an_alias_that_goes_to_the_challenger_promotes_it_now(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        await stage.serving()
        stage.add("2")
        await stage.look()
        await stage.registry.set_alias("m", "champion", "2")
        await stage.look(2)
        assert stage.rollouts.asked == ["start", "promote"]
        assert await stage.aliases() == {"champion": "2"}

    play(main)


def test_a_challenger_whose_alias_is_removed_is_stopped(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        await stage.serving()
        stage.add("2")
        await stage.look()
        await stage.registry.set_alias("m", "challenger", None)
        await stage.look(2)
        assert stage.rollouts.asked == ["start", "abort"]
        assert stage.record == Record(champion="1", newest="2")

    play(main)


def test_a_rollout_that_could_not_be_started_is_started_later(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        await stage.serving()
        stage.add("2")
        stage.rollouts.refuses = "the control store does not answer"
        await stage.look(3)
        assert stage.record == Record(champion="1", challenger="2", newest="2")
        stage.rollouts.refuses = ""
        stage.clock_s += PAUSES_S[1]
        await stage.look()
        assert stage.record.run == "run-1"

    play(main)


def test_a_move_that_fails_waits_longer_each_time_and_is_reported_once(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        await stage.registry.set_alias("m", "champion", "1")
        stage.breaks = MoveFailed("this gateway was started without a configuration file")
        for pause_s in (0.0, *PAUSES_S):
            stage.clock_s += pause_s
            await stage.look(3)
        assert len(stage.acts()) == 1 + len(PAUSES_S)
        assert [e["kind"] for e in stage.events.newest()] == ["model_move_failed"]
        assert stage.record.champion == ""
        stage.breaks = None
        stage.clock_s += PAUSES_S[-1]
        await stage.look()
        assert stage.record.champion == "1"
        assert stage.keeper.faults == {}

    play(main)


def test_another_move_does_not_wait_for_the_one_that_failed(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        stage.add("2")
        await stage.registry.set_alias("m", "champion", "1")
        stage.breaks = MoveFailed("no")
        await stage.look()
        stage.breaks = None
        await stage.registry.set_alias("m", "champion", "2")
        await stage.look()
        assert stage.record.champion == "2"

    play(main)


def test_a_move_that_cannot_be_recorded_is_not_made(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        (tmp_path / "audit.jsonl").mkdir()  # it cannot be opened for writing
        await stage.registry.set_alias("m", "champion", "1")
        await stage.look()
        assert stage.applied == []
        assert stage.record.champion == ""

    play(main)


def test_a_version_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        await stage.serving()
        stage.add("v2")
        one = stage.keeper.models["m"]
        load = LoadConfig(command=("/no/such/program",))
        changed = one.model.model_copy(update={"load": load})
        stage.keeper.revise({"m": Managed(changed, "next", one.address)})
        await stage.registry.set_alias("m", "challenger", "v2")
        await stage.look(2)
        assert (await stage.tags("v2"))["tollway.outcome"] == "refused"
        assert await stage.aliases() == {"champion": "1"}

    play(main)


@pytest.mark.parametrize("phase", ["running", "promoted"])
def test_a_champion_that_another_version_becomes_stops_the_trial(
    tmp_path: Path, phase: str
) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        stage.add("0")
        await stage.serving()
        stage.add("2")
        await stage.look()
        if phase == "promoted":
            stage.rollouts.move("promoted")
            await stage.look()
        await stage.registry.set_alias("m", "champion", "0")
        await stage.look(3)
        assert stage.rollouts.asked == ["start", "abort"]
        assert stage.record.champion == "0"
        assert stage.record.challenger == ""

    play(main)


class Ports:
    """Ports of which the versions `1` and `3` have the same, and what was loaded on them."""

    def __init__(self, stage: Stage, rollout: str | None) -> None:
        self.log = stage.folder / "log"
        self.log.touch()

        def command(word: str) -> tuple[str, ...]:
            return ("/bin/sh", "-c", f"echo {word} {{version}} {{port}} >> {self.log}")

        load = LoadConfig(command=command("load"), unload_command=command("unload"), keep_s=0)
        changes = {"load": load, "url": "http://127.0.0.1:{port}", "ports": (9100, 9101)}
        model = stage.keeper.models["m"].model.model_copy(update={**changes, "model": None})
        stage.keeper.revise({"m": Managed(model, rollout, "http://127.0.0.1:9")})

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()


async def unloaded(stage: Stage) -> None:
    """Return once nothing waits to be unloaded."""
    while stage.keeper._later:
        await asyncio.gather(*stage.keeper._later)
        await asyncio.sleep(0)


def test_a_version_whose_port_another_one_has_by_now_is_not_unloaded(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        ports = Ports(stage, None)
        stage.add("2")
        stage.add("3")
        for version in ("1", "3"):
            await stage.registry.set_alias("m", "champion", version)
            await stage.look(2)
            await unloaded(stage)
        first, last = ports.lines
        assert first.split()[2] == last.split()[2]
        assert (first.split()[:2], last.split()[:2]) == (["load", "1"], ["load", "3"])
        await stage.registry.set_alias("m", "champion", "2")
        await stage.look(2)
        await unloaded(stage)
        assert [line.split()[:2] for line in ports.lines[2:]] == [["load", "2"], ["unload", "3"]]

    play(main)


def test_a_version_on_the_port_of_the_champion_is_not_tried(tmp_path: Path) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        ports = Ports(stage, "next")
        await stage.serving()
        stage.add("3")
        await stage.look(2)
        tags = await stage.tags("3")
        assert tags["tollway.outcome"] == "refused"
        assert "the address of the champion, version 1: give more ports" in tags["tollway.reason"]
        assert [line.split()[:2] for line in ports.lines] == [["load", "1"]]

    play(main)
