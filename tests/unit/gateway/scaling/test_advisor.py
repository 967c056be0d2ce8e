"""The advisor on the counters of a day with a spike, and its state."""

from dataclasses import replace

import pytest

from benchmarks.scaling import (
    LEAD_S,
    SERVICE_S,
    SPIKE_S,
    TARGET,
    TICK_S,
    Row,
    changes,
    last_day,
    outside_spike,
    reversals,
)
from tollway.gateway.scaling.advisor import BackendScaling, ScalingAdvisor, ScalingPlan
from tollway.gateway.scaling.backend_totals import totals
from tollway.gateway.scaling.calendar import Calendar
from tollway.gateway.scaling.load_meter import LoadMeter, Totals


@pytest.fixture(scope="module")
def day() -> list[Row]:
    return last_day(TARGET)


def test_utilization_stays_under_its_target_but_for_the_start_of_a_spike(day: list[Row]) -> None:
    busy = [row.utilization for row in outside_spike(day)]
    assert sum(share <= TARGET.utilization for share in busy) > 0.99 * len(busy)
    assert max(busy) < 0.8


def test_a_spike_is_met_as_soon_as_replicas_can_start(day: list[Row]) -> None:
    answered_s = SPIKE_S[0] + 2 * TICK_S + LEAD_S
    assert max(row.utilization for row in day if answered_s <= row.time_s < SPIKE_S[1]) < 0.8


def test_replicas_do_not_flap(day: list[Row]) -> None:
    undamped = last_day(replace(TARGET, up_s=0.0, down_s=0.0))
    assert reversals(day) < reversals(undamped) / 20
    assert len(changes(day)) < len(changes(undamped)) / 10


def test_nothing_is_recommended_before_the_load_is_known() -> None:
    advisor = ScalingAdvisor({"gpu": ScalingPlan(TARGET, Calendar())})
    advisor.observe({}, 0.0)
    advisor.observe({}, 10.0)
    assert advisor.replicas() == {}
    advisor.observe({}, 30.0)
    assert advisor.replicas() == {"gpu": 1}


def test_a_gap_begins_the_measurement_again_and_keeps_the_recommendation() -> None:
    one = BackendScaling(ScalingPlan(TARGET, Calendar()))
    for now_s, calls in ((0.0, 0), (60.0, 3360), (4000.0, 3360), (4010.0, 3360)):
        one.observe(Totals(calls, calls * SERVICE_S), now_s)
    assert one.current is not None and one.current.replicas == 10


def test_failures_do_not_shorten_the_service_time() -> None:
    meter = LoadMeter()
    meter.observe(Totals(), 0.0)
    meter.observe(Totals(calls=100, seconds=50.0), 10.0)
    meter.observe(Totals(calls=400, seconds=50.3, failed=300), 20.0)
    assert meter.is_failing and meter.service_s == 0.5


def test_the_forecast_survives_a_restart() -> None:
    plans = {"gpu": ScalingPlan(TARGET, Calendar())}
    before, after = ScalingAdvisor(plans), ScalingAdvisor(plans)
    for hour in range(26):
        for second in range(0, 3600, 60):
            before.backends["gpu"].forecast.update(600.0, 3600.0 * hour + second, 60.0)
    after.load(before.save())
    assert after.backends["gpu"].forecast.expected(0.0, 60.0) == pytest.approx(600.0)


def test_a_reload_keeps_what_was_measured() -> None:
    advisor = ScalingAdvisor({"gpu": ScalingPlan(TARGET, Calendar())})
    kept = advisor.backends["gpu"]
    other = ScalingPlan(replace(TARGET, places=8), Calendar())
    advisor.revise({"gpu": other, "cpu": other})
    assert advisor.backends["gpu"] is kept and kept.plan is other
    advisor.revise({"cpu": other})
    assert [*advisor.backends] == ["cpu"]


def test_totals_add_up_routes_and_ignore_other_metrics() -> None:
    sums = "tollway_upstream_duration_seconds"
    at = {"backend": "gpu"}
    families = [
        {
            "name": sums,
            "samples": [
                (f"{sums}_count", {**at, "route": "a"}, 3),
                (f"{sums}_count", {**at, "route": "b"}, 4),
                (f"{sums}_sum", {**at, "route": "a"}, 1.5),
                (f"{sums}_bucket", {**at, "route": "a", "le": "1"}, 99),
            ],
        },
        {"name": "tollway_backend_shed", "samples": [("tollway_backend_shed_total", at, 2)]},
        {"name": "tollway_ledger_up", "samples": [("tollway_ledger_up", {}, 1)]},
    ]
    assert totals(families) == {"gpu": Totals(calls=7, seconds=1.5, refused=2)}
