"""A silent drop of a backend's quality raises an event that says which and by how much."""

from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, running, serving
from tollway.gateway.learning.multipliers import resolve

pytestmark = pytest.mark.integration


def test_a_silent_drop_of_quality_becomes_an_event(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(label=1), Upstream(label=1)
        async with serving(cheap) as a, serving(dear) as b:
            config = two_backends(
                a,
                b,
                policy="lagrangian",
                route='objective = "value"\nvalue_per_correct_usd = 0.001',
            )
            async with running(config, tmp_path) as tollway:

                async def ask(count: int) -> None:
                    for _ in range(count):
                        reply = await tollway.infer()
                        decision = reply.headers["x-tollway-decision"]
                        await tollway.feedback({"decision": decision, "label": 1})

                await ask(120)
                cheap.label = 2
                await ask(60)
                resolve(tollway.gateway.routes, tollway.gateway.events)
                events = (await tollway.get("/_tollway/events"))["events"]
        changes = [event for event in events if event["kind"] == "quality_changed"]
        assert changes
        assert {(c["about"], c["details"]["arm"]) for c in changes} == {("m", "cheap")}
        assert changes[-1]["details"]["amount"] < -0.3

    run(main)
