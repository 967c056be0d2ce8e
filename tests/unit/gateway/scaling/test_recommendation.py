"""Each term of a recommendation, the damping and the bounds."""

from dataclasses import replace

import pytest

from tollway.gateway.learning.known_events import KnownEvent
from tollway.gateway.scaling.calendar import Bounds, Calendar, Entry
from tollway.gateway.scaling.queueing import memoryless_wait_s
from tollway.gateway.scaling.recommendation import (
    Expected,
    Observed,
    Recommendation,
    Target,
    recommend,
    replicas_for,
)

NOW_S = 1_000_000.0
TARGET = Target(
    usual=Bounds(1, 20), places=4, utilization=0.7, wait_s=None, lead_s=120, up_s=30, down_s=300
)
EMPTY = Calendar()


def steady(rate: float, replicas: int, **changes: object) -> Observed:
    """Return a load of `rate` / 2 calls at once, with `replicas` recommended so far."""
    observed = Observed(rate, 0.5, latest_per_s=rate, steady=replicas, replicas=replicas)
    return replace(observed, **changes)  # type: ignore[arg-type]


def at(observed: Observed, forecast: float | None = None, on: Calendar = EMPTY) -> Recommendation:
    expected = None if forecast is None else Expected(forecast)
    return recommend(TARGET, observed, expected, on, NOW_S)


def test_the_replicas_keep_the_utilization_at_its_target() -> None:
    found = at(Observed(28.0, 0.5))
    assert (found.replicas, found.reason) == (5, "measured")  # 14 calls at once / (0.7 x 4)
    assert 28.0 * 0.5 / (found.replicas * TARGET.places) <= 0.7


def test_a_wait_asks_for_as_many_replicas_as_erlangs_formula_says() -> None:
    target = replace(TARGET, wait_s=0.005)
    count = replicas_for(target, 14.0, 0.5)
    assert memoryless_wait_s(14.0, 0.5, 4 * count) <= 0.005
    assert memoryless_wait_s(14.0, 0.5, 4 * (count - 1)) > 0.005
    assert count > replicas_for(TARGET, 14.0, 0.5)


def test_a_forecast_of_more_calls_decides_and_one_of_fewer_does_not() -> None:
    found = at(Observed(28.0, 0.5), forecast=56.0)
    assert (found.replicas, found.reason) == (10, "forecast")
    assert at(Observed(28.0, 0.5), forecast=5.0).reason == "measured"


SALE = Calendar(events=(KnownEvent(NOW_S + 100, NOW_S + 3600, 3.0),))


def test_an_event_multiplies_the_forecast_from_the_lead_time_before_it() -> None:
    assert at(Observed(28.0, 0.5), 28.0, SALE).replicas == 15
    before = recommend(TARGET, Observed(28.0, 0.5), Expected(28.0), SALE, NOW_S - 21)
    assert before.replicas == 5
    after = recommend(TARGET, Observed(28.0, 0.5), Expected(28.0), SALE, NOW_S + 3600)
    assert after.replicas == 5


def test_without_a_forecast_an_event_multiplies_the_measured_calls_until_it_begins() -> None:
    assert at(Observed(28.0, 0.5), None, SALE).reason == "event"
    assert recommend(TARGET, Observed(84.0, 0.5), None, SALE, NOW_S + 200).reason == "measured"


def test_calls_of_unknown_duration_ask_for_one_replica() -> None:
    """As after a restart with none, where every attempt fails and no duration is ever known."""
    assert at(Observed(28.0, 0.0)).terms[0].replicas == 1
    assert at(Observed(0.0, 0.0)).terms[0].replicas == 0


def test_a_spike_is_not_damped() -> None:
    calm = ((NOW_S - 20, 5), (NOW_S - 10, 5))
    found = at(steady(28.0, 5, latest_per_s=100.0, wanted=calm))
    assert (found.replicas, found.reason) == (18, "spike")  # 50 / 2.8
    waiting = at(steady(28.0, 5, latest_per_s=50.0, waiting=20.0, wanted=calm))
    assert waiting.replicas == 17  # 25 and 20 that wait


def test_what_chance_explains_is_no_spike() -> None:
    # Six calls instead of three in 10 s, of 10 s each.
    observed = Observed(0.3, 10.0, latest_per_s=0.6, steady=1, replicas=1)
    assert "spike" not in [term.reason for term in at(observed).terms]


