"""Requests that come at once begin in turns."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tollway.gateway.listener import turns as module
from tollway.gateway.listener.turns import AT_ONCE, TURN_S, Turns


class Loop:
    """An event loop whose iterations are run by hand."""

    def __init__(self) -> None:
        self.ready: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        self.ready.append((callback, args))

    def iterate(self) -> None:
        ready, self.ready = self.ready, []
        for callback, args in ready:
            callback(*args)


class Worker:
    """Requests that take `takes_s` each, on a clock of their own."""

    def __init__(self, takes_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.takes_s = takes_s
        self.loop: Any = Loop()
        self.turns = Turns()
        self.begun: list[str] = []
        monkeypatch.setattr(module.time, "thread_time", lambda: self.now_s)

    def begin(self, tenant: str) -> None:
        self.begun.append(tenant)
        self.now_s += self.takes_s

    def come(self, *tenants: str) -> None:
        for tenant in tenants:
            if self.turns.is_now(self.loop):
                self.begin(tenant)
            else:
                self.turns.wait(tenant, self.begin, tenant)

    def run(self) -> int:
        """Iterate until nothing is left to do; return how often."""
        iterations = 0
        while self.loop.ready:
            self.loop.iterate()
            iterations += 1
        return iterations


def test_who_comes_last_waits_for_few_of_another_tenants_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(TURN_S / 4, monkeypatch)
    worker.come(*["greedy"] * 1000, "modest")
    assert worker.begun == ["greedy"] * AT_ONCE
    worker.run()
    assert worker.begun.index("modest") <= AT_ONCE + 1
    assert worker.begun.count("greedy") == 1000


def test_an_iteration_begins_a_turns_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(TURN_S / 4 * 1.001, monkeypatch)
    worker.come(*["one"] * (AT_ONCE + 20))
    worker.loop.iterate()
    assert len(worker.begun) == AT_ONCE + 4


def test_long_requests_of_one_tenant_count_as_many_short_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(0.001, monkeypatch)
    worker.come(*["fill"] * AT_ONCE)
    long, short = ["long"] * 50, ["short"] * 50

    def begin(tenant: str) -> None:
        worker.begun.append(tenant)
        worker.now_s += 0.010 if tenant == "long" else 0.001

    for tenant in (*long, *short):
        worker.turns.wait(tenant, begin, tenant)
    worker.run()
    order = worker.begun[AT_ONCE:]
    assert order[: order.index("short") + 45].count("long") <= 7


def test_nobody_overtakes_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(TURN_S, monkeypatch)
    worker.come(*["first"] * (AT_ONCE + 3))
    worker.loop.iterate()
    worker.come("late")
    assert "late" not in worker.begun
    worker.run()
    assert "late" in worker.begun


def test_a_lone_request_begins_at_once_again_after_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(TURN_S, monkeypatch)
    worker.come(*["one"] * 100)
    worker.run()
    assert not worker.loop.ready
    worker.come("one")
    assert len(worker.begun) == 101
    assert worker.run() == 1


def test_a_bug_in_one_request_does_not_keep_the_others_in_the_line() -> None:
    begun: list[str] = []

    def begin(name: str) -> None:
        if name == "bug":
            raise ValueError(name)
        begun.append(name)

    async def main() -> None:
        loop, turns = asyncio.get_running_loop(), Turns()
        loop.set_exception_handler(lambda _, context: None)
        while turns.is_now(loop):
            pass
        for name in ("bug", "good"):
            turns.wait(name, begin, name)
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert begun == ["good"]
