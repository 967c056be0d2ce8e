"""Intervals hold for small samples and for means that drift."""

import numpy as np
import pytest

from tollway.simulations.replay.intervals import METHODS, Bounds, bernstein, betting, normal

LOGS = 300


def missed(method: str, draw: object, mean: float, bounds: Bounds) -> int:
    count = 0
    for seed in range(LOGS):
        values = draw(np.random.default_rng(seed))  # type: ignore[operator]
        low, high = METHODS[method](values, values, bounds, 0.05)
        count += not low <= mean <= high
    return count


@pytest.mark.parametrize("method", ["bernstein", "betting"])
def test_rare_heavy_weights_are_covered(method: str) -> None:
    # A weight of 50 once in 50: the mean of a few hundred is far from normal.
    def draw(rng: np.random.Generator) -> np.ndarray:
        return np.where(rng.random(200) < 0.02, 50.0, 0.0) * (rng.random(200) < 0.8)

    assert missed(method, draw, 0.8, Bounds(0.0, 50.0)) <= LOGS * 0.05


def test_the_normal_interval_misses_them_more_often_than_it_says() -> None:
    def draw(rng: np.random.Generator) -> np.ndarray:
        return np.where(rng.random(200) < 0.02, 50.0, 0.0) * (rng.random(200) < 0.8)

    assert missed("normal", draw, 0.8, Bounds(0.0, 50.0)) > LOGS * 0.07


def test_the_average_of_a_mean_that_drifts_is_covered_by_bernstein_and_not_by_betting() -> None:
    means = np.linspace(0.9, 0.1, 1000)

    def draw(rng: np.random.Generator) -> np.ndarray:
        return (rng.random(1000) < means).astype(float)

    assert missed("bernstein", draw, float(means.mean()), Bounds(0.0, 1.0)) <= LOGS * 0.05
    assert missed("betting", draw, float(means.mean()), Bounds(0.0, 1.0)) > LOGS / 2


@pytest.mark.parametrize("interval", [bernstein, betting, normal])
def test_more_values_make_it_narrower_and_it_lies_about_the_mean(interval: object) -> None:
    widths = []
    for count in (100, 1000, 10_000):
        values = (np.random.default_rng(1).random(count) < 0.7).astype(float)
        low, high = interval(values, values, Bounds(0.0, 1.0), 0.05)  # type: ignore[operator]
        assert low < values.mean() < high
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_turning_the_sign_of_the_values_turns_the_interval() -> None:
    values = np.random.default_rng(2).random(500)
    low, high = bernstein(values, values, Bounds(0.0, 1.0), 0.05)
    turned = bernstein(-values, -values, Bounds(0.0, 1.0).turned(), 0.05)
    assert turned == pytest.approx((-high, -low), abs=2e-3)


def test_a_value_known_only_to_lie_between_widens_its_own_side() -> None:
    values = np.random.default_rng(3).random(500) * 0.5
    low, high = bernstein(values, values, Bounds(0.0, 1.0), 0.05)
    same, wider = bernstein(values, values + 0.3, Bounds(0.0, 1.0), 0.05)
    assert same == low
    assert wider > high + 0.25
