"""The scaler: one acts among several, safely, and says what it did."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tollway.gateway.control_store.memory import MemoryControlStore
from tollway.gateway.control_store.protocol import StoreUnavailable
from tollway.gateway.observability.events import EventLog
from tollway.gateway.scaling.actuators.port import Change, Outcome
from tollway.gateway.scaling.advisor import ScalingAdvisor, ScalingPlan
from tollway.gateway.scaling.calendar import Bounds, Calendar
from tollway.gateway.scaling.changes import Rates
from tollway.gateway.scaling.load_meter import Totals
from tollway.gateway.scaling.recommendation import Target
from tollway.gateway.scaling.scaler import Action, Scaler
from tollway.gateway.storage.audit_log import AuditLog

TARGET = Target(Bounds(1, 20), 1, 1.0, None, lead_s=60, up_s=0, down_s=0)
PLANS = {"gpu": ScalingPlan(TARGET, Calendar(), replica_nano_per_hour=1_000_000_000)}


class Recorder:
    """An actuator that keeps the changes and answers as told."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.made: list[Change] = []
        self.gate: asyncio.Event | None = None
        self.closed = False

    async def apply(self, change: Change) -> Outcome:
        self.made.append(change)
        if self.gate is not None:
            await self.gate.wait()
        return self.outcomes.pop(0) if self.outcomes else Outcome(output="done")

    async def aclose(self) -> None:
        self.closed = True


class Stage:
    """Scalers of several gateways over one store, and their time."""

    def __init__(self, folder: Path | None = None) -> None:
        self.now_s = 1000.0
        self.store = MemoryControlStore(lambda: self.now_s)
        self.events = EventLog(lambda: self.now_s)
        self.audit = AuditLog(None if folder is None else folder / "audit.jsonl")
        self.rows: list[dict[str, Any]] = []

    def scaler(self, name: str, actuator: Recorder, **action: Any) -> Scaler:
        one = Scaler(
            ScalingAdvisor(PLANS),
            self.store,
            events=self.events,
            audit=self.audit,
            wall=lambda: self.now_s,
            member=name,
            record=self.rows.append,
        )
        rates = action.pop("rates", Rates(0.0, 100))
        one.revise({"gpu": Action(actuator, rates, identity=name, **action)})
        return one

    async def minute(self, load: dict[Scaler, float]) -> None:
        """Let a minute pass, in which each gateway has so many calls in progress at once."""
        for _ in range(12):
            self.now_s += 5.0
            for one, calls in load.items():
                before = one._own.get("gpu", Totals())
                totals = Totals(before.calls + calls * 5, before.seconds + calls * 5)
                one.observe({"gpu": totals}, self.now_s, {})
            for one in load:
                await one.tick()
                await settled(one)


async def settled(one: Scaler) -> None:
    tasks = [acting.task for acting in one.acting.values() if acting.task is not None]
    if tasks:
        await asyncio.gather(*tasks)


def run(main: Callable[[], Any]) -> None:
    asyncio.run(main())


def test_one_of_two_gateways_sets_what_both_need() -> None:
    async def main() -> None:
        stage = Stage()
        first, second = Recorder(), Recorder()
        a, b = stage.scaler("a", first), stage.scaler("b", second)
        await stage.minute({a: 3.0, b: 4.0})
        await stage.minute({a: 3.0, b: 4.0})
        assert a.leads and not b.leads and not second.made
        assert first.made[-1].replicas == 7
        assert {one.advisor.replicas()["gpu"] for one in (a, b)} == {7}
        assert b.described("gpu")["replicas"] == 7  # type: ignore[index]

    run(main)


def test_another_gateway_goes_on_when_the_one_that_acted_is_gone() -> None:
    async def main() -> None:
        stage = Stage()
        first, second = Recorder(), Recorder()
        a, b = stage.scaler("a", first), stage.scaler("b", second)
        first.gate = asyncio.Event()  # it never returns: the process dies in the middle
        for _ in range(12):
            stage.now_s += 5.0
            for one in (a, b):
                before = one._own.get("gpu", Totals())
                one.observe(
                    {"gpu": Totals(before.calls + 20, before.seconds + 20)}, stage.now_s, {}
                )
                await one.tick()
                await asyncio.sleep(0)
        assert first.made and not second.made
        a.acting["gpu"].task.cancel()  # type: ignore[union-attr]
        await stage.minute({b: 8.0})
        assert second.made[0].replicas >= 4
        if second.made[0].replicas == first.made[-1].replicas:
            assert second.made[0].id == first.made[-1].id
        await b.close()
        assert second.closed

    run(main)


