"""Bounds by betting hold at all times at once, and narrow as evidence grows."""

from random import Random

import pytest

from tollway.policies.evidence.confidence_sequences import Detector, LowerBound


def weighted(rng: Random, mean: float, share: float) -> float:
    """Return a label of a policy that chooses in `share` of all cases, propensity-weighted."""
    return float(rng.random() < share and rng.random() < mean) / share


@pytest.mark.integration
@pytest.mark.parametrize(("mean", "share"), [(0.9, 1.0), (0.5, 1.0), (0.9, 0.2)])
def test_the_bound_is_ever_wrong_in_fewer_than_alpha_of_all_streams(
    mean: float, share: float
) -> None:
    wrong = 0
    for seed in range(60):
        rng, bound = Random(seed), LowerBound(alpha=0.1)
        for _ in range(1000):
            bound.observe(weighted(rng, mean, share))
            if bound.value > mean:
                wrong += 1
                break
    assert wrong <= 0.1 * 60


def test_the_bound_closes_in() -> None:
    rng, bound, gaps = Random(1), LowerBound(), []
    for count in range(1, 3001):
        bound.observe(weighted(rng, 0.9, 1.0))
        if count in (100, 1000, 3000):
            gaps.append(0.9 - bound.value)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] < 0.15
    assert gaps[-1] < 0.04


def test_values_far_below_the_range_are_bet_on_carefully() -> None:
    bound = LowerBound()
    for value in (1.0, 1.0, -9.0, 1.0) * 50:
        bound.observe(value, least=-9.0)
    assert bound.value == 0.0  # their mean is -1.5


def test_a_detector_finds_a_change_even_after_a_long_quiet_time() -> None:
    detector, rng = Detector(0.2, alpha=0.001), Random(2)

    def losses(mean: float, count: int) -> int | None:
        for at in range(count):
            if detector.observe(float(rng.random() < mean)):
                return at
        return None

    assert losses(0.15, 5000) is None
    at = losses(0.5, 200)
    assert at is not None
    assert at < 80


def test_a_detector_seldom_raises_false_alarms_at_the_edge_of_its_claim() -> None:
    detector, rng, alarms = Detector(0.2, alpha=0.01), Random(3), 0
    for _ in range(20_000):
        if detector.observe(float(rng.random() < 0.2)):
            alarms += 1
            detector.reset()
    assert alarms <= 20_000 * 0.01


def test_a_saved_state_goes_on_as_the_original() -> None:
    bound, copy, rng = LowerBound(), LowerBound(), Random(4)
    detector, other = Detector(0.2, alpha=0.01), Detector(0.2, alpha=0.01)
    for _ in range(200):
        bound.observe(rng.random())
        detector.observe(rng.random())
    copy.load(bound.save())
    other.load(detector.save())
    assert copy.value == bound.value > 0
    assert other.log_capitals == detector.log_capitals
    bound.observe(0.9)
    copy.observe(0.9)
    assert copy.value == bound.value


def test_what_cannot_be_is_refused() -> None:
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not at least"):
            LowerBound().observe(value)
        with pytest.raises(ValueError, match="not at least"):
            Detector(0.5, alpha=0.1).observe(value)
    with pytest.raises(ValueError, match="alpha"):
        Detector(0.5, alpha=0.0)
