"""The path: what happens when a backend does not do what it should, and what that costs."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving
from tests.support.until import until
from tollway.backends.protocols.oip.protocol import OpenInference
from tollway.gateway.routing.circuit_breaker import FAILURES_IN_A_ROW

pytestmark = pytest.mark.integration

RULES = """
[features]
first = { path = "inputs[0].data", take = "sum" }

[[rules]]
when = ["first > 100"]
answer = 9

[default]
answer = 3
"""


@pytest.mark.parametrize(
    ("broken", "cost_nano"),
    [
        (Upstream(status=500, body=b"{}"), 100_000),
        (Upstream(status=503, body=b"{}"), 0),
        (Upstream(delay_s=60.0), 100_000),
    ],
    ids=["500", "503", "timeout"],
)
def test_a_backend_that_fails_is_charged_if_it_may_have_run_and_another_answers(
    tmp_path: Path, broken: Upstream, cost_nano: int
) -> None:
    async def main() -> None:
        async with serving(broken) as a, serving(Upstream(label=2)) as b:
            config = two_backends(a, b, backend="timeout_s = 0.3", more=budget("cap", "1.0"))
            async with running(config, tmp_path) as tollway:
                reply = await tollway.infer()
                assert reply.status_code == 200
                assert reply.headers["x-tollway-backend"] == "dear"
                assert reply.headers["x-tollway-reason"] == "fallback"
                first, second = tollway.journalled("attempt")
                assert (first["backend"], first["cost_nano"], bool(first["error"])) == (
                    "cheap",
                    cost_nano,
                    True,
                )
                assert (second["backend"], second["fallback"]) == ("dear", True)
                (draw,) = tollway.journalled("decision")
                assert draw["arm"] == "cheap"
                (status,) = (await tollway.get("/_tollway/budgets"))["budgets"]
                assert status["spent_nano"] == cost_nano + 1_000_000

    run(main)


def test_a_backend_that_cannot_be_reached_costs_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as gone:
            pass
        async with serving(Upstream()) as b, running(two_backends(gone, b), tmp_path) as tollway:
            reply = await tollway.infer()
            assert reply.headers["x-tollway-backend"] == "dear"
            assert reply.headers["x-tollway-cost-usd"] == "0.001000000"

    run(main)


def test_without_a_fallback_the_backends_own_failure_is_passed_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream(status=500)) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route="fallback = false"), tmp_path) as tollway:
                reply = await tollway.infer()
        assert reply.status_code == 500
        assert reply.headers["x-tollway-reason"] == "failed"

    run(main)


def test_a_4xx_goes_to_the_client_and_costs_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        cheap, dear = Upstream(status=422, body=b'{"error": "wrong shape"}'), Upstream()
        async with serving(cheap) as a, serving(dear) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                reply = await tollway.infer()
        assert (reply.status_code, reply.json()) == (422, {"error": "wrong shape"})
        assert reply.headers["x-tollway-cost-usd"] == "0.000000000"
        assert dear.calls == 0

    run(main)


UNLOADED = Upstream(status=404, body=b'{"error": "model is not ready"}')


def test_a_backend_without_the_model_fails_over_and_stays_in_service(tmp_path: Path) -> None:
    """Its requests are well formed, because their route's protocol has checked them."""

    async def main() -> None:
        UNLOADED.calls = 0
        async with serving(UNLOADED) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                replies = [await tollway.infer() for _ in range(FAILURES_IN_A_ROW + 5)]
                assert replies[0].headers["x-tollway-reason"] == "fallback"
                assert replies[0].headers["x-tollway-cost-usd"] == "0.001000000"
                (refused, _) = tollway.journalled("attempt")[:2]
                assert (refused["error"], refused["cost_nano"]) == ("status 404", 0)
        assert all(reply.status_code == 200 for reply in replies)
        assert UNLOADED.calls == FAILURES_IN_A_ROW + 5

    run(main)


def test_the_only_backends_reply_is_passed_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(UNLOADED) as a, serving(UNLOADED) as b:
            for route in ("fallback = false", ""):
                async with running(two_backends(a, b, route=route), tmp_path) as tollway:
                    reply = await tollway.infer()
                    told = (reply.status_code, reply.json(), reply.headers["x-tollway-reason"])
                    assert told == (404, {"error": "model is not ready"}, "failed")
                    metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                    assert 'outcome="failed"' in metrics

    run(main)