class Replicas:
    """An actuator that starts slowly, and what really runs."""

    def __init__(self, real: list[int]) -> None:
        self.real = real
        self.begun = 0
        self.gate = asyncio.Event()

    async def apply(self, change: Change) -> Outcome:
        self.begun += 1
        await self.gate.wait()
        self.real[:] = [change.replicas]
        return Outcome()

    async def aclose(self) -> None:
        pass


def loaded(one: Scaler, now_s: float, calls: int) -> None:
    before = one._own.get("gpu", Totals())
    one.observe({"gpu": Totals(before.calls + calls, before.seconds + calls)}, now_s, {})


def test_a_gateway_that_loses_the_lease_ends_its_change() -> None:
    async def main() -> None:
        stage, real = Stage(), [0]
        slow, quick = Replicas(real), Replicas(real)
        quick.gate.set()
        a = stage.scaler("a", slow)  # type: ignore[arg-type]
        b = stage.scaler("b", quick)  # type: ignore[arg-type]
        for _ in range(12):
            stage.now_s += 5.0
            loaded(a, stage.now_s, 20)
            await a.tick()
            await asyncio.sleep(0)
        task = a.acting["gpu"].task
        assert slow.begun == 1 and task is not None and not task.done()
        await stage.minute({b: 8.0})  # `a` does not come to renew its lease
        assert b.leads and quick.begun
        await a.tick()
        assert not a.leads
        slow.gate.set()  # too late: what it sets would undo what `b` has set
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert real == [b.acting["gpu"].applied.replicas]
        await a.tick()
        assert a.described("gpu")["replicas"] == real[0]  # type: ignore[index]

    run(main)


def test_without_the_store_a_change_is_ended_and_made_again_later() -> None:
    async def main() -> None:
        stage, recorder = Stage(), Recorder()
        recorder.gate = asyncio.Event()
        one = stage.scaler("a", recorder)
        for _ in range(12):
            stage.now_s += 5.0
            loaded(one, stage.now_s, 15)
            await one.tick()
            await asyncio.sleep(0)

        async def gone(*_: object) -> None:
            raise StoreUnavailable("refused")

        stage.store.write = gone  # type: ignore[method-assign,assignment]
        await one.tick()
        task = one.acting["gpu"].task
        assert task is not None
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        del stage.store.write  # type: ignore[method-assign]
        recorder.gate.set()
        await stage.minute({one: 3.0})
        assert recorder.made[0].id == recorder.made[1].id
        assert one.described("gpu")["replicas"] == 3  # type: ignore[index]

    run(main)


def test_a_change_that_was_made_is_told_though_the_store_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        stage, recorder = Stage(tmp_path), Recorder()
        recorder.gate = asyncio.Event()
        one = stage.scaler("a", recorder)
        for _ in range(12):
            stage.now_s += 5.0
            loaded(one, stage.now_s, 15)
            await one.tick()
            await asyncio.sleep(0)
        reading, answer = asyncio.Event(), asyncio.Event()

        async def slow(*_: object) -> None:
            reading.set()
            await answer.wait()
            raise StoreUnavailable("refused")

        async def gone(*_: object) -> None:
            raise StoreUnavailable("refused")

        stage.store.get = slow  # type: ignore[method-assign,assignment]
        stage.store.write = gone  # type: ignore[method-assign,assignment]
        recorder.gate.set()
        await reading.wait()
        await one.tick()
        answer.set()
        await settled(one)
        assert one.counts["gpu", "made"] == 1 and len(stage.audit.newest(5)) == 1

    run(main)


