"""A shadow: copies of requests, off the clients' path."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.rollouts import act, rollout, serve, status
from tests.support.until import until
from tollway.gateway.routing.metering import AttemptOutcome

pytestmark = pytest.mark.integration

CRITERIA = '[{ metric = "error_rate", margin = 0.5 }, { metric = "quality" }]'
SHADOW = 'strategy = "shadow"\nmin_samples = 5\nmirror = { share = 1.0, concurrency = 2 }'


async def mirrored(tollway: Running, result: str = "answered") -> int:
    return int(tollway.gateway.shadows.counts["next", result])


def test_copies_reach_the_candidate_and_nothing_of_them_reaches_a_client(tmp_path: Path) -> None:
    async def main() -> None:
        shadow = Upstream(label=2)
        async with serving(Upstream(label=1)) as a, serving(shadow) as b:
            toml = two_backends(a, a, more=rollout(b, SHADOW, CRITERIA))
            async with running(toml, tmp_path) as tollway:
                for number in range(8):
                    reply = await tollway.infer(float(number))
                    assert reply.headers["x-tollway-backend"] == "cheap"
                    assert reply.json()["outputs"][0]["data"] == [1]
                    await until(lambda n=number: shadow.calls == n + 1)  # type: ignore[misc]
                    await until(
                        lambda n=number: tollway.gateway.shadows.counts["next", "answered"] == n + 1  # type: ignore[misc]
                    )
                found = await status(tollway)
                assert (found["compared"], found["agreement"]) == (8, 0.0)
                rows = [row for row in tollway.journalled("attempt") if row.get("shadow")]
                assert {row["backend"] for row in rows} == {"next"}
                assert all(row["cost_nano"] == 100_000 for row in rows)
                spend = (await tollway.get("/_tollway/spend"))["by"]
                spent = {row["backend"]: row["cost_nano"] for row in spend}
                assert spent["next"] == spent["cheap"] == 800_000

    run(main)


def test_copies_give_back_the_memory_of_their_replies(tmp_path: Path) -> None:
    async def main() -> None:
        outputs = [{"name": "o", "shape": [1], "datatype": "INT64", "data": [1]}]
        large = json.dumps({"model_name": "m", "outputs": outputs, "x": "y" * 400_000}).encode()
        async with serving(Upstream()) as a, serving(Upstream(body=large)) as b:
            toml = two_backends(a, a, more=rollout(b, SHADOW, CRITERIA))
            async with running(toml, tmp_path) as tollway:
                shadows = tollway.gateway.shadows
                for number in range(4):
                    await tollway.infer(float(number))
                    await until(lambda n=number: shadows.counts["next", "answered"] == n + 1)  # type: ignore[misc]
                await until(lambda: not shadows._tasks)
                assert shadows._attempts._buffers.held == 0
                kept = [outcome for _, outcome, _ in shadows._answers.values()]
                assert [type(outcome) for outcome in kept] == [AttemptOutcome] * 4  # no body

    run(main)


def test_labels_of_requests_score_the_copies_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream(label=1)) as a, serving(Upstream(label=2)) as b:
            toml = two_backends(a, a, more=rollout(b, SHADOW, CRITERIA))
            async with running(toml, tmp_path) as tollway:
                for number in range(4):
                    reply = await tollway.infer(float(number))
                    await until(
                        lambda n=number: tollway.gateway.shadows.counts["next", "answered"] == n + 1  # type: ignore[misc]
                    )
                    decision = reply.headers["x-tollway-decision"]
                    await tollway.feedback({"decision": decision, "label": 1})
                quality = (await status(tollway))["measures"]["quality"]
                assert (quality["stable"], quality["candidate"]) == (1.0, 0.0)
                assert (quality["stable_count"], quality["candidate_count"]) == (4, 4)

    run(main)


def test_copies_stay_within_their_budget_and_their_share_of_the_capacity(tmp_path: Path) -> None:
    async def main() -> None:
        shadow = Upstream()
        more = 'strategy = "shadow"\nmirror = { share = 1.0, budget_usd_per_hour = 0.0003 }'
        async with serving(Upstream()) as a, serving(shadow) as b:
            toml = two_backends(a, a, more=rollout(b, more, CRITERIA))
            async with running(toml, tmp_path) as tollway:
                tollway.gateway.shadows._wall = lambda: 0.0  # all in one hour
                counts = tollway.gateway.shadows.counts
                for _ in range(6):
                    before = sum(counts.values())
                    await tollway.infer()
                    await until(lambda n=before: sum(counts.values()) > n)  # type: ignore[misc]
                assert (counts["next", "answered"], counts["next", "over_budget"]) == (3, 3)
                assert shadow.calls == 3

    run(main)


def test_a_shadow_that_passed_asks_and_is_promoted_by_hand(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            toml = two_backends(
                a, a, more=rollout(b, SHADOW, '[{ metric = "error_rate", margin = 0.9 }]')
            )
            async with running(toml, tmp_path) as tollway:
                for number in range(12):
                    await tollway.infer()
                    await until(
                        lambda n=number: tollway.gateway.shadows.counts["next", "answered"] == n + 1  # type: ignore[misc]
                    )
                found: Any = await status(tollway)
                assert (found["phase"], found["weight"]) == ("paused", 0.0), found["waiting"]
                assert set(await serve(tollway, 3)) == {"cheap"}
                await act(tollway, "promote")
                assert set(await serve(tollway, 3)) == {"next"}

    run(main)
