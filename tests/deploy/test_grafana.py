"""The dashboard is current, queries only existing metrics, and shows data."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import monitors
from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving
from tests.support.until import until_now

GRAFANA = monitors.DEPLOY / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "tollway.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUIET = {
    # What this traffic lacks: feedback, prices by usage, a floor, a day and weeks of history, and
    # devices (tests/deploy/test_monitoring_page.py has one).
    "Device use",
    "Idle share of prices",
    "Cost of devices",
    "Accuracy and floor",
    "Calls within their ceiling",
    "Feedback",
    "Shadow price",
    "Exploration",
    "Burn rate",
}


def expressions() -> list[tuple[str, str]]:
    """Return (panel, expression) for all panels, Grafana's variables filled in."""
    return [
        (panel["title"], filled(target["expr"])) for panel in PANELS for target in panel["targets"]
    ]


def filled(expr: str) -> str:
    return expr.replace("$__rate_interval", "1m").replace("$route", ".*")


def recorded() -> set[str]:
    """Return the names of the recording rules' series."""
    document = monitors.document(monitors.DEPLOY / "prometheus" / "rules.yml")
    return {rule["record"] for group in document["groups"] for rule in group["rules"]}


def test_the_dashboard_is_what_its_generator_makes() -> None:
    command = [sys.executable, str(GRAFANA / "generate.py"), "--check"]
    subprocess.run(command, check=True)


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_expression_parses_and_names_only_what_there_is(tmp_path: Path) -> None:
    page = (monitors.ROOT / "docs" / "monitoring.md").read_text()  # tested against a live scrape
    known = set(re.findall(r"^\| `(tollway_\w+)`", page, re.MULTILINE)) | recorded()
    rules = []
    for number, (title, expr) in enumerate(expressions()):
        rules.append({"record": f"panel:{number}", "expr": expr})
        for name in re.findall(r"\btollway[_:][\w:]+", expr):
            assert name.removesuffix("_bucket") in known, f"{title} asks for {name}"
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    monitors.check("promtool", "check", "rules", path)


def test_provisioning_finds_the_data_source_and_the_dashboard() -> None:
    service = monitors.document(monitors.DEPLOY / "compose.yaml")["services"]["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in service["volumes"])
    provider = monitors.document(GRAFANA / "provisioning" / "dashboards" / "tollway.yaml")
    assert mounted["./grafana/dashboards"] == provider["providers"][0]["options"]["path"]
    source = monitors.document(GRAFANA / "provisioning" / "datasources" / "prometheus.yaml")
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    assert re.fullmatch(r"[A-Z0-9].{20,}\.", panel["description"])


@pytest.mark.integration
def test_every_metric_is_in_the_exposition(tmp_path: Path) -> None:
    """Names of metrics that nobody exports make empty panels, whatever the traffic."""
    device = '\n[[devices]]\nname = "gpu"\nusd_per_hour = 2.5\n'

    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            config = two_backends(a, b, route="accuracy_floor = 0.5", more=budget("cap", "1.0"))
            config = (
                config.replace("price = { per_request_usd = 0.001 }", 'device = "gpu"') + device
            )
            async with running(config, tmp_path) as tollway:
                for _ in range(5):
                    reply = await tollway.infer(1.0)
                    decision = reply.headers["x-tollway-decision"]
                    await tollway.feedback({"decision": decision, "quality": 1.0})
                text = (await tollway.client.get(tollway.url + "/metrics")).text
        exported = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
        exported |= {f"{name}_total" for name in exported}
        for title, expr in expressions():
            for name in re.findall(r"\btollway_\w+", expr):
                assert name.removesuffix("_bucket") in exported, f"{title} asks for {name}"

    run(main)


@pytest.mark.integration
def test_panels_have_something_to_show_of_live_traffic(tmp_path: Path) -> None:
    more = budget("cap", "1.0", more='window = "day"')

    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            ledger = "sqlite:///tollway.db"
            config = two_backends(a, b, more=more, ledger=ledger)
            await asyncio.to_thread(look, config, tmp_path)

    run(main)


def look(config: str, folder: Path) -> None:
    """Query Prometheus like Grafana until every panel that can has data."""
    address = monitors.free_address()
    nobody = monitors.free_address()
    with (
        monitors.gateway(folder, address, config) as gateway,
        monitors.prometheus(
            folder, monitors.prometheus_config(folder, [address], nobody)
        ) as prometheus,
    ):

        def shown() -> bool:
            monitors.ask(gateway, 5)
            return all(
                anything(monitors.query(prometheus, expr))
                for title, expr in expressions()
                if title not in QUIET and "usual" not in expr
            )

        until_now(shown)


def anything(found: list[dict[str, Any]]) -> bool:
    return any(sample["value"][1] != "NaN" for sample in found)
