"""The report on replicas: from the journal's rows to the table."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tollway.gateway.storage.journal_format import seal
from tollway.gateway.storage.journal_reader import Damage
from tollway.reports.facts import ReplicaTime, replicas
from tollway.reports.replicas import COLUMNS, table
from tollway.reports.totals import Span, Totals

NOON_S = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()
ROW = {
    "kind": "replicas",
    "time": NOON_S,
    "backend": "gpu",
    "since": NOON_S - 60,
    "replica_s": 120.0,
    "busy_s": 30.0,
    "cost_nano": 4000,
    "id": "x",
}


def test_hours_cost_and_idle_time_are_summed_by_day_beside_the_charges() -> None:
    times = [
        ReplicaTime(NOON_S, "gpu", 5400.0, 1800.0, 3000),
        ReplicaTime(NOON_S + 60, "gpu", 1800.0, 0.0, 1000),
        ReplicaTime(NOON_S + 86_400, "gpu", 3600.0, 7200.0, 5),
        ReplicaTime(NOON_S - 86_400, "gpu", 9.0, 9.0, 9),
    ]
    calls = {("2026-11-01", "gpu"): Totals(cost_nano=2500, calls=7)}
    made = table(times, calls, Span(since_s=NOON_S - 3600))
    rows = [dict(zip([c.name for c in COLUMNS], row, strict=True)) for row in made.rows]
    assert [row["day"] for row in rows] == ["2026-11-01", "2026-11-02"]
    assert (rows[0]["replica_hours"], rows[0]["idle_share"]) == (2.0, pytest.approx(0.75))
    assert (rows[0]["cost"], rows[0]["idle_cost"]) == (4000, 3000)
    assert (rows[0]["calls"], rows[0]["charged"]) == (7, 2500)
    assert (rows[1]["idle_share"], rows[1]["calls"]) == (0.0, 0)


def test_the_rows_of_a_journal_are_read(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(seal(ROW) + seal({"kind": "decision", "id": "y"}))
    assert list(replicas([path], Damage())) == [ReplicaTime(NOON_S, "gpu", 120.0, 30.0, 4000)]
