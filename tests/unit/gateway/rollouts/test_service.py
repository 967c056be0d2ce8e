"""Rollouts of a process over a control store in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tollway.gateway.control_store.memory import MemoryControlStore
from tollway.gateway.control_store.protocol import StoreUnavailable
from tollway.gateway.observability.events import EventLog
from tollway.gateway.rollouts.model import BLUE_GREEN, Criterion, RolloutPlan, Step
from tollway.gateway.rollouts.service import Rollouts
from tollway.gateway.storage.audit_log import Actor, AuditLog

KIM = Actor("kim", "admin")
PLAN = RolloutPlan(
    "r",
    "old",
    "new",
    steps=(Step(0.5, None),),
    criteria=(Criterion("error_rate"),),
    starts=True,
    identity="A",
)


class Store(MemoryControlStore):
    """A store that refuses the keys that end in `refused`."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.refused: tuple[str, ...] = ()

    async def get(self, key: str) -> Any:
        if self.refused and key.endswith(self.refused):
            raise StoreUnavailable("it is down")
        return await super().get(key)


class Route:
    """A bound route that has the candidate."""

    def __init__(self) -> None:
        self.backends: dict[str, Any] = {"new": SimpleNamespace(up=True)}

    def apply(self, states: Any) -> None:
        """Show nothing."""


Make = Callable[..., Rollouts]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def make(store: Store, tmp_path: Path) -> Iterator[Make]:
    def made(member: str, *plans: RolloutPlan, smoke: Any = None) -> Rollouts:
        rollouts = Rollouts(
            store,
            events=EventLog(lambda: 0.0),
            audit=AuditLog(tmp_path / f"{member}.jsonl", wall=lambda: 0.0),
            wall=lambda: 0.0,
            member=member,
            smoke=smoke,
        )
        rollouts.revise(plans, {"m": Route()})  # type: ignore[dict-item]
        return rollouts

    yield made


def play(main: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await main()

    asyncio.run(run())


def test_gateways_of_two_configurations_do_not_start_theirs_in_turns(make: Make) -> None:
    async def main() -> None:
        one, two = make("1", PLAN), make("2", replace(PLAN, identity="B"))
        for _ in range(4):
            await one.tick()
            await two.tick()
        assert one.moves["r", "started"] == two.moves["r", "started"] == 1

    play(main)


def test_versions_that_ran_can_be_started_again_by_a_person(make: Make) -> None:
    async def main() -> None:
        one, two = make("1", PLAN), make("2", replace(PLAN, identity="B"))
        await one.tick()
        await two.tick()
        await one.tick()
        assert (await one.status("r"))["phase"] == "idle"
        assert (await one.start("r", KIM, "again"))["phase"] == "progressing"

    play(main)


def test_a_move_that_is_made_is_reported_though_its_history_cannot_be_written(
    make: Make, store: Store
) -> None:
    async def main() -> None:
        one = make("1", PLAN)
        await one.tick()
        store.refused = ("/history",)
        assert (await one.abort("r", KIM, "it is slow"))["phase"] == "aborted"
        assert one.moves["r", "aborted"] == 1

    play(main)


def test_a_start_counts_though_the_store_fails_right_after_it(make: Make, store: Store) -> None:
    async def main() -> None:
        one = make("1", replace(PLAN, starts=False))
        await one.tick()
        store.refused = ("/ran",)
        assert (await one.start("r", KIM, "go"))["phase"] == "progressing"
        assert one.moves["r", "started"] == 1

    play(main)


def test_smoke_requests_that_hang_hold_up_no_act_and_are_made_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollway.gateway.rollouts.service.SMOKE_WAIT_S", 0.0)

    async def main() -> None:
        asked: list[str] = []
        answered = asyncio.Event()

        async def smoke(plan: RolloutPlan, target: Any) -> str:
            asked.append(plan.name)
            await answered.wait()
            return ""

        green = replace(
            PLAN,
            strategy=BLUE_GREEN,
            steps=(Step(0.0, analysis=False), Step(1.0)),
            criteria=(Criterion("error_rate", limit=0.1),),
        )
        one = make("1", green, replace(PLAN, name="s"), smoke=smoke)
        await one.tick()
        await one.tick()
        assert (await one.abort("s", KIM, "bad"))["phase"] == "aborted"
        found = await one.status("r")
        assert (found["step"], asked) == (0, ["r"])
        assert "smoke requests have not been answered yet" in found["waiting"]
        answered.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await one.tick()
        assert ((await one.status("r"))["step"], asked) == (1, ["r"])
        await one.close()

    play(main)


def test_smoke_requests_end_with_the_run_that_made_them(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tollway.gateway.rollouts.service.SMOKE_WAIT_S", 0.0)

    async def main() -> None:
        ended = asyncio.Event()

        async def smoke(plan: RolloutPlan, target: Any) -> str:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return ""

        green = replace(PLAN, strategy=BLUE_GREEN, steps=(Step(0.0), Step(1.0)))
        one = make("1", green, smoke=smoke)
        await one.tick()
        await asyncio.sleep(0)
        await one.abort("r", KIM, "no")
        await one.start("r", KIM, "again")
        async with asyncio.timeout(30):
            await ended.wait()
        assert one.rollouts["r"].smoke is None
        await one.close()

    play(main)


def test_fewer_steps_than_a_rollout_has_taken_are_its_last(make: Make, store: Store) -> None:
    async def main() -> None:
        steps = (Step(0.1, analysis=False), Step(0.5, 60.0))
        one = make("1", replace(PLAN, steps=steps))
        await one.tick()
        await one.tick()
        assert (await one.status("r"))["step"] == 1
        two = make("2", replace(PLAN, steps=(Step(0.1, 60.0),)))
        await two.open()
        found = await two.status("r")
        assert (found["phase"], found["step"]) == ("progressing", 1)
        assert two.answers

    play(main)


def test_one_rollout_that_fails_does_not_hold_up_another(make: Make, store: Store) -> None:
    async def main() -> None:
        await store.write("rollouts/r/state", {"nonsense": 1})
        one = make("1", PLAN, replace(PLAN, name="s"))
        await one.tick()
        assert (await one.status("s"))["run"]

    play(main)