@pytest.mark.parametrize("status", [404, 422])
def test_a_received_reply_is_kept_if_the_next_backend_gives_none(
    tmp_path: Path, status: int
) -> None:
    async def main() -> None:
        unsure, refusing = Upstream(confidence=0.4), Upstream(status=status, body=b"{}")
        async with serving(unsure) as a, serving(refusing) as b:
            config = two_backends(a, b, policy="lagrangian", route="cascade = true")
            async with running(config, tmp_path) as tollway:
                replies = [await tollway.infer() for _ in range(60)]
                asked = tollway.journalled("attempt")
        escalated = {one["id"] for one in asked if one["backend"] == "cheap"}
        escalated &= {one["id"] for one in asked if one["backend"] == "dear"}
        kept = [one for one in replies if one.headers["x-tollway-decision"] in escalated]
        assert kept
        assert {reply.status_code for reply in kept} == {200}
        assert {reply.headers["x-tollway-backend"] for reply in kept} == {"cheap"}

    run(main)


def test_a_deadline_is_kept_and_what_ran_is_charged(tmp_path: Path) -> None:
    async def main() -> None:
        slow = Upstream(delay_s=60.0)
        async with serving(slow) as a:
            async with running(two_backends(a, a, route="fallback = false"), tmp_path) as tollway:
                reply = await tollway.infer(x_tollway_deadline_ms="200")
                assert reply.status_code == 504
                (attempt,) = tollway.journalled("attempt")
                assert (attempt["cost_nano"], attempt["provenance"]) == (100_000, "estimated")

    run(main)


def test_a_backend_that_fails_again_and_again_is_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        broken = Upstream(status=503)
        async with serving(broken) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                replies = [await tollway.infer() for _ in range(FAILURES_IN_A_ROW + 5)]
        assert all(reply.status_code == 200 for reply in replies)
        assert broken.calls == FAILURES_IN_A_ROW

    run(main)


