"""Hedging: a slow call is made once more, both are paid, and the first good reply counts."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.until import until
from tollway.gateway.routing.hedging import KNOWN_AT, TOKENS_MAX, HedgePolicy, first_good
from tollway.gateway.routing.metering import HEDGE_LOST
from tollway.gateway.storage.journal_reader import Damage as JournalDamage
from tollway.simulations.replay.journal_rows import stream

HEDGE = "hedge_share = 0.05\nfallback = false"


class Stuck(Upstream):
    """Answers all calls except those with a number in `stuck` (from 1)."""

    stuck: dict[int, Callable[[Any], Awaitable[None]]]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and self.calls + 1 in self.stuck:
            self.calls += 1
            await self.stuck[self.calls](send)
            return
        await super().__call__(scope, receive, send)


def test_as_many_calls_as_asked_for_are_slower_than_the_wait() -> None:
    hedge, rng, slower = HedgePolicy(0.05), random.Random(1), 0
    for n in range(20_000):
        latency_s = rng.lognormvariate(-3.0, 0.5)
        wait_s = hedge.wait_s("a")
        assert (wait_s is None) == (n < KNOWN_AT)
        slower += n >= 10_000 and latency_s > (wait_s or 0.0)
        hedge.observe("a", latency_s)
    assert 0.04 < slower / 10_000 < 0.06


def test_the_wait_follows_a_backend_that_becomes_slow_and_fast_again() -> None:
    hedge = HedgePolicy(0.05)
    for latency_s, calls in ((0.01, 100), (1.0, 100), (0.01, 2000)):
        for _ in range(calls):
            hedge.observe("a", latency_s)
        wait_s = hedge.wait_s("a")
        assert wait_s is not None
        assert 0.8 * latency_s < wait_s < 1.2 * latency_s


def test_second_calls_are_a_share_of_the_requests_even_where_all_are_slow() -> None:
    hedge, made = HedgePolicy(0.05), 0
    for _ in range(KNOWN_AT):
        hedge.observe("a", 0.01)
    for _ in range(10_000):
        hedge.earn()
        if hedge.wait_s("a") is not None:
            hedge.spend()
            made += 1
    assert 0.05 * 10_000 <= made <= 0.05 * 10_000 + TOKENS_MAX


def test_the_first_good_result_counts_and_without_one_the_first_call() -> None:
    async def value(delay_s: float, result: int) -> int:
        await asyncio.sleep(delay_s)
        return result

    async def race(*given: tuple[float, int]) -> int:
        calls = [asyncio.create_task(value(*one)) for one in given]
        try:
            return await first_good(calls, lambda one: one > 0)
        finally:
            for call in calls:
                call.cancel()

    assert asyncio.run(race((30.0, 1), (0.0, 2))) == 2
    assert asyncio.run(race((0.01, 1), (0.0, -2))) == 1
    assert asyncio.run(race((0.01, -1), (0.0, -2))) == -1
    assert asyncio.run(race((0.0, 1))) == 1


async def warm(tollway: Running) -> None:
    """Make calls until the backend's tail is known."""
    for _ in range(KNOWN_AT):
        assert (await tollway.infer()).status_code == 200


def attempts(tollway: Running) -> list[dict[str, Any]]:
    """Return the rows of the last request's attempts."""
    found = tollway.journalled("attempt")
    return [row for row in found if row["id"] == found[-1]["id"]]


