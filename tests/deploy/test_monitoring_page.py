"""docs/monitoring.md has every metric that a gateway exports, as it says them itself."""

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.monitors import ROOT
from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving

pytestmark = pytest.mark.integration

FLOOR = 'objective = "min_cost"\naccuracy_floor = 0.9\nbaseline = "dear"'


def exported(tmp_path: Path) -> list[str]:
    """Return the table's lines by a live scrape."""
    told: list[str] = []

    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            config = two_backends(a, b, policy="lagrangian", route=FLOOR, more=CAP)
            config = config.replace("{ per_request_usd = 0.001 }", BY_TIME)
            config = config.replace("[[routes]]", "[[routes]]\nhedge_share = 0.05")
            async with running(config, tmp_path) as tollway:
                for n in range(20):
                    reply = await tollway.infer(float(n), x_tollway_tags="team=ads")
                    decision = reply.headers["x-tollway-decision"]
                    await tollway.feedback({"decision": decision, "quality": 1.0})
                await tollway.gateway.scheduler.save()
                tollway.gateway.scheduler.pace()
                async with httpx.AsyncClient(trust_env=False) as client:
                    text = (await client.get(f"{tollway.url}/metrics")).text
                told.extend(lines(text))

    run(main)
    return told


CAP = budget("cap", "1.0", more='window = "month"\npacing = "even"')
BY_TIME = "{ device_usd_per_hour = 2.5 }"


def lines(text: str) -> list[str]:
    found = []
    for family in text_string_to_metric_families(text):
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shown = ", ".join(f"`{label}`" for label in sorted(labels))
        found.append(f"| `{name}` | {shown} | {family.documentation} |")
    return sorted(found)


def test_the_table_of_metrics_is_what_a_gateway_exports(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    table = sorted(line for line in page.splitlines() if line.startswith("| `tollway_"))
    assert table == exported(tmp_path)
