"""The baseline: seasons are learned, one bad day is ignored, few data raise the threshold."""

import math

import pytest

from tollway.gateway.anomalies.seasonal_baseline import DAY_H, HOUR_S, WEEK_H, SeasonalBaseline

STEP_S = 60.0


def rate(now_s: float) -> float:
    """Dollars a second: days at 1 + cos, weekends at a third."""
    day = now_s / 86_400
    return (1.5 + math.cos(2 * math.pi * day)) * (0.3 if int(day) % 7 >= 5 else 1.0)


def fed(
    hours: int, seasons: SeasonalBaseline | None = None, start_h: int = 0, factor: float = 1.0
) -> SeasonalBaseline:
    seasons = seasons or SeasonalBaseline()
    for minute in range(hours * 60):
        now_s = start_h * HOUR_S + (minute + 1) * STEP_S
        seasons.add(rate(now_s) * factor * STEP_S, now_s, STEP_S)
    return seasons


def test_nothing_is_usual_at_first() -> None:
    assert not fed(0).usual(0).by


def test_a_first_day_is_judged_by_its_last_hour_with_doubt() -> None:
    usual = fed(5).usual(5 * HOUR_S)
    assert usual.by == "the last hour"
    assert usual.doubt > 2
    assert usual.usd_per_s == pytest.approx(rate(4.5 * HOUR_S), rel=0.1)


def test_then_by_the_same_hour_of_earlier_days() -> None:
    now_s = (3 * DAY_H + 12.5) * HOUR_S
    usual = fed(3 * DAY_H).usual(now_s)
    assert usual.by == "the same hour of earlier days"
    assert usual.usd_per_s == pytest.approx(rate(now_s), rel=0.05)


@pytest.mark.parametrize("hour", [7.5, 12.0, 31.25, 130.0, 150.0])
def test_then_by_the_same_hour_of_earlier_weeks_weekends_too(hour: float) -> None:
    now_s = (3 * WEEK_H + hour) * HOUR_S
    usual = fed(3 * WEEK_H).usual(now_s)
    assert usual.doubt == 1.0
    assert usual.usd_per_s == pytest.approx(rate(now_s), rel=0.05)


def test_one_week_that_was_not_as_usual_is_outvoted() -> None:
    seasons = fed(2 * WEEK_H)
    fed(WEEK_H, seasons, 2 * WEEK_H, factor=10.0)
    fed(WEEK_H, seasons, 3 * WEEK_H)
    now_s = (4 * WEEK_H + 12.5) * HOUR_S
    assert seasons.usual(now_s).usd_per_s == pytest.approx(rate(now_s), rel=0.05)


def test_growth_is_followed_after_a_day() -> None:
    seasons = fed(3 * WEEK_H)
    fed(DAY_H + 1, seasons, 3 * WEEK_H, factor=1.4)
    now_s = (3 * WEEK_H + DAY_H + 1.5) * HOUR_S
    assert seasons.usual(now_s).usd_per_s == pytest.approx(1.4 * rate(now_s), rel=0.1)


def test_hours_without_a_gateway_do_not_count_as_zeros() -> None:
    seasons = fed(WEEK_H)
    fed(WEEK_H, seasons, 2 * WEEK_H)  # a week's outage
    now_s = (3 * WEEK_H + 12.5) * HOUR_S
    assert seasons.usual(now_s).usd_per_s == pytest.approx(rate(now_s), rel=0.05)


def test_what_is_kept_survives_a_restart_and_does_not_grow() -> None:
    seasons = fed(6 * WEEK_H)
    copy, state = SeasonalBaseline(), seasons.save()
    copy.load(state)

    assert len(state["hours"]) <= 4 * WEEK_H + 1
    now_s = (6 * WEEK_H + 12.5) * HOUR_S
    assert copy.usual(now_s).usd_per_s == pytest.approx(seasons.usual(now_s).usd_per_s, rel=0.05)
