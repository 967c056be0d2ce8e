"""What plans by the number of requests has a count of its own, and reads no metric."""

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.arrivals import Arrivals

GATEWAY = Path(__file__).parents[2] / "gateway"

READERS = {"families", "spend_nano", "tags_nano", "render", "exposition"}
"""What reads figures back out of the metrics."""

SHOWN_BY = {"crew.py", "control.py"}
"""These add up the figures of several workers, and show them."""


def turn(route: str, *, demand: bool = True) -> Any:
    inference = SimpleNamespace(route=SimpleNamespace(name=route))
    return SimpleNamespace(inference=inference, is_demand=demand)


def test_arrivals_count_what_wants_money_and_forget_routes_that_are_gone() -> None:
    arrivals = Arrivals()
    for one in (turn("a"), turn("a"), turn("b"), turn("a", demand=False)):
        arrivals.count(one)
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
