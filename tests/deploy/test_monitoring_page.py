"""docs/monitoring.md lists every metric that a gateway exports, with its help text."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.monitors import ROOT
from tests.support.configs import budget, two_backends
from tests.support.harness import Upstream, run, running, serving
from tests.support.http_client import http_client
from tests.support.registered import Registered
from tests.support.rollouts import rollout, status
from tests.support.until import until

pytestmark = pytest.mark.integration

FLOOR = 'objective = "min_cost"\naccuracy_floor = 0.9\nbaseline = "dear"'


def exported(tmp_path: Path) -> list[str]:
    """Return the table's lines by a live scrape."""
    told: list[str] = []

    async def main() -> None:
        async with serving(Upstream()) as a, serving(Upstream()) as b:
            config = two_backends(a, b, policy="lagrangian", route=FLOOR, more=CAP)
            config = config.replace("price = { per_request_usd = 0.001 }", BY_TIME) + DEVICE
            config += rollout(a, SHADOW).replace('"cheap"', '"dear"')
            config = config.replace(
                "[[routes]]",
                "[[routes]]\nhedge_share = 0.05\ncache = { ttl_s = 600 }\nfeatures = ['user']",
            )
            (tmp_path / "models" / "m" / "1").mkdir(parents=True)
            async with running(config, tmp_path) as tollway:
                registered = Registered(tollway, config, tmp_path)
                await registered.keeper.parts.registry.set_alias("m", "champion", "1")
                await registered.look()
                await status(tollway)
                for n in range(20):
                    reply = await tollway.infer(float(n), x_tollway_tags="team=ads")
                    decision = reply.headers["x-tollway-decision"]
                    await tollway.feedback({"decision": decision, "quality": 1.0})
                counts = tollway.gateway.shadows.counts
                await until(lambda: counts["next", "answered"] > 0)
                await status(tollway)
                await tollway.gateway.state.save()
                tollway.gateway.pacing.pace()
                for now_s in (0.0, 60.0):
                    tollway.gateway.scaling.observe({}, now_s)
                async with http_client() as client:
                    text = (await client.get(f"{tollway.url}/metrics")).text
                told.extend(lines(text))

    run(main)
    return told


FEATURES = """
[[features]]
name = "user"
entity = "$headers.x-user-id"
source = "sqlite:///features.db"
values = [{ name = "spend" }]
"""
SHADOW = 'strategy = "shadow"\nmin_samples = 1\nmirror = { share = 1.0 }'
CAPTURES = "\n[capture]\nshare = 1.0\n"
CAP = budget("cap", "1.0", more='window = "month"\npacing = "even"') + CAPTURES + FEATURES
DEVICE = '\n[[devices]]\nname = "gpu"\nusd_per_hour = 2.5\n'
DEVICE += '\n[cache]\nurl = "redis://127.0.0.1:9/0"\n'  # which does not answer: that is counted
DEVICE += '\n[registry]\nkind = "folder"\n[[models]]\nname = "m"\nbackend = "cheap"\n'
DEVICE += 'model = "m-v{version}"\n'
DEVICE += '\n[[scaling]]\nname = "dear"\nmax = 2\ncalls_per_replica = 4\nreplica_usd_per_hour = 1\n'
BY_TIME = 'device = "gpu"\nbatch = { max_size = 2 }'


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
    found = exported(tmp_path)
    # Of a family without a sample, such as the moves of a rollout that has not begun, a scrape
    # does not show the labels.
    blank = {line for line in found if "` |  | " in line}
    shown = {line: without_labels(line) for line in table}
    assert sorted(without if without in blank else line for line, without in shown.items()) == found


def without_labels(line: str) -> str:
    """Return a line of the table with its cell of labels empty."""
    name, _, text = line.removeprefix("| ").removesuffix(" |").split(" | ", 2)
    return f"| {name} |  | {text} |"
