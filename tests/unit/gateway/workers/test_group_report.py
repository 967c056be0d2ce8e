"""Workers' reports: what is added up, and what outlives a worker."""

from typing import Any

import orjson

from tollway.gateway.anomalies.activity import Activity
from tollway.gateway.workers.group import WorkerReport, read

KEY = ("r", "b", "t")


def family(name: str, kind: str, value: float) -> dict[str, Any]:
    return {"name": name, "type": kind, "text": "", "samples": [[name, {"route": "r"}, value]]}


def report(time: float) -> WorkerReport:
    return WorkerReport(
        [family("c", "counter", 1.0), family("g", "gauge", 5.0)],
        [{"time": time, "kind": "reloaded"}],
        {"team=ads": 3},
        {KEY: Activity(2, 0.5, 30.0, 10)},
    )


def test_reports_cross_to_another_worker_and_add_up() -> None:
    other = read(orjson.loads(orjson.dumps(report(2.0).document())))
    both = report(1.0) + other

    assert other == report(2.0)
    assert both.spend == {KEY: 20}
    assert both.tags == {"team=ads": 6}
    assert both.activity == {KEY: Activity(4, 1.0, 60.0, 20)}
    assert [event["time"] for event in both.events] == [2.0, 1.0]


def test_of_a_dead_worker_all_but_its_gauges_counts() -> None:
    lasting = report(1.0).lasting()

    assert [one["name"] for one in lasting.families] == ["c"]
    assert (lasting.spend, lasting.activity) == (report(1.0).spend, report(1.0).activity)
