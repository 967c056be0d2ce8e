"""The control plane: explanations, metrics and health."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving

pytestmark = pytest.mark.integration


def test_a_decision_explains_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            async with running(two_backends(a, b), tmp_path) as tollway:
                reply = await tollway.infer(x_tollway_tags="team=ads")
                told = await tollway.get(
                    f"/_tollway/decisions/{reply.headers['x-tollway-decision']}"
                )
                assert told["tags"] == {"team": "ads"}
                assert told["cost_nano"] == 100_000
                (stage,) = told["stages"]
                assert {offer["arm"] for offer in stage["offered"]} == {"cheap", "dear"}
                assert stage["arm"] == "cheap"
                assert "charged $0.0001 " in " ".join(told["story"])
                missing = await tollway.client.get(tollway.url + "/_tollway/decisions/nope")
                assert missing.status_code == 404

    run(main)


COUNTERS_READ_AT_SCRAPES = ("tollway_exploration_cost_usd_total", "tollway_ledger_requests_total")


def test_metrics_are_clean_by_promtool_and_agree_with_the_api(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "install it: apt-get install prometheus"

    async def main() -> str:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            config = two_backends(a, b, more=budget("cap", "1.0", more='window = "month"'))
            async with running(config, tmp_path) as tollway:
                for _ in range(7):
                    await tollway.infer()
                text: str = (await tollway.client.get(tollway.url + "/metrics")).text
                assert 'tollway_budget_spent_usd{budget="cap",window="month"} 0.0007\n' in text
                assert (await tollway.get("/_tollway/spend"))["cost_nano"] == 700_000
                for counter in COUNTERS_READ_AT_SCRAPES:
                    assert f"# TYPE {counter} counter\n" in text
                return text

    import asyncio

    text = asyncio.run(main())
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_series_start_at_zero_and_none_is_made_by_a_client(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, running(two_backends(a, a), tmp_path) as tollway:
            before = (await tollway.client.get(tollway.url + "/metrics")).text
            assert 'tollway_cost_usd_total{backend="dear"' in before
            for n in range(20):
                await tollway.client.get(f"{tollway.url}/made-up-{n}")
                await tollway.infer(x_tollway_tags=f"team=t{n}")
            after = (await tollway.client.get(tollway.url + "/metrics")).text
            assert "made-up" not in after and "t19" not in after
            assert len(after.splitlines()) <= len(before.splitlines()) + 2

    run(main)


def test_livez_is_always_200_and_readyz_while_serving(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, running(two_backends(a, a), tmp_path) as tollway:
            for path in ("/livez", "/readyz", "/healthz"):
                assert (await tollway.client.get(tollway.url + path)).status_code == 200
            tollway.gateway.not_ready = "stopping"
            assert (await tollway.client.get(tollway.url + "/readyz")).status_code == 503
            assert (await tollway.client.get(tollway.url + "/livez")).status_code == 200

    run(main)


def test_an_unknown_path_of_the_control_plane_is_a_problem(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(Upstream()) as a, running(two_backends(a, a), tmp_path) as tollway:
            reply = await tollway.client.get(tollway.url + "/_tollway/nothing")
            assert reply.status_code == 404
            assert reply.headers["content-type"] == "application/problem+json"

    run(main)
