"""Whose requests tell what users think of an answer."""

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

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