def test_a_dry_run_tells_and_makes_nothing() -> None:
    async def main() -> None:
        stage, recorder = Stage(), Recorder()
        one = stage.scaler("a", recorder, dry_run=True)
        await stage.minute({one: 3.0})
        assert not recorder.made
        (event,) = [each for each in stage.events.newest() if each["kind"] == "replicas_dry_run"]
        assert "would be changed: unknown -> 3 replicas" in event["text"]
        assert one.running("gpu") == 3  # the recommended ones, for nothing was set
        one.revise({"gpu": Action(recorder, Rates(0.0, 100), identity="b")})
        await stage.minute({one: 3.0})
        assert [change.replicas for change in recorder.made] == [3]

    run(main)


def test_a_failure_is_told_with_what_was_printed_and_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        stage, recorder = Stage(tmp_path), Recorder(Outcome("exit status 3", "no quota"))
        one = stage.scaler("a", recorder)
        await stage.minute({one: 3.0})
        ids = [change.id for change in recorder.made]
        assert len(ids) == 2 and len(set(ids)) == 1
        failed, made = stage.events.newest()[::-1]
        assert failed["kind"] == "replicas_failed" and failed["details"]["output"] == "no quota"
        assert made["kind"] == "replicas_changed"
        first, second = stage.audit.newest(2)
        assert (second["outcome"], second["why"]) == ("unknown", "exit status 3")
        assert (first["act"], first["outcome"], first["after"]["replicas"]) == ("scale", "done", 3)
        assert one.counts == {("gpu", "failed"): 1, ("gpu", "made"): 1}

    run(main)


def test_rates_hold_changes_and_say_so_once() -> None:
    async def main() -> None:
        stage, recorder = Stage(), Recorder()
        one = stage.scaler("a", recorder, rates=Rates(0.0, 1))
        await stage.minute({one: 3.0})
        await stage.minute({one: 9.0})
        assert [change.replicas for change in recorder.made] == [3]
        held = [each for each in stage.events.newest() if each["kind"] == "replicas_held"]
        assert len(held) == 1 and "1 changes in the last hour" in held[0]["text"]

    run(main)


def test_without_the_store_nobody_acts_and_recommendations_do_not_fall() -> None:
    async def main() -> None:
        stage, recorder = Stage(), Recorder()
        one = stage.scaler("a", recorder)
        await stage.minute({one: 9.0})

        async def gone(*_: object) -> None:
            raise StoreUnavailable("refused")

        stage.store.write = gone  # type: ignore[method-assign,assignment]
        await stage.minute({one: 1.0})
        await stage.minute({one: 1.0})
        assert one.advisor.replicas() == {"gpu": 9} and [c.replicas for c in recorder.made] == [9]
        assert [e["kind"] for e in stage.events.newest()].count("scaling_store_down") == 1
        del stage.store.write  # type: ignore[method-assign]
        await stage.minute({one: 1.0})
        await stage.minute({one: 1.0})
        assert recorder.made[-1].replicas == 1

    run(main)


def test_a_reload_keeps_what_was_set_and_the_actuator_of_the_same_action() -> None:
    async def main() -> None:
        stage, recorder, other = Stage(), Recorder(), Recorder()
        one = stage.scaler("a", recorder)
        await stage.minute({one: 3.0})
        left = one.revise({"gpu": Action(other, Rates(0.0, 5), identity="a")})
        assert left == [other] and one.actions["gpu"].actuator is recorder
        left = one.revise({"gpu": Action(other, Rates(0.0, 5), identity="b")})
        assert left == [recorder]
        await stage.minute({one: 3.0})
        assert not other.made and one.acting["gpu"].applied.replicas == 3
        assert one.revise({}) == [other] and not one.acting

    run(main)


def test_used_replicas_are_recorded_by_the_gateway_that_leads() -> None:
    async def main() -> None:
        stage = Stage()
        a, b = stage.scaler("a", Recorder()), stage.scaler("b", Recorder())
        for _ in range(3):
            await stage.minute({a: 2.0, b: 2.0})
        assert stage.rows and not b.usage.replica_s
        row = stage.rows[-1]
        assert (row["replica_s"], row["cost_nano"]) == (240.0, round(4 * 60 * 1_000_000_000 / 3600))

    run(main)
