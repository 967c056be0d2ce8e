"""A cascade's kept answer is offered first: it is taken as it was accepted, or the cascade runs."""

import random
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tollway.policies.cached_answers import CachedAnswers

pytestmark = pytest.mark.integration

ROUTE = """cascade = true
objective = "value"
value_per_correct_usd = 0.003
cache = {{ ttl_s = 3600, early = 0, fresh_share = {share} }}
"""


def decisions(tollway: Running) -> list[list[dict[str, Any]]]:
    """Return the rows of each request's draws, in the order of requests."""
    rows = tollway.journalled("decision")
    return [list(group) for _, group in groupby(rows, key=lambda row: row["id"])]


async def asked(tollway: Running, requests: int) -> list[Any]:
    """Ask for a few things again and again, and label all answers."""
    rng = random.Random(5)
    replies = []
    for _ in range(requests):
        reply = await tollway.infer(float(rng.randrange(6)))
        assert reply.status_code == 200
        replies.append(reply)
        decision = reply.headers["x-tollway-decision"]
        right = rng.random() < (0.95 if "dear" in reply.headers["x-tollway-backend"] else 0.6)
        told = await tollway.feedback({"decision": decision, "correct": right})
        assert told.json()["result"] == "learned"
    return replies


def test_a_kept_answer_is_the_first_arm_and_the_cascade_goes_on_without_it(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream(confidence=0.6)
        async with serving(cheap) as a, serving(Upstream()) as b:
            route = ROUTE.format(share=0.3)
            text = two_backends(a, b, policy="lagrangian", route=route)
            async with running(text, tmp_path, seed=3) as tollway:
                replies = await asked(tollway, 400)
                found = decisions(tollway)
                attempts = tollway.journalled("attempt")
                policy = tollway.gateway.routes["m"].policy
                assert isinstance(policy, CachedAnswers) and policy.is_cascade
                policy.load(policy.save())
        assert len(found) == len(replies)
        kinds = {reply.headers["x-tollway-cache"] for reply in replies}
        assert {"hit", "fresh", "miss"} <= kinds
        hits = [rows for rows in found if rows[0]["arm"].startswith("cache:")]
        fresh = [rows for rows in found if "cached" in rows[0] and rows not in hits]
        assert len(hits) > 20 and len(fresh) > 20
        assert any(len(rows) > 1 for rows in found)
        costs = {row["id"]: row["cost_nano"] for row in attempts}
        for rows in hits:  # taken as it is
            assert len(rows) == 1 and costs[rows[0]["id"]] == 0
        for rows in found:  # all probabilities are those that were drawn from
            for row in rows:
                assert sum(row["pmf"]) == pytest.approx(1.0)
                assert row["propensity"] == row["pmf"][row["arms"].index(row["arm"])] > 0.0
            assert not any(arm.startswith("cache:") for row in rows[1:] for arm in row["arms"])
        share = sum(row["propensity"] for rows in hits for row in rows) / len(hits)
        assert 0.3 <= share <= 0.7

    run(main)


def test_a_kept_answer_is_that_of_the_last_stage_with_the_quality_it_was_accepted_with(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serving(Upstream(confidence=0.6)) as a, serving(Upstream()) as b:
            route = ROUTE.format(share=0.0)
            text = two_backends(a, b, policy="lagrangian", route=route)
            async with running(text, tmp_path, seed=3) as tollway:
                for value in range(40):
                    first = await tollway.infer(float(value))
                    entry = list(tollway.gateway.caching.memory)[-1]
                    last = decisions(tollway)[-1][-1]
                    accepted = last["quality_hat"][last["arms"].index(last["arm"])]
                    assert entry.backend == first.headers["x-tollway-backend"]
                    assert entry.quality == pytest.approx(accepted)
                rows = decisions(tollway)
                again = await tollway.infer(0.0)
                hit = decisions(tollway)[-1]
        assert any(len(each) > 1 for each in rows)
        if again.headers["x-tollway-cache"] == "hit":
            assert len(hit) == 1

    run(main)
