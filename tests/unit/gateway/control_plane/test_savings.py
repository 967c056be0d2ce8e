"""Savings: one reference, points with intervals, and fixed backends that would do better."""

import pytest

from tollway.gateway.control_plane import savings
from tollway.gateway.control_plane.dashboard_data import wilson
from tollway.gateway.control_plane.savings import FixedBackend


def test_the_reference_follows_from_the_configuration_alone() -> None:
    assert savings.reference({"a": 0.8, "b": 0.9, "c": 0.9, "d": None}) == "b"
    assert savings.reference({"a": None}) is None
    assert savings.reference({}) is None


def test_points_have_the_interval_of_the_measured_accuracy() -> None:
    found = savings.points(0.85, (0.8, 0.9), 0.875)
    assert found == pytest.approx((-0.025, -0.075, 0.025))
    assert found is not None
    assert found.text == "-2.5 points (-7.5 to +2.5)"


@pytest.mark.parametrize(
    ("accuracy", "interval", "declared"),
    [(None, None, 0.9), (0.9, (0.8, 0.95), None)],
)
def test_points_that_nobody_knows(
    accuracy: float | None, interval: tuple[float, float] | None, declared: float | None
) -> None:
    assert savings.points(accuracy, interval, declared) is None


BACKENDS = (FixedBackend("cheap", 1.0, 0.8), FixedBackend("mid", 2.0, 0.9))


@pytest.mark.parametrize(
    ("cost_usd", "accuracy", "labels", "better"),
    [
        (2.0, 0.7, 1000, "mid"),
        (1.5, 0.7, 1000, "cheap"),  # mid would have cost more
        (0.5, 0.7, 1000, None),
        (2.0, 0.7, 5, None),  # the interval includes zero
        (2.0, 0.9, 1000, None),
        (2.0, 0.85, 1000, "mid"),
    ],
)
def test_a_fixed_backend_is_better_only_beyond_doubt_and_at_the_price(
    cost_usd: float, accuracy: float, labels: int, better: str | None
) -> None:
    found = savings.better_fixed(BACKENDS, cost_usd, accuracy, wilson(accuracy, labels))
    assert (found and found[0].name) == better
    if found:
        assert found[1].high < 0


def test_without_labels_no_backend_is_called_better() -> None:
    assert savings.better_fixed(BACKENDS, 9.0, None, None) is None
