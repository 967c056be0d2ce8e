"""Whose requests tell what users think of an answer."""

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

from tests.support.until import until
from tollway.gateway.signals.ports import RouteHooks
from tollway.gateway.signals.runner import SignalRunner


def test_the_gateways_own_refresh_is_not_a_user_who_asks_again() -> None:
    learned: list[Any] = []

    async def teach(documents: list[Any], tenant: str | None, source: str) -> None:
        learned.extend(documents)

    async def main() -> None:
        counts: Any = None
        runner = SignalRunner(teach=teach, counts=counts, rng=Random(0), wall=lambda: 1000.0)
        runner.revise({"r": RouteHooks(users="users", window_s=60.0)})
        for number, result in enumerate(("miss", "refresh", "miss")):
            await runner._score(asked(str(number), result))
            if result == "refresh":
                assert not learned
        assert [one["decision"] for one in learned] == ["0"]

    asyncio.run(main())


def asked(decision: str, result: str) -> Any:
    """Return the state of a request that is the same as the others."""
    document = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    inference = SimpleNamespace(
        route=SimpleNamespace(name="r"),
        tenant="t",
        call=SimpleNamespace(payload=SimpleNamespace(data=document)),
        feedback=None,
        cache_result=result,
    )
    held = SimpleNamespace(backend="b")
    return SimpleNamespace(id=decision, inference=inference, held=held, attempts=[])


def test_a_tenant_whose_texts_take_for_ever_keeps_nobody_from_being_scored() -> None:
    async def teach(documents: list[Any], tenant: str | None, source: str) -> None:
        pass

    class Hanging:
        name = "hanging"

        def __init__(self) -> None:
            self.scored: list[str] = []

        async def score(self, answer: Any) -> float | None:
            if answer.tenant == "mallory":
                await asyncio.Event().wait()
            self.scored.append(answer.tenant)
            return None

        async def aclose(self) -> None:
            pass

    async def main() -> None:
        counts, hook = Dropped(), Hanging()
        runner = SignalRunner(teach=teach, counts=counts, rng=Random(0), wall=lambda: 1000.0)
        runner.revise({"r": RouteHooks(every=(hook,))})
        for _ in range(2000):
            runner.ended(answered("mallory"), 0.0)
        dropped = counts.dropped
        for tenant in ("one", "two", "one"):
            runner.ended(answered(tenant), 0.0)
        await until(lambda: sorted(hook.scored) == ["one", "one", "two"])
        assert 1000 < dropped < 2000
        assert counts.dropped == dropped  # only mallory's
        for task in runner._tasks:
            task.cancel()
        await asyncio.gather(*runner._tasks, return_exceptions=True)

    asyncio.run(main())


class Dropped:
    """Counts what was not scored."""

    def __init__(self) -> None:
        self.dropped = 0

    def signal_failed(self, route: str, name: str) -> None:
        raise AssertionError

    def signal_dropped(self, route: str) -> None:
        self.dropped += 1


def answered(tenant: str) -> Any:
    """Return the state of a request that was answered."""
    state = asked("decision", "miss")
    state.inference.tenant = tenant
    state.inference.call.body = state.body = b"{}"
    outcome = SimpleNamespace(answer=SimpleNamespace(value="x"), no_answer=False)
    held = SimpleNamespace(
        backend="b", status=200, body=b"{}", error="", audit=None, outcome=outcome
    )
    state.held, state.attempts = held, [held]
    return state


def test_the_replies_that_a_cascade_did_not_accept_are_scored_after_the_clients_answer() -> None:
    learned: list[Any] = []
    seen: list[tuple[str, bool]] = []

    async def teach(documents: list[Any], tenant: str | None, source: str) -> None:
        learned.extend(documents)

    class Noting:
        name = "judge"

        async def score(self, answer: Any) -> float | None:
            seen.append((answer.backend, answer.is_held))
            return float(answer.is_held)

        async def aclose(self) -> None:
            pass

    async def main() -> None:
        runner = SignalRunner(teach=teach, counts=Dropped(), rng=Random(0), wall=lambda: 1000.0)
        runner.revise({"r": RouteHooks(every=(Noting(),))})
        state = answered("t")
        left = SimpleNamespace(**{**vars(state.held), "backend": "cheap"})
        state.attempts = [left, state.held]
        await runner._score(state)

    asyncio.run(main())
    assert seen == [("b", True), ("cheap", False)]
    assert [one["scores"] for one in learned] == [{"b": {"judge": 1.0}, "cheap": {"judge": 0.0}}]