def test_more_replicas_are_recommended_once_they_were_wanted_throughout() -> None:
    briefly = ((NOW_S - 20, 5), (NOW_S - 10, 8))
    assert at(steady(44.8, 5, wanted=briefly)).replicas == 5
    throughout = ((NOW_S - 40, 5), (NOW_S - 20, 8), (NOW_S - 10, 8))
    assert at(steady(44.8, 5, wanted=throughout)).replicas == 8


def test_fewer_replicas_are_recommended_once_none_wanted_more() -> None:
    recently = ((NOW_S - 290, 8), (NOW_S - 10, 5))
    found = at(steady(28.0, 9, wanted=recently))
    assert (found.replicas, found.reason, found.wanted) == (8, "damping", 5)
    assert at(steady(28.0, 9, wanted=((NOW_S - 10, 5),))).replicas == 5


def test_replicas_do_not_fall_while_most_calls_fail() -> None:
    assert at(steady(0.0, 5, is_failing=True)).replicas == 5
    assert at(steady(56.0, 5, is_failing=True)).replicas == 10


def test_the_bounds_come_last_and_are_named() -> None:
    assert (at(Observed(0.0, 0.5)).replicas, at(Observed(0.0, 0.5)).reason) == (1, "min")
    found = at(Observed(280.0, 0.5))
    assert (found.replicas, found.reason, found.wanted) == (20, "max", 50)


# 1970-01-12 was a Monday; NOW_S is 13:46:40 UTC of that day.
@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (Entry(frozenset({0}), 780, 840, 3, None), (3, 20)),
        (Entry(frozenset({0}), 780, 840, 0, 0), (0, 0)),
        (Entry(frozenset({1}), 780, 840, 3, None), (1, 20)),
        (Entry(frozenset({6}), 1200, 840, 0, 2), (0, 2)),  # from Sunday evening
        (Entry(frozenset({0}), 1200, 840, 0, 2), (1, 20)),  # from this evening
        (Entry(frozenset({0}), 0, 0, 0, 2), (0, 2)),  # all day
    ],
)
def test_a_schedule_replaces_the_bounds(entry: Entry, expected: tuple[int, int]) -> None:
    bounds = Calendar(schedule=(entry,)).bounds(Bounds(1, 20), NOW_S, 0.0)
    assert (bounds.least, bounds.most) == expected


def test_a_schedule_is_by_the_local_clock() -> None:
    afternoon = Entry(frozenset({0}), 14 * 60, 15 * 60, 5, None)
    at_home = Calendar("UTC", (afternoon,)).bounds(Bounds(1, 20), NOW_S, 0.0)
    east = Calendar("Europe/Berlin", (afternoon,)).bounds(Bounds(1, 20), NOW_S, 0.0)
    assert (at_home.least, east.least) == (1, 5)


def test_the_night_ends_early_enough_for_replicas_to_start() -> None:
    night = Calendar(schedule=(Entry(frozenset({0}), 0, 828, 0, 1),))  # until 13:48
    assert night.bounds(Bounds(3, 20), NOW_S, 60.0) == Bounds(0, 1)
    assert night.bounds(Bounds(3, 20), NOW_S, 120.0) == Bounds(3, 20)


def test_calls_that_wait_for_the_first_replica_start_one_at_once() -> None:
    found = recommend(
        replace(TARGET, usual=Bounds(0, 20)),
        Observed(0.0, 0.5, steady=0, replicas=0, wanted=((NOW_S - 1, 0),), cold=3.0),
        None,
        EMPTY,
        NOW_S,
    )
    assert (found.replicas, found.reason) == (1, "waiting")


def test_a_floor_keeps_one_replica_and_a_budget_bounds_even_that() -> None:
    target = replace(TARGET, usual=Bounds(0, 20))
    idle = Observed(0.0, 0.5, holds_floor=True)
    kept = recommend(target, idle, None, EMPTY, NOW_S)
    assert (kept.replicas, kept.reason) == (1, "floor")
    spent = recommend(target, replace(idle, paid=0), None, EMPTY, NOW_S)
    assert spent.replicas == 0
    busy = recommend(target, Observed(28.0, 0.5, paid=3), None, EMPTY, NOW_S)
    assert (busy.replicas, busy.reason, busy.steady) == (3, "budget", 5)


def test_the_reserve_is_a_term() -> None:
    found = recommend(TARGET, Observed(1.0, 0.5), Expected(1.0, reserve_per_s=28.0), EMPTY, NOW_S)
    assert (found.replicas, found.reason) == (5, "reserve")