@pytest.mark.integration
def test_a_call_that_is_slow_is_made_again_and_both_are_paid(tmp_path: Path) -> None:
    upstream = Stuck()

    async def main() -> None:
        never = asyncio.Event()
        upstream.stuck = {KNOWN_AT + 1: lambda send: never.wait()}  # type: ignore[dict-item]
        async with serving(upstream) as a, serving(Upstream()) as b:
            toml = two_backends(a, b, route=HEDGE, more=budget("cap", "1.0"))
            async with running(toml, tmp_path) as tollway:
                await warm(tollway)
                reply = await tollway.infer()
                assert (reply.status_code, reply.headers["x-tollway-backend"]) == (200, "cheap")
                assert reply.headers["x-tollway-cost-usd"] == "0.000200000"
                slow, quick = attempts(tollway)
                assert (slow["error"], slow["cost_nano"]) == (HEDGE_LOST, 100_000)
                assert "hedge_s" not in slow
                assert (quick["error"], quick["cost_nano"]) == ("", 100_000)
                assert 0.0 < quick["hedge_s"] <= slow["latency_s"]
                (status,) = (await tollway.get("/_tollway/budgets"))["budgets"]
                assert status["spent_nano"] == (KNOWN_AT + 2) * 100_000
                story = await tollway.get(f"/_tollway/decisions/{slow['id']}")
                assert any("hedged with cheap" in line for line in story["story"])
                (route,) = (await tollway.get("/_tollway/routes"))["routes"]
                assert {backend["breaker"] for backend in route["backends"]} == {"closed"}
                metrics = (await tollway.client.get(tollway.url + "/metrics")).text
                assert 'tollway_hedges_total{result="won",route="m"} 1.0' in metrics
                assert not [
                    line
                    for line in metrics.splitlines()
                    if line.startswith("tollway_attempt_errors_total{")
                    and not line.endswith(" 0.0")
                ]
                told = [row for kind, row in stream(paths(tollway), JournalDamage())]
                assert told[-1]["cost_usd"] == pytest.approx(0.0002)
                assert told[-1]["excluded"] == ""
                never.set()

    def paths(tollway: Running) -> list[Path]:
        return sorted(tollway.gateway.settings.journal.dir.glob("*.jsonl*"))

    run(main)


@pytest.mark.integration
def test_where_there_is_no_money_for_two_calls_one_is_waited_for(tmp_path: Path) -> None:
    upstream = Stuck()

    async def main() -> None:
        late = asyncio.Event()

        async def answer_late(send: Any) -> None:
            await late.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": upstream.answer(b"")})

        upstream.stuck = {KNOWN_AT + 1: answer_late}
        async with serving(upstream) as a, serving(Upstream()) as b:
            toml = two_backends(a, b, route=HEDGE)
            async with running(toml, tmp_path) as tollway:
                await warm(tollway)
                asked = asyncio.create_task(tollway.infer(x_tollway_max_cost_usd="0.00015"))
                hedge = tollway.gateway.routes["m"].hedge
                assert hedge is not None
                await until(lambda: hedge.waits.denied)
                late.set()
                assert (await asked).status_code == 200
                assert (upstream.calls, hedge.waits.made) == (KNOWN_AT + 1, 0)

    run(main)


@pytest.mark.integration
def test_where_the_second_call_fails_the_first_is_waited_for(tmp_path: Path) -> None:
    upstream = Stuck()

    async def main() -> None:
        late = asyncio.Event()

        async def fail(send: Any) -> None:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
            late.set()

        async def answer_late(send: Any) -> None:
            await late.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": upstream.answer(b"")})

        upstream.stuck = {KNOWN_AT + 1: answer_late, KNOWN_AT + 2: fail}
        async with serving(upstream) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b, route=HEDGE), tmp_path) as tollway:
                await warm(tollway)
                assert (await tollway.infer()).status_code == 200
                first, second = attempts(tollway)
                assert (first["error"], second["error"]) == ("", "status 500")
                assert "hedge_s" in second

    run(main)


@pytest.mark.integration
def test_a_gateway_that_is_stopped_charges_both_calls(tmp_path: Path) -> None:
    upstream = Stuck()

    async def main() -> None:
        never = asyncio.Event()
        upstream.stuck = dict.fromkeys(
            (KNOWN_AT + 1, KNOWN_AT + 2),
            lambda send: never.wait(),  # type: ignore[dict-item]
        )
        async with serving(upstream) as a, serving(Upstream()) as b:
            toml = two_backends(a, b, route=HEDGE + "\ntimeout_s = 0.5")
            async with running(toml, tmp_path) as tollway:
                await warm(tollway)
                assert (await tollway.infer()).status_code == 504
                rows = attempts(tollway)
                assert [row["cost_nano"] for row in rows] == [100_000, 100_000]
                assert all(row["error"] for row in rows)
                never.set()

    run(main)
