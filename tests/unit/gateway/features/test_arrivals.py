"""Planning by the number of requests uses its own counter, not a metric."""

import ast
from pathlib import Path

from tollway.gateway.routing.sinks.demand import Arrivals

GATEWAY = Path(__file__).parents[4] / "gateway"

READERS = {"families", "spend_nano", "tags_nano", "render", "scrape"}
"""What reads figures back out of the metrics."""

SHOWN_BY = {"group.py", "api.py"}
"""These add up the figures of several workers, and show them."""

MODULES = ("aggregation", "counters", "counter_families", "collectors", "exposition", "families")
"""The modules that know how metrics are named and added up."""

DISPLAYS = {"observability", "workers", "control_plane", "wiring", "cli"}
"""The folders that may know the form of metrics: they count, add up, show and assemble them."""


def test_arrivals_are_counted_by_route_and_forgotten_with_it() -> None:
    arrivals = Arrivals()
    for route in ("a", "a", "b"):
        arrivals.count(route)
    assert (arrivals.of("a"), arrivals.of("b"), arrivals.of("c")) == (2, 1, 0)
    arrivals.keep(["b"])
    assert (arrivals.of("a"), arrivals.of("b")) == (0, 1)


def test_only_the_control_plane_reads_metrics() -> None:
    found = set()
    for path in sorted(GATEWAY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in READERS:
                owner = ast.unparse(node.value)
                if owner.split(".")[-1] in {"metrics", "_metrics", "exposition", "_exposition"}:
                    found.add(path.name)
    assert found == SHOWN_BY


def test_nothing_that_decides_knows_the_form_of_metrics() -> None:
    forms = {f"tollway.gateway.observability.{name}" for name in MODULES}
    for path in sorted(GATEWAY.rglob("*.py")):
        folder = path.relative_to(GATEWAY).parts[0]
        text = path.read_text()
        imported = {
            node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
        }
        if folder not in {*DISPLAYS, "data_plane"}:  # the data plane counts refusals
            assert not imported & forms, f"{folder}/{path.name} imports {imported & forms}"
        # The recommended replicas are a figure of all workers' sums, as a dashboard's would be.
        if folder not in DISPLAYS and path.name != "backend_totals.py":
            named = "tollway_" in text.replace("tollway_snapshot", "")
            assert not named, f"{folder}/{path.name} names a metric"
