"""The report on features: importance, direction, and alarms."""

from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tollway.gateway.storage.journal import Journal, segments
from tollway.reports.commands import main
from tollway.reports.features import COLUMNS, alarm, direction, importance, table
from tollway.reports.totals import Span

NOON_S = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()
DAY_S = 86_400.0


def write(journal: Journal, day: int, flipped: bool = False) -> None:
    """Write a day in which `spend` decides on the arm, `tier` leans toward it, and `noise` not."""
    rng = Random(day)
    for n in range(400):
        spend = rng.random()
        p = 0.9 if (spend > 0.5) is not flipped else 0.1
        arm = "dear" if rng.random() < p else "cheap"
        values = {"spend": spend, "noise": rng.random(), "tier": "gold" if p > 0.5 else "free"}
        row: dict[str, Any] = {
            "kind": "decision",
            "id": journal.new_id(),
            "time": NOON_S + day * DAY_S + n,
            "route": "m",
            "tenant": "acme",
            "tags": {},
            "arm": arm,
            "arms": ["cheap", "dear"],
            "pmf": [1 - p, p],
            "cost_hat_usd": [0.1, 0.2],
            "quality_hat": [0.5, 0.6],
            "reason": "best",
            "policy_version": 1,
            "features": {"user": {"mark": "fresh", "version": "v1", "values": values}},
        }
        journal.append(row)


def test_the_value_that_decides_is_told_from_noise_and_a_flip_raises_an_alarm(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    for day, flipped in enumerate([False, False, True]):
        write(journal, day, flipped)
    journal.close()
    made = table(segments(tmp_path), Span(), {})
    heads = [column.name for column in COLUMNS]
    found = {(row[0], row[2]): dict(zip(heads, row, strict=True)) for row in made.rows}
    assert len(found) == 9
    first = found["2026-11-01", "user.spend"]
    assert first["importance"] > 0.3
    assert abs(first["direction"]) == pytest.approx(0.8, abs=0.05)
    assert found["2026-11-01", "user.noise"]["importance"] < 0.03
    assert [found[f"2026-11-0{n}", "user.spend"]["alarm"] for n in (1, 2, 3)] == ["", "", "flipped"]
    assert {found[f"2026-11-0{n}", "user.noise"]["alarm"] for n in (1, 2, 3)} == {""}
    assert not table(segments(tmp_path), Span(), {"tenant": "other"}).rows


def test_the_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path)
    write(journal, 0)
    journal.close()
    assert main(["features", str(tmp_path)], {}) == 0
    assert "user.spend" in capsys.readouterr().out


def test_importance_is_0_where_one_arm_is_always_drawn() -> None:
    assert importance([1.0, 2.0, 3.0] * 100, ["a"] * 300) == 0.0
    assert importance(["x", "y"] * 200, ["a", "b"] * 200) == pytest.approx(1.0, abs=0.01)


def test_a_direction_is_the_difference_between_the_halves() -> None:
    pmfs = [{"a": 0.9, "b": 0.1}, {"a": 0.5, "b": 0.5}] * 50
    assert direction([2.0, 1.0] * 50, pmfs, "a") == pytest.approx(0.4)
    assert direction(["y", "x"] * 50, pmfs, "b") in (pytest.approx(-0.4), pytest.approx(0.4))
    assert direction(["y"] * 100, pmfs, "b") == 0.0


def test_alarms_compare_with_the_days_before() -> None:
    assert alarm([], 0.9, 0.5) == ""
    assert alarm([(0.5, 0.5)], 0.55, 0.4) == ""
    assert alarm([(0.5, 0.5)], 0.5, -0.5) == "flipped"
    assert alarm([(0.5, 0.5)], 0.5, -0.01) == ""
    assert alarm([(0.2, 0.0), (0.2, 0.0)], 0.6, 0.0) == "rose"
    assert alarm([(0.6, 0.0)], 0.2, 0.0) == "fell"
