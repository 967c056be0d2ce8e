"""The next fall of a recommendation is known before it comes."""

from dataclasses import replace

from tollway.gateway.scaling.calendar import Bounds, Calendar, Entry
from tollway.gateway.scaling.coming import Coming, coming
from tollway.gateway.scaling.recommendation import Observed, Target, recommend

NOW_S = 1_000_000.0
TARGET = Target(
    usual=Bounds(1, 20), places=4, utilization=0.7, wait_s=None, lead_s=120, up_s=30, down_s=300
)
QUIET = Calendar()


def test_a_fall_comes_when_a_busier_time_leaves_the_window() -> None:
    wanted = [(NOW_S - 200.0, 6), (NOW_S - 100.0, 4), (NOW_S, 2)]
    now = recommend(
        TARGET, Observed(1.0, 0.5, wanted=wanted, steady=6, replicas=6), None, QUIET, NOW_S
    )
    assert now.replicas == 6
    assert coming(TARGET, QUIET, now, wanted, NOW_S) == Coming(4, 100.0, "damping")


def test_the_first_of_several_falls_is_told_in_whatever_order_the_times_are() -> None:
    """A clock that was set back leaves later times before earlier ones."""
    wanted = [(NOW_S - 50.0, 3), (NOW_S - 250.0, 6), (NOW_S - 200.0, 6), (NOW_S - 10.0, 2)]
    now = recommend(
        TARGET, Observed(1.0, 0.5, wanted=wanted, steady=6, replicas=6), None, QUIET, NOW_S
    )
    assert coming(TARGET, QUIET, now, wanted, NOW_S) == Coming(3, 100.0, "damping")


def test_nothing_comes_while_the_load_stays() -> None:
    wanted = [(NOW_S - 100.0, 5), (NOW_S, 5)]
    now = recommend(
        TARGET, Observed(28.0, 0.5, wanted=wanted, steady=5, replicas=5), None, QUIET, NOW_S
    )
    assert coming(TARGET, QUIET, now, wanted, NOW_S) is None


def test_the_schedule_is_seen_an_hour_ahead() -> None:
    minute = int(NOW_S % 86_400 // 60) + 30
    night = Entry(frozenset(range(7)), minute, minute + 60, None, 2)
    on = Calendar("UTC", (night,))
    target = replace(TARGET, lead_s=0.0)
    now = recommend(target, Observed(28.0, 0.5), None, on, NOW_S)
    found = coming(target, on, now, [], NOW_S)
    assert found is not None and (found.replicas, found.reason) == (2, "max")
    assert 29 * 60 < found.in_s <= 30 * 60
