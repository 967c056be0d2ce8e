"""Audits through the whole gateway: no client waits; they are charged, recorded, learned from."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tollway.backends.money import NANO_PER_USD

pytestmark = pytest.mark.integration

AUDITED = 'audit = { backend = "dear", share = 1.0, budget_share = 1.0 }'
CHEAP_NANO, DEAR_NANO = NANO_PER_USD // 10_000, NANO_PER_USD // 1_000


async def settled(tollway: Running) -> None:
    """Wait for the audits in progress."""
    while tollway.gateway.audits._tasks:
        await asyncio.gather(*tollway.gateway.audits._tasks)
        await asyncio.sleep(0)


async def audited(tollway: Running, **headers: str) -> tuple[httpx.Response, dict[str, Any]]:
    """Ask until an answer is audited; return the reply and the decision's document."""
    for _ in range(50):
        reply = await tollway.infer(**headers)
        await settled(tollway)
        told = await tollway.get(f"/_tollway/decisions/{reply.headers['x-tollway-decision']}")
        if len(told["attempts"]) > 1:
            return reply, told
    raise AssertionError("nothing was audited")


def test_an_audit_is_charged_written_down_and_learned_from(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(label=1), Upstream(label=2)
        async with serving(cheap) as a, serving(dear) as b:
            more = budget("all", "1.0") + budget("dear", "1.0", {"backend": "dear"})
            config = two_backends(a, b, route=AUDITED, more=more)
            async with running(config, tmp_path) as tollway:
                reply, told = await audited(tollway, x_tollway_tags="team=ads")
                tagged_nano = tollway.gateway.metrics.tags_nano()["team=ads"]
                status = {
                    row["name"]: row for row in (await tollway.get("/_tollway/budgets"))["budgets"]
                }
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text

        assert reply.headers["x-tollway-backend"] == "cheap"
        assert reply.headers["x-tollway-cost-usd"] == "0.000100000"
        audit = told["attempts"][-1]
        assert (audit["backend"], audit["cost_nano"]) == ("dear", DEAR_NANO)
        assert 0.0 < audit["audit"] <= 1.0
        assert audit["reserved_nano"] == {"all": DEAR_NANO, "dear": DEAR_NANO}
        assert told["cost_nano"] == CHEAP_NANO + DEAR_NANO
        assert told["feedback"][-1]["source"] == "audit"
        assert told["feedback"][-1]["quality"] == 0.0  # cheap said 1, the reference 2
        assert told["feedback"][-1]["probability"] == audit["audit"]
        assert any("Audited" in sentence for sentence in told["story"])
        # All views agree, to the nano-dollar.
        assert dear.calls == 1
        assert status["dear"]["spent_nano"] == DEAR_NANO
        assert status["all"]["spent_nano"] == cheap.calls * CHEAP_NANO + DEAR_NANO
        assert tagged_nano == status["all"]["spent_nano"]
        labels = 'backend="dear",route="m",tenant="anonymous"'
        assert f"tollway_audits_total{{{labels}}} 1.0" in metrics
        assert f"tollway_audit_cost_usd_total{{{labels}}} 0.001" in metrics

    run(main)


def test_no_client_waits_for_an_audit_and_a_stop_lets_it_end(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream(hold=asyncio.Event())
        async with serving(cheap) as a, serving(dear) as b:
            config = two_backends(a, b, route=AUDITED, more=budget("all", "1.0"))
            async with running(config, tmp_path) as tollway:
                audits = tollway.gateway.audits
                while not audits._tasks:
                    assert (await tollway.infer()).status_code == 200  # while the reference hangs
                assert dear.hold is not None
                asyncio.get_running_loop().call_later(0.2, dear.hold.set)
            assert not audits._tasks
            status = tollway.gateway.reservations.status()[0]
        assert status.spent_nano == cheap.calls * CHEAP_NANO + DEAR_NANO

    run(main)


def test_an_audit_that_a_budget_refuses_is_left_out_and_harms_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            more = budget("dear", "0.0005", {"backend": "dear"})
            config = two_backends(a, b, route=AUDITED, more=more)
            async with running(config, tmp_path) as tollway:
                for _ in range(60):
                    reply = await tollway.infer()
                    assert reply.status_code == 200
                    assert reply.headers["x-tollway-backend"] == "cheap"
                await settled(tollway)
        assert dear.calls == 0

    run(main)


def test_audits_cost_no_more_than_their_share_of_spend(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream()
        route = 'audit = { backend = "dear", share = 1.0, budget_share = 0.5 }'
        async with serving(cheap) as a, serving(dear) as b:
            async with running(two_backends(a, b, route=route), tmp_path) as tollway:
                for _ in range(200):
                    await tollway.infer()
                await settled(tollway)
        assert 5 <= dear.calls <= 0.5 * 200 * CHEAP_NANO / DEAR_NANO

    run(main)


def test_a_reply_of_the_reference_is_right_and_costs_nothing_more(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            config = two_backends(a, b, policy="most_accurate", route=AUDITED)
            async with running(config, tmp_path) as tollway:
                for _ in range(20):
                    reply = await tollway.infer()
                await settled(tollway)
                told = await tollway.get(
                    f"/_tollway/decisions/{reply.headers['x-tollway-decision']}"
                )
        assert (cheap.calls, dear.calls) == (0, 20)
        assert told["feedback"][-1]["quality"] == 1.0
        assert len(told["attempts"]) == 1

    run(main)


def test_labels_from_audits_change_the_choice(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(label=1), Upstream(label=2)  # they never agree
        route = 'objective = "value"\nvalue_per_correct_usd = 0.01\n' + AUDITED
        taken: list[str] = []
        async with serving(cheap) as a, serving(dear) as b:
            config = two_backends(a, b, policy="lagrangian", route=route)
            async with running(config, tmp_path) as tollway:
                for _ in range(300):
                    reply = await tollway.infer()
                    taken.append(reply.headers["x-tollway-backend"])
                    await settled(tollway)
        assert taken[-50:].count("dear") >= 40

    run(main)


def test_the_balance_and_what_is_known_outlive_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            config = two_backends(a, b, route=AUDITED)
            async with running(config, tmp_path) as tollway:
                await audited(tollway)
                first = tollway.gateway.routes["m"].auditor
            async with running(config, tmp_path) as tollway:
                again = tollway.gateway.routes["m"].auditor
                assert first is not None
                assert again is not None
                assert again.save() == first.save()
                assert again.labels == {"cheap": 1.0}

    run(main)
