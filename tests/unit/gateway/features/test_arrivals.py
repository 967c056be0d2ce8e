"""What plans by the number of requests has a count of its own, and reads no metric."""

import ast
from pathlib import Path

from tollway.gateway.routing.arrivals import Arrivals

GATEWAY = Path(__file__).parents[4] / "gateway"

READERS = {"families", "spend_nano", "tags_nano", "render", "exposition"}
"""What reads figures back out of the metrics."""

SHOWN_BY = {"group.py", "api.py"}
"""These add up the figures of several workers, and show them."""


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
                if owner.split(".")[-1] in {"metrics", "_metrics"}:
                    found.add(path.name)
    assert found == SHOWN_BY