def test_a_refusal_says_which_budget_and_how_much_and_asks_not_to_be_retried(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            more = budget("cap", "0.0002", {"tenant": "anonymous"}, 'window = "day"')
            async with running(two_backends(a, a, more=more), tmp_path) as tollway:
                replies = [await tollway.infer() for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 402]
        problem = replies[-1].json()
        assert problem["budget"] == "cap"
        assert problem["limit_usd"] == problem["spent_usd"] == 0.0002
        assert problem["resets_at"]
        assert problem["error"]
        assert replies[-1].headers["x-should-retry"] == "false"
        assert replies[-1].headers["x-tollway-reason"] == "budget_exhausted"
        assert replies[-1].headers["x-tollway-cost-usd"] == "0.000000000"
        assert replies[-1].headers["x-tollway-decision"]

    run(main)


def test_when_the_best_cannot_be_paid_for_the_next_best_answers(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            config = two_backends(a, b, policy="most_accurate", more=budget("cap", "0.0012"))
            async with running(config, tmp_path) as tollway:
                replies = [await tollway.infer() for _ in range(4)]
                draws = tollway.journalled("decision")
        assert [reply.headers.get("x-tollway-backend") for reply in replies] == [
            "dear",
            "cheap",
            "cheap",
            None,
        ]
        assert replies[-1].status_code == 402
        assert [draw["redrawn"] for draw in draws[:3]] == [False, False, True]

    run(main)


def test_a_cascade_writes_down_each_stage_and_charges_each_attempt(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream(confidence=0.4)) as a, serving(Upstream(label=2)) as b:
            config = two_backends(a, b, policy="lagrangian", route="cascade = true")
            async with running(config, tmp_path) as tollway:
                replies = [await tollway.infer() for _ in range(60)]
                for reply in replies:
                    rows_ = await tollway.get(
                        f"/_tollway/decisions/{reply.headers['x-tollway-decision']}"
                    )
                    cost = sum(attempt["cost_nano"] for attempt in rows_["attempts"])
                    assert reply.headers["x-tollway-cost-usd"] == f"{cost / 1e9:.9f}"
                    assert rows_["attempts"][-1]["backend"] == reply.headers["x-tollway-backend"]
                    for stage in rows_["stages"]:
                        assert sum(o["probability"] for o in stage["offered"]) == pytest.approx(1)
                    if len(rows_["stages"]) == 2:
                        assert rows_["stages"][1]["held"] == "cheap"
                        assert rows_["stages"][1]["reply_features"][0] == pytest.approx(0.4)
                stages = {draw["stage"] for draw in tollway.journalled("decision")}
                assert stages == {0, 1}

    run(main)


def test_a_hundred_at_once_against_a_budget_for_forty_are_forty_answers(tmp_path: Path) -> None:
    async def main() -> None:
        cheap = Upstream(delay_s=0.05)
        async with serving(cheap) as a:
            config = two_backends(
                a,
                a,
                route="",
                policy="cheapest",
                more=budget("cap", "0.004"),
                ledger="sqlite:///tollway.db",
            ).replace('backends = ["cheap", "dear"]', 'backends = ["cheap"]')
            async with running(config, tmp_path) as tollway:
                replies = await asyncio.gather(*(tollway.infer() for _ in range(100)))
                statuses = [reply.status_code for reply in replies]
                assert (statuses.count(200), statuses.count(402)) == (40, 60)
                assert cheap.calls == 40
                (status,) = (await tollway.get("/_tollway/budgets"))["budgets"]
                assert status["spent_nano"] == 40 * 100_000 == status["limit_nano"]
                assert (await tollway.get("/_tollway/spend"))["cost_nano"] == 40 * 100_000
                assert (
                    sum(row["cost_nano"] for row in tollway.journalled("attempt")) == 40 * 100_000
                )
                text = (await tollway.client.get(tollway.url + "/metrics")).text
                labels = 'backend="cheap",provenance="usage",route="m",tenant="anonymous"'
                assert f"tollway_cost_usd_total{{{labels}}} 0.004\n" in text

    run(main)


def test_replies_are_the_backends_own_bytes_when_they_are_large(tmp_path: Path) -> None:
    async def main() -> None:
        big = orjson.dumps(
            {
                "outputs": [
                    {"name": "y", "shape": [200_000], "datatype": "FP64", "data": [0.5] * 200_000}
                ]
            }
        )
        async with (
            serving(Upstream(body=big)) as a,
            running(two_backends(a, a), tmp_path) as tollway,
        ):
            assert (await tollway.infer()).content == big

    run(main)


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ("reject", ["dear"] * 5 + ["cheap"] * 3),
        ("cheapest", ["dear"] * 5 + ["cheap"] * 3),
    ],
)
def test_a_budget_near_its_limit_allows_only_cheap_calls(
    tmp_path: Path, then: str, expected: list[str]
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            near = f'downgrade_at = 0.5\ndowngrade_max_usd = 0.0005\nthen = "{then}"'
            more = budget("cap", "0.01", more=near)
            async with running(
                two_backends(a, b, policy="most_accurate", more=more), tmp_path
            ) as t:
                replies = []

                async def is_settled() -> bool:
                    return not (await t.get("/_tollway/budgets"))["budgets"][0]["held_nano"]

                for _ in range(8):
                    replies.append(await t.infer())
                    await until(is_settled)  # a posture is as fresh as the ledger's word
        assert [reply.headers["x-tollway-backend"] for reply in replies] == expected

    run(main)


@pytest.mark.parametrize(("then", "status"), [("reject", 402), ("cheapest", 200), ("rules", 200)])
def test_on_exhausted_applies_when_no_backend_is_cheap_enough(
    tmp_path: Path, then: str, status: int
) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a:
            near = f'downgrade_at = 0.0\ndowngrade_max_usd = 0.000001\nthen = "{then}"'
            (tmp_path / "rules.toml").write_text(RULES)
            rules = """
[[backends]]
name = "rules"
kind = "rules"
rules = "rules.toml"
price = { per_request_usd = 0.0002 }
"""
            config = two_backends(a, a, more=rules + budget("cap", "0.01", more=near))
            config = config.replace('["cheap", "dear"]', '["cheap", "dear", "rules"]')
            async with running(config, tmp_path) as tollway:
                reply = await tollway.infer()
        assert reply.status_code == status
        if status == 402:
            assert reply.json()["title"] == "Budget downgraded"
        else:
            expected = {"cheapest": "cheap", "rules": "rules"}[then]
            assert reply.headers["x-tollway-backend"] == expected

    run(main)


def test_a_reply_that_raises_an_internal_error_is_passed_on_and_counted_separately(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An internal error while reading a reply; such errors have occurred."""

    class Choking(OpenInference):
        def answer(self, payload: Any, reply: Any, body: bytes) -> Any:
            raise TypeError("unhashable type: 'dict'")

    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                tollway.gateway.routes["m"].backends["cheap"].protocol = Choking()
                reply = await tollway.infer()
                assert (reply.status_code, reply.headers["x-tollway-backend"]) == (200, "cheap")
                (row,) = tollway.journalled("attempt")
                assert (row["error"], row["no_answer"]) == ("", "unreadable: TypeError")
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                labels = 'backend="cheap",route="m",tenant="anonymous"'
                assert f"tollway_internal_errors_total{{{labels}}} 1.0" in metrics

    run(main)
    assert "unhashable" in caplog.text
