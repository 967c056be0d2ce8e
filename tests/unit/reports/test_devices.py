"""The report on devices."""

from datetime import UTC, datetime

import pytest

from tollway.reports.devices import COLUMNS, table
from tollway.reports.facts import DeviceCost
from tollway.reports.totals import Span, Totals

NOON_S = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()


def cost(at_s: float, device: str, bill_nano: int, busy_s: float, *backends: str) -> DeviceCost:
    return DeviceCost(NOON_S + at_s, NOON_S + at_s + 3600, device, backends, bill_nano, busy_s, 2.0)


def charged(nano: int, calls: int) -> Totals:
    return Totals(cost_nano=nano, calls=calls)


def test_the_bill_is_set_against_the_charges_of_the_backends_day_by_day() -> None:
    costs = [
        cost(0, "gpu", 1000, 1800.0, "a", "b"),
        cost(3600, "gpu", 1000, 3600.0, "a", "c"),
        cost(86_400, "gpu", 500, 0.0, "a"),
        cost(0, "other", 70, 7200.0, "d"),
        cost(-90_000, "gpu", 9, 9.0, "a"),
    ]
    calls = {
        ("2026-11-01", "a"): charged(1200, 5),
        ("2026-11-01", "b"): charged(300, 2),
        ("2026-11-01", "elsewhere"): charged(7, 1),
        ("2026-11-02", "a"): charged(600, 1),
    }
    made = table(costs, calls, Span(since_s=NOON_S - 3600))
    heads = [column.name for column in COLUMNS]
    rows = [dict(zip(heads, row, strict=True)) for row in made.rows]
    assert [(row["day"], row["device"]) for row in rows] == [
        ("2026-11-01", "gpu"),
        ("2026-11-01", "other"),
        ("2026-11-02", "gpu"),
    ]
    first, other, second = rows
    assert (first["bill"], first["charged"], first["unallocated"]) == (2000, 1500, 500)
    assert (first["backends"], first["calls"], first["hours"]) == ("a, b, c", 7, 2.0)
    assert first["utilization"] == pytest.approx(5400 / (2 * 7200))
    assert first["allocated_share"] == 0.75
    assert (other["charged"], other["utilization"]) == (0, 1.0)
    assert second["unallocated"] == -100
