"""Reports of a live gateway say what its ledger, its metrics and its page say."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import budget, two_backends
from tests.support.harness import Running, Upstream, run, running, serving
from tests.support.streams import ASK, CONFIG, END, Model, chunk, row_of, usage
from tollway.gateway.cli.main import main as tollway

pytestmark = pytest.mark.integration


def report(folder: Path, *arguments: str) -> Any:
    out = folder / "report.json"
    assert tollway(["report", *arguments, str(folder), "--out", str(out)], {}) == 0
    return json.loads(out.read_text())


async def traffic(gateway: Running) -> None:
    for n in range(120):
        tags = f"cost_center=c{n % 3},environment={'prod' if n % 2 else 'staging'}"
        reply = await gateway.infer(float(n), x_tollway_tags=tags)
        if reply.status_code == 200 and n % 3 == 0:
            decision = reply.headers["x-tollway-decision"]
            await gateway.feedback({"decision": decision, "quality": float(n % 5 != 0)})


def test_report_page_api_metrics_and_ledger_agree(tmp_path: Path) -> None:
    more = budget("cap", "0.06") + budget("c1", "1.0", {"tags": "TAGS"}).replace(
        'tags = "TAGS"', 'tags = { cost_center = "c1" }'
    )

    async def main() -> dict[str, Any]:
        told: dict[str, Any] = {}
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            config = two_backends(a, b, policy="lagrangian", more=more)
            async with running(config, tmp_path) as gateway:
                await traffic(gateway)
                told["api"] = (await gateway.get("/_tollway/spend"))["cost_nano"]
                told["page"] = await gateway.get("/_tollway/overview?range=1h")
                budgets = (await gateway.get("/_tollway/budgets"))["budgets"]
                told["ledger"] = {one["name"]: one["spent_nano"] for one in budgets}
        return told

    told = asyncio.run(main())
    daily, roi = report(tmp_path, "daily"), report(tmp_path, "roi")
    by_center = {row["cost_center"]: row["cost_nano"] for row in daily["By cost center"]}

    whole = sum(row["cost_nano"] for row in daily["Spend by day"])
    assert whole == told["api"] == told["page"]["since_start_nano"] == told["ledger"]["cap"] > 0
    assert by_center["c1"] == told["ledger"]["c1"]
    tags = {row["tag"]: round(row["usd"] * 1e9) for row in told["page"]["tags"]}
    assert tags == {
        **{f"cost_center={name}": nano for name, nano in by_center.items()},
        **{f"environment={r['environment']}": r["cost_nano"] for r in daily["By environment"]},
    }
    (route,) = told["page"]["routes"]
    (returned,) = roi["Returns"]
    assert returned["accuracy"] == pytest.approx(route["accuracy"])
    assert returned["accuracy_low"] == pytest.approx(route["accuracy_interval"][0])
    assert returned["answered"] == route["answered"]
    assert returned["cost_per_correct_nano"] / 1e9 == pytest.approx(route["usd_per_correct"])
    would = {row["backend"]: row["would_have_cost_nano"] for row in roi[SAVINGS]}
    saved = route["savings"]["most_accurate"]
    assert would[saved["backend"]] / 1e9 == pytest.approx(saved["would_have_cost_usd"])


SAVINGS = "Savings against fixed backends"


def test_streams_are_reported_at_what_they_settled_for(tmp_path: Path) -> None:
    async def main() -> None:
        model = Model(chunk("Hel"), chunk("lo", "stop"), usage(100, 50), END)
        async with serving(model) as url:
            async with running(CONFIG.format(one=url, two=url, route=""), tmp_path) as gateway:
                for _ in range(3):
                    path = gateway.url + "/v1/chat/completions"
                    reply = await gateway.client.post(path, json=ASK)
                    await row_of(gateway, reply.headers["x-tollway-decision"])
                assert (await gateway.get("/_tollway/spend"))["cost_nano"] == 3 * 600_000
                (budget,) = (await gateway.get("/_tollway/budgets"))["budgets"]
                assert budget["spent_nano"] == 3 * 600_000

    run(main)
    daily = report(tmp_path, "daily")

    (day,) = daily["Spend by day"]
    assert (day["cost_nano"], day["calls"], day["answered"]) == (3 * 600_000, 3, 3)
    (backend,) = daily["By backend"]
    assert (backend["input_tokens"], backend["output_tokens"]) == (300, 150)
