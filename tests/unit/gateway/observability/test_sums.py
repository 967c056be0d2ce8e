"""Metrics of several workers add up to one gateway's."""

from typing import Any

from tollway.gateway.observability import aggregation


def family(name: str, kind: str, **values: float) -> aggregation.Family:
    samples: list[Any] = [[name, {"route": route}, value] for route, value in values.items()]
    return {"name": name, "type": kind, "text": "", "samples": samples}


def values(families: list[aggregation.Family]) -> dict[tuple[str, str], float]:
    return {
        (name, labels["route"]): value for one in families for name, labels, value in one["samples"]
    }


def test_counters_and_histograms_add_up_and_gauges_do_not() -> None:
    one = [
        family("c", "counter", a=1, b=2),
        family("g", "gauge", a=5),
        family("h", "histogram", a=3),
    ]
    two = [family("c", "counter", a=10), family("g", "gauge", a=4), family("h", "histogram", a=4)]
    assert values(aggregation.add([one, two])) == {
        ("c", "a"): 11,
        ("c", "b"): 2,
        ("g", "a"): 5,
        ("h", "a"): 7,
    }


def test_a_backend_that_one_worker_holds_to_be_down_is_not_up() -> None:
    up, down = ([family("tollway_backend_up", "gauge", a=value)] for value in (1, 0))
    assert values(aggregation.add([up, down])) == {("tollway_backend_up", "a"): 0}


def test_adding_does_not_change_the_reports() -> None:
    one = [family("c", "counter", a=1)]
    aggregation.add([one, one])
    assert values(one) == {("c", "a"): 1}


def test_only_counters_of_dead_workers_still_count() -> None:
    left = [family("c", "counter", a=1), family("g", "gauge", a=5), family("h", "histogram", a=3)]
    assert [one["name"] for one in aggregation.lasting(left)] == ["c", "h"]
