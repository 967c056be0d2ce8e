"""The replay of arrivals: it recommends what the gateway does, and measures what it says."""

import numpy as np
import pytest

from benchmarks import autoscaling
from benchmarks.autoscaling import HEADROOM, SERVICE_S, TICK_S, Frontier
from tollway.gateway.learning.known_events import KnownEvent
from tollway.gateway.scaling.advisor import BackendScaling, ScalingPlan
from tollway.gateway.scaling.calendar import Calendar
from tollway.gateway.scaling.load_meter import Totals
from tollway.gateway.settings.scaling.backend import ScalingConfig

HOUR = 60


@pytest.fixture(scope="module")
def series() -> autoscaling.Arrivals:
    """Return two days with a daily swing, and an event on the second."""
    minute = np.arange(48 * HOUR)
    start_s = 1_000 * 86_400.0
    event = KnownEvent(start_s + 33 * 3600.0, start_s + 35 * 3600.0, 3.0)
    shape = 1.0 + 0.8 * np.cos(minute / 1440 * 2 * np.pi)
    shape[33 * HOUR : 35 * HOUR] *= 3.0
    return autoscaling.drawn("made", shape, start_s, 24 * HOUR, (event,))


def test_the_replay_of_all_targets_at_once_is_what_the_gateway_recommends(
    series: autoscaling.Arrivals,
) -> None:
    plan = ScalingPlan(autoscaling.target(), Calendar("UTC", (), series.events), headroom=HEADROOM)
    assert ScalingConfig.model_fields["headroom"].default == HEADROOM
    one, now, found = BackendScaling(plan), Totals(), []
    one.observe(now, series.start_s)
    for tick, load in enumerate(series.load):
        calls = load * TICK_S / SERVICE_S
        now = Totals(now.calls + calls, now.seconds + calls * SERVICE_S)
        one.observe(now, series.start_s + (tick + 1) * TICK_S)
        assert one.current is not None
        found.append(one.current.replicas)
    usual, event = autoscaling.forecasts(series)
    ahead = [(1.0 + HEADROOM) * usual, event]
    replayed = autoscaling.combined(series.load, ahead, np.array([0.7]))[:, 0]
    # The first minutes differ in what was wanted before; the duration of a call is a float.
    same = np.array(found[10:]) == replayed[10:]
    assert same.mean() > 0.999


def test_a_decision_serves_two_minutes_later_and_a_fall_at_once() -> None:
    decided = np.array([[1.0], [3.0], [3.0], [3.0], [3.0], [2.0], [2.0]])
    assert autoscaling.serving(decided)[:, 0].tolist() == [1, 1, 1, 1, 3, 3, 2]


def test_hpas_rule_keeps_within_its_tolerance_and_waits_before_it_falls() -> None:
    load = np.array([60.0] * 3 + [30.0] * 12)  # of 80 places: 75 %, and then 37.5 %
    found = autoscaling.hpa(load, np.array([0.7]))[:, 0]
    assert set(found[:7]) == {20.0} and found[-1] == 11.0


def test_calls_are_attained_unless_they_wait() -> None:
    load = np.array([4.0, 4.0, 8.0, 4.0])
    share = autoscaling.attained(load, np.full((4, 1), 2.0))[:, 0]
    assert share[0] > 0.95 and share[2] == 0.0 and share[3] > 0.95


def test_hours_are_interpolated_between_targets() -> None:
    one = Frontier(np.array([0.9, 1.0, 0.5]), np.array([10.0, 20.0, 5.0]))
    assert one.hours_at(0.95) == pytest.approx(15.0) and one.hours_at(0.5) == 5.0
    assert np.isnan(Frontier(np.array([0.9]), np.array([1.0])).hours_at(0.99))
