"""What replicas are used is added up, and recorded once a minute."""

from typing import Any

import pytest

from tollway.gateway.scaling.usage import ReplicaUsage, UsedReplicas

TWO = UsedReplicas(2, 0.5, 3_600_000_000)


def test_replica_time_busy_time_and_cost_are_recorded_each_minute() -> None:
    rows: list[dict[str, Any]] = []
    usage = ReplicaUsage(rows.append)
    for at_s in range(0, 65, 5):
        usage.add("gpu", TWO, 1000.0 + at_s)
    assert rows == [
        {
            "kind": "replicas",
            "time": 1060.0,
            "backend": "gpu",
            "since": 1000.0,
            "replica_s": 120.0,
            "busy_s": 30.0,
            "cost_nano": 120_000_000,
        }
    ]
    assert usage.cost_usd["gpu"] == pytest.approx(0.12)


def test_a_gap_counts_for_nothing_and_what_came_before_is_recorded() -> None:
    rows: list[dict[str, Any]] = []
    usage = ReplicaUsage(rows.append)
    for at_s in (0.0, 10.0, 500.0, 510.0):
        usage.add("gpu", TWO, at_s)
    usage.flush(510.0)
    assert [row["replica_s"] for row in rows] == [20.0, 20.0]
