"""Changes are detected soon, with few false alarms, and their end too."""

import math
from collections.abc import Callable
from random import Random

import pytest

from tollway.policies.evidence.drift import Change, Drift


def watch(drift: Drift, rng: Random, right: float, expected: float, count: int) -> list[Change]:
    found = []
    for _ in range(count):
        change = drift.observe("a", float(rng.random() < right) - expected)
        if change is not None:
            found.append(change)
    return found


@pytest.mark.parametrize("right", [0.5, 0.8, 0.95, 1.0])
def test_an_arm_that_is_as_expected_is_left_alone_for_thousands_of_labels(right: float) -> None:
    alarms = [watch(Drift(), Random(seed), right, right, 2000) for seed in range(10)]

    assert sum(map(bool, alarms)) <= 1


def off_throughout(label: int) -> float:
    return -0.04


def off_in_turns(label: int) -> float:
    return 0.05 if label // 2000 % 2 else -0.05


def off_slowly(label: int) -> float:
    return 0.08 * math.sin(label / 3000)


@pytest.mark.parametrize(
    ("off", "alarms_max"), [(off_throughout, 2), (off_in_turns, 8), (off_slowly, 4)]
)
def test_a_regressor_that_errs_a_little_causes_few_alarms_in_100_000_labels(
    off: Callable[[int], float], alarms_max: int
) -> None:
    drift, rng, alarms = Drift(), Random(0), 0
    for label in range(100_000):
        right = float(rng.random() < 0.7 + off(label))
        alarms += drift.observe("a", right - 0.7) is not None

    assert alarms <= alarms_max


def test_a_drop_is_noticed_after_100_000_quiet_labels_too() -> None:
    drift, rng = Drift(), Random(0)
    watch(drift, rng, 0.84, 0.84, 100_000)

    assert watch(drift, rng, 0.5, 0.84, 100)


def test_a_drop_of_a_third_is_noticed_within_a_hundred_labels_and_sized() -> None:
    for seed in range(20):
        drift, rng = Drift(), Random(seed)
        watch(drift, rng, 0.84, 0.84, 300)
        found = watch(drift, rng, 0.50, 0.84, 100)

        assert found
        assert found[0].amount < -0.15
        assert drift.fallen


def test_nothing_is_added_before_a_change_is_noticed() -> None:
    drift = Drift()

    drift.observe("a", -1.0)

    assert drift.bias == 0.0


def test_what_is_added_fades_when_the_head_has_caught_up() -> None:
    drift, rng = Drift(), Random(0)
    watch(drift, rng, 0.2, 0.9, 60)
    assert drift.bias < -0.4

    watch(drift, rng, 0.2, 0.2, 400)

    assert abs(drift.bias) < 0.15


def test_an_arm_that_rose_again_is_no_longer_suspect() -> None:
    drift, rng = Drift(), Random(1)
    watch(drift, rng, 0.2, 0.9, 60)
    assert drift.fallen

    watch(drift, rng, 0.9, 0.9, 100)

    assert not drift.fallen


def test_a_restored_detector_goes_on_like_the_original() -> None:
    drift, copy = Drift(), Drift()
    watch(drift, Random(2), 0.3, 0.9, 40)
    copy.load(drift.save())

    for each in (drift, copy):
        watch(each, Random(3), 0.3, 0.9, 20)

    assert copy.save() == drift.save()
