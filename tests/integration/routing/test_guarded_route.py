"""A route's guard through the whole gateway: who answers, its events, its journal rows."""

from pathlib import Path

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Upstream, run, running, serving
from tollway.gateway.learning.multipliers import resolve

pytestmark = pytest.mark.integration


def test_a_guarded_route_acts_by_its_baseline_until_the_policy_is_shown_better(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        cheap, dear = Upstream(label=1), Upstream(label=1)
        route = (
            'objective = "value"\nvalue_per_correct_usd = 0.002\nbaseline = "dear"\n'
            'guard = "shadow"'
        )
        async with serving(cheap) as a, serving(dear) as b:
            config = two_backends(a, b, policy="lagrangian", route=route)
            async with running(config, tmp_path) as tollway:
                taken: list[str] = []
                for _ in range(700):
                    reply = await tollway.infer()
                    taken.append(reply.headers["x-tollway-backend"])
                    decision = reply.headers["x-tollway-decision"]
                    await tollway.feedback({"decision": decision, "label": 1})
                resolve(tollway.gateway.routes, tollway.gateway.events)
                events = (await tollway.get("/_tollway/events"))["events"]
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                found = tollway.gateway.journal.find(decision)
        assert taken[:30].count("dear") >= 20
        assert taken[-30:].count("cheap") >= 20
        kinds = [event["kind"] for event in events if event["about"] == "m"]
        assert [kind for kind in kinds if kind.startswith("guard_")] == ["guard_took_over"]
        assert 'tollway_guard_active{route="m"} 1.0' in metrics
        assert found[0]["guarded_by"] == "dear"
        assert sum(found[0]["shadow"]) == pytest.approx(1.0)

    run(main)
