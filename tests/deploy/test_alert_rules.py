"""The shipped rules and alerts are valid, tested and have runbooks."""

import re
from pathlib import Path

import pytest

from tests.deploy.monitors import DEPLOY, ROOT, check, document

PROMETHEUS = DEPLOY / "prometheus"
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = [
    rule for group in document(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]
]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def test_the_rules_are_good_by_promtool() -> None:
    check("promtool", "check", "rules", PROMETHEUS / "rules.yml", PROMETHEUS / "alerts.yml")


def test_the_configurations_are_good() -> None:
    check("promtool", "check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    check("amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml")


@pytest.mark.integration
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_in_their_promtool_tests(path: Path) -> None:
    check("promtool", "test", "rules", path)


def test_each_alert_is_tested_both_ways() -> None:
    fires, silent = set(), set()
    for path in TESTS:
        for case in document(path)["tests"]:
            for told in case["alert_rule_test"]:
                (fires if told["exp_alerts"] else silent).add(told["alertname"])
    assert (sorted(fires), sorted(silent)) == (NAMES, NAMES)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_severity_figures_and_a_runbook(rule: dict) -> None:  # type: ignore[type-arg]
    told = rule["annotations"]
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert "{{" in told["summary"] or any(figure.isdigit() for figure in told["summary"])
    assert told["description"]
    assert told["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    assert (ROOT / told["runbook_url"]).read_text().startswith(f"# {rule['alert']}\n")


def test_each_runbook_is_of_an_alert_and_in_the_table_of_them() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md")) == NAMES
    assert sorted(set(re.findall(r"\(runbooks/(\w+)\.md\)", page))) == NAMES


def test_the_baselines_reach_back_no_further_than_prometheus_keeps() -> None:
    weeks = max(map(int, re.findall(r"offset (\d)w", (PROMETHEUS / "rules.yml").read_text())))
    command = document(DEPLOY / "compose.yaml")["services"]["prometheus"]["command"]
    (kept,) = re.findall(r"retention\.time=(\d+)d", " ".join(command))
    assert int(kept) > 7 * weeks
